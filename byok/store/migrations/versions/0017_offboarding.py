"""Tenants that leave: versions destroyed in any state, KMS keys and roles given free"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_UUID, _TIME = postgresql.UUID(), sa.DateTime(timezone=True)
_KINDS = "IN ('revoked', 'locked', 'drill', 'leaving')"


def upgrade() -> None:
    # Of a large table it takes longer than the limit for statements of every day.
    op.execute("SET LOCAL statement_timeout = 0")
    _check("tenants", "suspended_kind", f"suspended_kind {_KINDS}")
    _check("stops", "kind", f"kind {_KINDS}")
    _free_connections()
    _versions()
    op.create_table(
        "offboardings",
        sa.Column("id", _UUID, nullable=False),
        sa.Column("tenant_id", _UUID, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("requested_at", _TIME, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("shred_after", _TIME, nullable=False, comment="no wrapped key is destroyed before"),
        sa.Column("stop_id", _UUID, comment="what ended its use; NULL: it never was active"),
        sa.Column("cancelled_at", _TIME),
        sa.Column("shredding_at", _TIME, comment="from then on it can't be taken back"),
        sa.Column("shredded_at", _TIME, comment="when no wrapped key was left"),
        sa.Column("certificate", postgresql.JSONB(), comment="signed: docs/spec/report.md"),
        sa.Column(
            "access_statement", postgresql.JSONB(), comment="signed: whether the customer has shut us out"
        ),
        sa.CheckConstraint(
            "state IN ('waiting', 'cancelled', 'shredding', 'shredded', 'certified')",
            name=op.f("ck_offboardings_state"),
        ),
        sa.CheckConstraint(
            "(state = 'cancelled') = (cancelled_at IS NOT NULL)", name=op.f("ck_offboardings_cancelled_at")
        ),
        sa.CheckConstraint(
            "(state IN ('shredding', 'shredded', 'certified')) = (shredding_at IS NOT NULL)",
            name=op.f("ck_offboardings_shredding_at"),
        ),
        sa.CheckConstraint(
            "(state IN ('shredded', 'certified')) = (shredded_at IS NOT NULL)",
            name=op.f("ck_offboardings_shredded_at"),
        ),
        sa.CheckConstraint(
            "(state = 'certified') = (certificate IS NOT NULL)", name=op.f("ck_offboardings_certificate")
        ),
        sa.CheckConstraint(
            "access_statement IS NULL OR certificate IS NOT NULL",
            name=op.f("ck_offboardings_access_statement"),
        ),
        sa.CheckConstraint(
            "shred_after >= requested_at AND shredding_at >= shred_after AND shredded_at >= shredding_at",
            name=op.f("ck_offboardings_order_of_times"),
        ),
        sa.ForeignKeyConstraint(["stop_id"], ["stops.id"], name=op.f("fk_offboardings_stop_id")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_offboardings_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_offboardings")),
    )
    op.create_index(
        "uq_offboardings_tenant_id",
        "offboardings",
        ["tenant_id"],
        unique=True,
        postgresql_where=sa.text("state <> 'cancelled'"),
    )
    op.create_index(
        "ix_offboardings_due",
        "offboardings",
        ["shred_after"],
        postgresql_where=sa.text("state IN ('waiting', 'shredding', 'shredded')"),
    )


def _check(table: str, name: str, condition: str) -> None:
    """Replace a check, or add it."""
    op.execute(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS ck_{table}_{name}")
    op.create_check_constraint(op.f(f"ck_{table}_{name}"), table, condition)


def _free_connections() -> None:
    for column in ("kms_key_arn", "role_arn"):
        op.drop_index(f"uq_tenants_{column}", "tenants")
        op.create_index(
            f"uq_tenants_{column}",
            "tenants",
            [column],
            unique=True,
            postgresql_where=sa.text("NOT shares_connection AND state <> 'offboarded'"),
        )


def _versions() -> None:
    _check(
        "key_versions",
        "activated_at",
        "state = 'destroyed' OR (state IN ('active', 'retired', 'compromised')) = (activated_at IS NOT NULL)",
    )
    _check(
        "key_versions",
        "retired_at",
        "state = 'destroyed' OR (state IN ('retired', 'compromised')) = (retired_at IS NOT NULL)",
    )
    _check("key_versions", "active_before_retired", "retired_at IS NULL OR activated_at IS NOT NULL")
    _check(
        "key_versions",
        "order_of_times",
        "validated_at >= generated_at AND retired_at >= activated_at"
        " AND ended_at >= COALESCE(retired_at, activated_at, validated_at, generated_at)",
    )


def downgrade() -> None:
    raise NotImplementedError("0017 destroys wrapped keys of tenants that leave; restore a backup instead")
