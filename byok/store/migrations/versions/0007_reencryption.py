"""Re-encryption: targets in the application's database, and campaigns over them"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_UUID, _TIME, _JSON = postgresql.UUID(), sa.DateTime(timezone=True), postgresql.JSONB()
_KINDS = "IN ('integer', 'text', 'uuid')"


def upgrade() -> None:
    _targets()
    _campaigns()


def _targets() -> None:
    table = "reencryption_targets"
    op.create_table(
        table,
        sa.Column("id", _UUID, nullable=False),
        sa.Column("key_id", _UUID, nullable=False),
        sa.Column("schema_name", sa.Text(), nullable=False, comment="in the application's database"),
        sa.Column("table_name", sa.Text(), nullable=False),
        sa.Column("primary_key", sa.Text(), nullable=False),
        sa.Column("primary_key_kind", sa.Text(), nullable=False),
        sa.Column(
            "columns", _JSON, nullable=False, comment="columns of tokens, each with its context's template"
        ),
        sa.Column(
            "tenant_column", sa.Text(), nullable=True, comment="NULL: every row of the table is the tenant's"
        ),
        sa.Column("tenant_column_kind", sa.Text(), nullable=True),
        sa.Column("tenant_value", sa.Text(), nullable=True),
        sa.Column("registered_by", sa.Text(), nullable=False),
        sa.Column("registered_at", _TIME, nullable=False),
        sa.Column("unregistered_at", _TIME, nullable=True, comment="kept for the campaigns that refer to it"),
        sa.CheckConstraint(f"primary_key_kind {_KINDS}", name=op.f(f"ck_{table}_primary_key_kind")),
        sa.CheckConstraint(f"tenant_column_kind {_KINDS}", name=op.f(f"ck_{table}_tenant_column_kind")),
        sa.CheckConstraint(
            "(tenant_column IS NULL) = (tenant_value IS NULL)"
            " AND (tenant_column IS NULL) = (tenant_column_kind IS NULL)",
            name=op.f(f"ck_{table}_tenant_column"),
        ),
        sa.CheckConstraint("jsonb_array_length(columns) >= 1", name=op.f(f"ck_{table}_columns")),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], name=op.f(f"fk_{table}_key_id")),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{table}")),
    )
    op.create_index(
        f"uq_{table}_table",
        table,
        ["key_id", "schema_name", "table_name"],
        unique=True,
        postgresql_where=sa.text("unregistered_at IS NULL"),
    )


def _campaigns() -> None:
    table = "reencryption_campaigns"
    op.create_table(
        table,
        sa.Column("id", _UUID, nullable=False),
        sa.Column("target_id", _UUID, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column(
            "to_version", sa.Integer(), nullable=False, comment="no value is to stay under an older one"
        ),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("requested_at", _TIME, nullable=False),
        sa.Column("rows_per_second", sa.Integer(), nullable=True, comment="NULL: as fast as it goes"),
        sa.Column(
            "allow_unreadable", sa.Boolean(), nullable=False, comment="values that don't open don't fail it"
        ),
        sa.Column(
            "batch", sa.Integer(), nullable=False, comment="grows with every claim: fences off earlier ones"
        ),
        sa.Column("pass_number", sa.Integer(), nullable=False),
        sa.Column(
            "cursor", sa.Text(), nullable=True, comment="last primary key that this phase has done with"
        ),
        sa.Column(
            "row_count",
            sa.BigInteger(),
            nullable=False,
            comment="rows of the target, as counted at the start",
        ),
        sa.Column("seen", sa.BigInteger(), nullable=False, comment="rows that the passes read"),
        sa.Column("rewritten", sa.BigInteger(), nullable=False),
        sa.Column(
            "conflicts",
            sa.BigInteger(),
            nullable=False,
            comment="somebody else wrote the value at that moment",
        ),
        sa.Column(
            "unreadable", sa.BigInteger(), nullable=False, comment="values that don't open, in all passes"
        ),
        sa.Column("pass_seen", sa.BigInteger(), nullable=False),
        sa.Column("pass_rewritten", sa.BigInteger(), nullable=False),
        sa.Column("pass_conflicts", sa.BigInteger(), nullable=False),
        sa.Column("pass_unreadable", sa.BigInteger(), nullable=False),
        sa.Column(
            "unreadable_rows", _JSON, nullable=False, comment="columns and primary keys of the first of them"
        ),
        sa.Column("before", _JSON, nullable=False, comment="values by version, before the first pass"),
        sa.Column("after", _JSON, nullable=False, comment="values by version, after the last pass"),
        sa.Column("started_at", _TIME, nullable=True),
        sa.Column("claimed_until", _TIME, nullable=True, comment="a worker has it until then"),
        sa.Column("wake_at", _TIME, nullable=True, comment="when the sweeper publishes it again"),
        sa.Column("failures", sa.Integer(), nullable=False, comment="batches in a row that came to nothing"),
        sa.Column("failure", sa.Text(), nullable=True, comment="why it failed, waits or paused"),
        sa.Column("pause_cause", sa.Text(), nullable=True),
        sa.Column("finished_at", _TIME, nullable=True),
        *(
            sa.CheckConstraint(condition, name=op.f(f"ck_{table}_{name}"))
            for name, condition in (
                ("state", "state IN ('running', 'paused', 'done', 'cancelled', 'failed')"),
                ("phase", "phase IN ('count-before', 'rewrite', 'count-after')"),
                ("pause_cause", "pause_cause IN ('request', 'stop')"),
                ("paused_with_cause", "(state = 'paused') = (pause_cause IS NOT NULL)"),
                ("finished_at", "(state IN ('running', 'paused')) = (finished_at IS NULL)"),
                ("wake_at", "(state = 'running') = (wake_at IS NOT NULL)"),
                ("claimed_until", "claimed_until IS NULL OR state = 'running'"),
                ("failure", "state <> 'failed' OR failure IS NOT NULL"),
                ("rows_per_second", "rows_per_second >= 1"),
                ("to_version", "to_version >= 1"),
            )
        ),
        sa.ForeignKeyConstraint(
            ["target_id"], ["reencryption_targets.id"], name=op.f(f"fk_{table}_target_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{table}")),
    )
    op.create_index(
        f"uq_{table}_open",
        table,
        ["target_id"],
        unique=True,
        postgresql_where=sa.text("state IN ('running', 'paused')"),
    )
    op.create_index(f"ix_{table}_wake_at", table, ["wake_at"], postgresql_where=sa.text("state = 'running'"))
    op.create_index(f"ix_{table}_target_id_to_version", table, ["target_id", "to_version"])
    op.create_index(f"ix_{table}_requested_at", table, ["requested_at"])


def downgrade() -> None:
    raise NotImplementedError("0007 adds evidence that would be lost; restore a backup instead")
