"""Stops that every process acknowledges, probes with a time of their own, waiting in outages"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_UUID, _TIME = postgresql.UUID(), sa.DateTime(timezone=True)
_KINDS = "IN ('revoked', 'locked', 'drill')"


def upgrade() -> None:
    _tenants()
    op.create_table(
        "members",
        sa.Column("id", _UUID, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False, comment="service or worker"),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("seen_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_members")),
    )
    op.create_index("ix_members_seen_at", "members", ["seen_at"])
    op.create_table(
        "stops",
        sa.Column("id", _UUID, nullable=False),
        sa.Column("tenant_id", _UUID, nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False, comment="leases of an earlier one are void"),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("noticed_at", _TIME, nullable=False, comment="when AWS refused, or somebody said stop"),
        sa.Column("committed_at", _TIME, nullable=False),
        sa.Column(
            "purged_at",
            _TIME,
            nullable=True,
            comment="when Redis had dropped the tenant's leases; NULL: not yet",
        ),
        sa.CheckConstraint(f"kind {_KINDS}", name=op.f("ck_stops_kind")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_stops_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stops")),
        sa.UniqueConstraint("tenant_id", "generation", name=op.f("uq_stops_tenant_id_generation")),
    )
    op.create_index("ix_stops_tenant_id_committed_at", "stops", ["tenant_id", "committed_at"])
    op.create_index("ix_stops_committed_at", "stops", ["committed_at"])
    op.create_index(
        "ix_stops_unpurged", "stops", ["committed_at"], postgresql_where=sa.text("purged_at IS NULL")
    )
    op.create_table(
        "acknowledgements",
        sa.Column("stop_id", _UUID, nullable=False),
        sa.Column("member_id", _UUID, nullable=False),
        sa.Column("member", sa.Text(), nullable=False),
        sa.Column(
            "dropped_at",
            _TIME,
            nullable=True,
            comment="when it had dropped the tenant's leases; NULL: not yet",
        ),
        sa.Column("leases", sa.Integer(), nullable=True, comment="how many it held"),
        sa.CheckConstraint(
            "(dropped_at IS NULL) = (leases IS NULL)", name=op.f("ck_acknowledgements_dropped_at")
        ),
        sa.ForeignKeyConstraint(["stop_id"], ["stops.id"], name=op.f("fk_acknowledgements_stop_id")),
        sa.PrimaryKeyConstraint("stop_id", "member_id", name=op.f("pk_acknowledgements")),
    )
    op.create_index(
        "ix_acknowledgements_owed",
        "acknowledgements",
        ["member_id"],
        postgresql_where=sa.text("dropped_at IS NULL"),
    )


def _tenants() -> None:
    op.add_column(
        "tenants",
        sa.Column(
            "suspended_kind",
            sa.Text(),
            nullable=True,
            comment="who stopped it: that decides how it comes back",
        ),
    )
    op.execute("UPDATE tenants SET suspended_kind = 'revoked' WHERE suspended_at IS NOT NULL")
    op.add_column(
        "tenants",
        sa.Column(
            "next_probe_at",
            _TIME,
            server_default=sa.text("now()"),
            nullable=False,
            comment="when its access is to be proven next",
        ),
    )
    op.add_column(
        "tenants",
        sa.Column(
            "outage_wait_seconds",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="how long a call waits for a KMS that can't be reached, once no lease is left",
        ),
    )
    for name, condition in (
        ("suspended_with_kind", "(suspended_at IS NULL) = (suspended_kind IS NULL)"),
        ("suspended_kind", f"suspended_kind {_KINDS}"),
        ("outage_wait", "outage_wait_seconds BETWEEN 0 AND 300"),
    ):
        op.create_check_constraint(op.f(f"ck_tenants_{name}"), "tenants", condition)
    op.create_index(
        "ix_tenants_next_probe_at",
        "tenants",
        ["next_probe_at"],
        postgresql_where=sa.text("state IN ('active', 'suspended')"),
    )


def downgrade() -> None:
    raise NotImplementedError("0004 adds evidence that would be lost; restore a backup instead")
