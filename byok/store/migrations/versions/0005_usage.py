"""A usage ledger, a decryption floor for each key, and destroyed versions without any wrapped key"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "version_usage",
        sa.Column("key_id", postgresql.UUID(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("uses", sa.BigInteger(), nullable=False, comment="encryptions and decryptions"),
        sa.Column("first_used_at", _TIME, nullable=False),
        sa.Column("last_used_at", _TIME, nullable=False, comment="up to one flush late, never early"),
        sa.CheckConstraint("uses >= 0", name=op.f("ck_version_usage_uses")),
        sa.CheckConstraint("last_used_at >= first_used_at", name=op.f("ck_version_usage_order_of_times")),
        sa.ForeignKeyConstraint(
            ["key_id", "number"],
            ["key_versions.key_id", "key_versions.number"],
            name="fk_version_usage_version",
        ),
        sa.PrimaryKeyConstraint("key_id", "number", name=op.f("pk_version_usage")),
    )
    # What was used before is not known. These versions count as used now: none is destroyed for want of
    # a ledger.
    op.execute(
        "INSERT INTO version_usage SELECT key_id, number, 0, now(), now() FROM key_versions"
        " WHERE activated_at IS NOT NULL"
    )
    op.add_column(
        "members",
        sa.Column(
            "usage_flushed_at",
            _TIME,
            nullable=True,
            comment="the usage ledger has all that it used before; NULL: never",
        ),
    )
    op.add_column(
        "keys",
        sa.Column(
            "decryption_floor",
            sa.Integer(),
            server_default=sa.text("1"),
            nullable=False,
            comment="versions below it decrypt no more",
        ),
    )
    op.add_column("keys", sa.Column("decryption_floor_set_at", _TIME, nullable=True, comment="NULL: never"))
    for name, condition in (
        ("decryption_floor", "decryption_floor >= 1"),
        ("decryption_floor_set_at", "decryption_floor = 1 OR decryption_floor_set_at IS NOT NULL"),
    ):
        op.create_check_constraint(op.f(f"ck_keys_{name}"), "keys", condition)
    op.drop_constraint(op.f("ck_key_versions_record"), "key_versions")
    op.create_check_constraint(
        op.f("ck_key_versions_record"),
        "key_versions",
        "(state = 'destroyed') = (encrypted_key IS NULL) AND (state = 'destroyed') = (iv IS NULL)"
        " AND (state = 'destroyed') = (master_key_id IS NULL)",
    )


def downgrade() -> None:
    raise NotImplementedError("0005 adds a ledger that would be lost; restore a backup instead")
