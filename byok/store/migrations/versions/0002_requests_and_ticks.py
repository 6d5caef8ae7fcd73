"""Requests apart from rotations, ticks, and constraints that leave no impossible row

The idempotency key moves from the rotation to the request: a request that joins an open rotation keeps its
own, so that it gets the same answer when it is repeated.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _requests()
    _ticks()
    _rotations()
    _versions()


def _requests() -> None:
    op.create_table(
        "rotation_requests",
        sa.Column("key_id", sa.UUID(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=False),
        sa.Column("rotation_id", sa.UUID(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], name=op.f("fk_rotation_requests_key_id")),
        sa.ForeignKeyConstraint(
            ["rotation_id"],
            ["rotations.id"],
            name=op.f("fk_rotation_requests_rotation_id"),
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.PrimaryKeyConstraint("key_id", "idempotency_key", name=op.f("pk_rotation_requests")),
    )
    op.create_index("ix_rotation_requests_rotation_id", "rotation_requests", ["rotation_id"])
    op.execute(
        "INSERT INTO rotation_requests (key_id, idempotency_key, rotation_id, reason, requested_by, requested_at)"
        " SELECT key_id, idempotency_key, id, reason, requested_by, requested_at FROM rotations"
    )
    # Its deferred checks must be done before the table rotations can be altered.
    op.execute("SET CONSTRAINTS ALL IMMEDIATE")
    op.drop_constraint("uq_rotations_key_id_idempotency_key", "rotations")
    op.drop_column("rotations", "idempotency_key")


def _ticks() -> None:
    op.create_table(
        "ticks",
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "ended_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="NULL while it runs, or if its worker died",
        ),
        sa.PrimaryKeyConstraint("job", name=op.f("pk_ticks")),
    )


def _rotations() -> None:
    op.drop_constraint(op.f("ck_rotations_version_number"), "rotations")
    op.create_check_constraint(
        op.f("ck_rotations_version_number"),
        "rotations",
        "state = 'failed' OR (state = 'requested') = (version_number IS NULL)",
    )
    op.create_check_constraint(
        op.f("ck_rotations_claimed_until"), "rotations", "claimed_until IS NULL OR finished_at IS NULL"
    )
    op.create_check_constraint(op.f("ck_rotations_attempts"), "rotations", "attempts >= 0")
    op.create_index("ix_rotations_key_id_requested_at", "rotations", ["key_id", "requested_at"])
    op.create_index(
        "ix_rotations_failed", "rotations", ["finished_at"], postgresql_where=sa.text("state = 'failed'")
    )


def _versions() -> None:
    for name in ("activated_at", "never_active", "retired_at"):
        op.drop_constraint(op.f(f"ck_key_versions_{name}"), "key_versions")
    op.create_check_constraint(
        op.f("ck_key_versions_activated_at"),
        "key_versions",
        "(state IN ('active', 'retired', 'compromised', 'destroyed')) = (activated_at IS NOT NULL)",
    )
    op.create_check_constraint(
        op.f("ck_key_versions_retired_at"),
        "key_versions",
        "(state IN ('retired', 'compromised', 'destroyed')) = (retired_at IS NOT NULL)",
    )
    op.create_check_constraint(
        op.f("ck_key_versions_order_of_times"),
        "key_versions",
        "validated_at >= generated_at AND retired_at >= activated_at"
        " AND ended_at >= COALESCE(retired_at, validated_at, generated_at)",
    )
    op.add_column(
        "key_versions",
        sa.Column("previous_number", sa.Integer(), sa.Computed("NULLIF(number - 1, 0)", persisted=True)),
    )
    op.add_column(
        "key_versions", sa.Column("previous_settled", sa.Boolean(), sa.Computed("true", persisted=True))
    )
    op.add_column(
        "key_versions", sa.Column("settled", sa.Boolean(), sa.Computed("state <> 'pending'", persisted=True))
    )
    op.create_unique_constraint(
        op.f("uq_key_versions_key_id_number_settled"), "key_versions", ["key_id", "number", "settled"]
    )
    op.create_foreign_key(
        "fk_key_versions_previous",
        "key_versions",
        "key_versions",
        ["key_id", "previous_number", "previous_settled"],
        ["key_id", "number", "settled"],
    )


def downgrade() -> None:
    raise NotImplementedError("0002 moves data; restore a backup instead")
