"""Validations and syncs at times of their own, and an index of the tenants that are not active

Each row that is there gets a time of its own within the default period. That writes both tables anew, under a
lock: processes that hold leases go on meanwhile. ``docs/scale.md`` has how long it takes.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    # Of a large table it takes longer than the limit for statements of every day.
    op.execute("SET LOCAL statement_timeout = 0")
    op.add_column(
        "keys",
        sa.Column(
            "next_validation_at",
            _TIME,
            nullable=False,
            server_default=sa.text("now() + random() * interval '1 day'"),
            comment="when its active version is to be validated next",
        ),
    )
    op.create_index("ix_keys_next_validation_at", "keys", ["next_validation_at"])
    op.add_column(
        "tenants",
        sa.Column(
            "next_sync_at",
            _TIME,
            nullable=False,
            server_default=sa.text("now() + random() * interval '12 hours'"),
            comment="when to read next what its KMS key says of rotation",
        ),
    )
    op.create_index("ix_tenants_next_sync_at", "tenants", ["next_sync_at"])
    op.create_index(
        "ix_tenants_not_active",
        "tenants",
        ["state", "suspended_at"],
        postgresql_where=sa.text("state <> 'active'"),
    )
