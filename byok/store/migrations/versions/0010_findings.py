"""What the watch over customers' sides found, and how far audit chains are verified

Each tenant gets a time of its own for its first look within the default period. A tenant that is verified counts as
looked at then. Rotation that was on when it was read last was last seen on then.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)
_OPEN = sa.text("resolved_at IS NULL")


def upgrade() -> None:
    # Of a large table it takes longer than the limit for statements of every day.
    op.execute("SET LOCAL statement_timeout = 0")
    op.add_column(
        "tenants",
        sa.Column("kms_key_rotation_on_at", _TIME, comment="when AWS's own rotation was last seen on"),
    )
    op.add_column(
        "tenants",
        sa.Column(
            "next_watch_at",
            _TIME,
            nullable=False,
            server_default=sa.text("now() + random() * interval '1 day'"),
            comment="when to look over the customer's side next",
        ),
    )
    op.add_column(
        "tenants", sa.Column("looked_at", _TIME, comment="when the last look began that got an answer")
    )
    op.execute(
        "UPDATE tenants SET looked_at = verified_at,"
        " kms_key_rotation_on_at = CASE WHEN kms_key_rotation_days IS NOT NULL THEN synced_at END"
    )
    op.create_index("ix_tenants_next_watch_at", "tenants", ["next_watch_at"])
    op.create_index(
        "ix_tenants_looked_at",
        "tenants",
        ["looked_at"],
        postgresql_where=sa.text("state IN ('active', 'suspended')"),
    )
    op.create_table(
        "findings",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("tenant_id", sa.UUID(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("detail", postgresql.JSONB(), nullable=False, comment="what was seen; nothing secret"),
        sa.Column("first_seen_at", _TIME, nullable=False),
        sa.Column("last_seen_at", _TIME, nullable=False),
        sa.Column("deadline_at", _TIME, comment="when it is too late, where there is such a day"),
        sa.Column("resolved_at", _TIME, comment="when it was seen no more; NULL: open"),
        sa.CheckConstraint(
            "kind IN ('kms-key-pending-deletion', 'kms-key-disabled', 'key-material-missing',"
            " 'key-material-expiring', 'kms-key-rotation-off', 'external-id-not-enforced',"
            " 'context-not-enforced', 'excess-rights', 'access-broken', 'never-verified', 'not-looked-at',"
            " 'audit-chain-broken')",
            name=op.f("ck_findings_kind"),
        ),
        sa.CheckConstraint(
            "severity IN ('note', 'warning', 'urgent', 'critical')", name=op.f("ck_findings_severity")
        ),
        sa.CheckConstraint("octet_length(detail::text) <= 4096", name=op.f("ck_findings_detail")),
        sa.CheckConstraint(
            "last_seen_at >= first_seen_at AND resolved_at >= last_seen_at",
            name=op.f("ck_findings_order_of_times"),
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_findings_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_findings")),
    )
    op.create_index(
        "uq_findings_open", "findings", ["tenant_id", "kind"], unique=True, postgresql_where=_OPEN
    )
    op.create_index("ix_findings_tenant_id_first_seen_at", "findings", ["tenant_id", "first_seen_at"])
    op.create_index(
        "ix_findings_open_kind", "findings", ["kind", "severity", "deadline_at"], postgresql_where=_OPEN
    )
    op.create_index(
        "ix_findings_open_severity", "findings", ["severity", "deadline_at"], postgresql_where=_OPEN
    )
    op.create_table(
        "audit_checkpoints",
        sa.Column("tenant_id", sa.UUID(), nullable=False),
        sa.Column(
            "sequence", sa.BigInteger(), nullable=False, comment="number of the last event that was verified"
        ),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column(
            "walked_at", _TIME, nullable=False, comment="when it was last verified from its first event"
        ),
        sa.CheckConstraint("octet_length(hash) = 32", name=op.f("ck_audit_checkpoints_hash")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_audit_checkpoints_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_audit_checkpoints")),
    )
