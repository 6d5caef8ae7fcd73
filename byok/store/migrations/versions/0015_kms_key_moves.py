"""Moves of tenants from one KMS key to another, and the second wrappings of their versions"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    _moves()
    _wrappings()


def _moves() -> None:
    table = "kms_key_moves"
    op.create_table(
        table,
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("tenant_id", sa.UUID(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("from_kms_key_arn", sa.Text(), nullable=False),
        sa.Column("from_role_arn", sa.Text(), comment="NULL: key-policy mode"),
        sa.Column("to_kms_key_arn", sa.Text(), nullable=False),
        sa.Column("to_role_arn", sa.Text(), comment="NULL: key-policy mode"),
        sa.Column(
            "shares_connection",
            sa.Boolean(),
            nullable=False,
            comment="somebody said that another tenant may have the new KMS key or role, too",
        ),
        sa.Column("hold", sa.Boolean(), nullable=False, comment="stop before the commit"),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("requested_at", _TIME, nullable=False),
        sa.Column(
            "batch", sa.Integer(), nullable=False, comment="grows with every claim: fences off earlier ones"
        ),
        sa.Column("failures", sa.Integer(), nullable=False, comment="batches in a row that came to nothing"),
        sa.Column("wait_cause", sa.Text(), comment="why it does not go on; NULL: it does"),
        sa.Column("wait_why", sa.Text()),
        sa.Column("wait_remedy", sa.Text()),
        sa.Column("claimed_until", _TIME, comment="a worker has it until then"),
        sa.Column("wake_at", _TIME, comment="when the sweeper publishes it again"),
        sa.Column("committed_at", _TIME),
        sa.Column("finished_at", _TIME),
        *(
            sa.CheckConstraint(condition, name=op.f(f"ck_{table}_{name}"))
            for name, condition in (
                ("state", "state IN ('wrapping', 'held', 'committed', 'done', 'rolled-back')"),
                ("wait_cause", "wait_cause IN ('outage', 'stop', 'refusal', 'trouble')"),
                (
                    "wait",
                    "(wait_cause IS NULL) = (wait_why IS NULL) AND (wait_cause IS NULL) = (wait_remedy IS NULL)",
                ),
                ("wake_at", "(state IN ('wrapping', 'committed')) = (wake_at IS NOT NULL)"),
                ("claimed_until", "claimed_until IS NULL OR wake_at IS NOT NULL"),
                ("committed_at", "(state IN ('committed', 'done')) = (committed_at IS NOT NULL)"),
                ("finished_at", "(state IN ('done', 'rolled-back')) = (finished_at IS NOT NULL)"),
                ("another_kms_key", "from_kms_key_arn <> to_kms_key_arn"),
            )
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f(f"fk_{table}_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{table}")),
    )
    is_open = "state IN ('wrapping', 'held')"
    for name, column, condition in (
        ("open", "tenant_id", is_open),
        ("kms_key_arn", "to_kms_key_arn", f"{is_open} AND NOT shares_connection"),
        ("role_arn", "to_role_arn", f"{is_open} AND NOT shares_connection"),
    ):
        op.create_index(
            f"uq_{table}_{name}", table, [column], unique=True, postgresql_where=sa.text(condition)
        )
    op.create_index(
        f"ix_{table}_wake_at",
        table,
        ["wake_at"],
        postgresql_where=sa.text("state IN ('wrapping', 'committed')"),
    )
    op.create_index(f"ix_{table}_tenant_id_requested_at", table, ["tenant_id", "requested_at"])


def _wrappings() -> None:
    table = "kms_key_move_wrappings"
    op.create_table(
        table,
        sa.Column("move_id", sa.UUID(), nullable=False),
        sa.Column("key_id", sa.UUID(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column(
            "encrypted_key",
            sa.LargeBinary(),
            comment="the second wrapping, sealed; NULL once it is in use",
        ),
        sa.Column("iv", sa.LargeBinary(), comment="IV of the seal, 12 bytes"),
        sa.Column("master_key_id", sa.Text(), comment="the master key that sealed it"),
        sa.Column("kms_request_id", sa.Text(), nullable=False),
        sa.Column("kms_key_material_id", sa.Text(), comment="where KMS tells it"),
        sa.Column(
            "validated_at", _TIME, nullable=False, comment="unwrapped by the new KMS key, and compared"
        ),
        sa.CheckConstraint(
            "(encrypted_key IS NULL) = (iv IS NULL) AND (encrypted_key IS NULL) = (master_key_id IS NULL)",
            name=op.f(f"ck_{table}_record"),
        ),
        sa.CheckConstraint("octet_length(iv) = 12", name=op.f(f"ck_{table}_iv")),
        sa.ForeignKeyConstraint(["move_id"], ["kms_key_moves.id"], name=op.f(f"fk_{table}_move_id")),
        sa.ForeignKeyConstraint(
            ["key_id", "number"],
            ["key_versions.key_id", "key_versions.number"],
            name=op.f(f"fk_{table}_version"),
        ),
        sa.PrimaryKeyConstraint("move_id", "key_id", "number", name=op.f(f"pk_{table}")),
    )
    op.create_index(f"ix_{table}_version", table, ["key_id", "number"])


def downgrade() -> None:
    raise NotImplementedError("0015 adds evidence that would be lost; restore a backup instead")
