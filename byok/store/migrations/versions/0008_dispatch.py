"""Dispatch in batches: an index to walk along, and where the last run left off"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_IS_DUE_SOME_DAY = sa.text("next_rotation_at IS NOT NULL")


def upgrade() -> None:
    # Of a large table it takes longer than the limit for statements of every day.
    op.execute("SET LOCAL statement_timeout = 0")
    op.add_column(
        "ticks",
        sa.Column(
            "more",
            sa.Boolean(),
            nullable=False,
            server_default=sa.text("false"),
            comment="due again at once",
        ),
    )
    op.add_column(
        "ticks", sa.Column("cursor", sa.Text(), nullable=True, comment="where the next run goes on")
    )
    op.drop_index("ix_keys_due", "keys")
    op.create_index(
        "ix_keys_due",
        "keys",
        ["next_rotation_at", "id"],
        postgresql_include=["tenant_id"],
        postgresql_where=_IS_DUE_SOME_DAY,
    )


def downgrade() -> None:
    op.drop_index("ix_keys_due", "keys")
    op.create_index("ix_keys_due", "keys", ["next_rotation_at"], postgresql_where=_IS_DUE_SOME_DAY)
    op.drop_column("ticks", "cursor")
    op.drop_column("ticks", "more")
