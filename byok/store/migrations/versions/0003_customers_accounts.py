"""Shared connections, rotation periods that follow the customer's KMS, deferred attempts"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _tenants()
    _keys()
    op.add_column(
        "rotations",
        sa.Column(
            "deferrals",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="attempts that never asked KMS: they don't count",
        ),
    )
    op.drop_constraint(op.f("ck_rotations_attempts"), "rotations")
    op.create_check_constraint(
        op.f("ck_rotations_attempts"), "rotations", "attempts >= deferrals AND deferrals >= 0"
    )


def _tenants() -> None:
    op.add_column(
        "tenants",
        sa.Column(
            "shares_connection",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="somebody said that another tenant may have this KMS key or role, too",
        ),
    )
    for column, kind, comment in (
        ("rotation_tag_days", sa.Integer(), "the customer's wish: tag byok:rotation-days"),
        ("kms_key_rotation_days", sa.Integer(), "AWS's own rotation of the KMS key, if enabled"),
        ("kms_key_material_id", sa.Text(), "the KMS key's material in use, where KMS tells it"),
        ("synced_at", sa.DateTime(timezone=True), "when the three above were read"),
    ):
        op.add_column("tenants", sa.Column(column, kind, nullable=True, comment=comment))
    op.create_check_constraint(
        op.f("ck_tenants_rotation_tag_days"), "tenants", "rotation_tag_days BETWEEN 1 AND 3650"
    )
    for column in ("kms_key_arn", "role_arn"):
        op.drop_constraint(op.f(f"uq_tenants_{column}"), "tenants")
        op.create_index(
            f"uq_tenants_{column}",
            "tenants",
            [column],
            unique=True,
            postgresql_where=sa.text("NOT shares_connection"),
        )


def _keys() -> None:
    op.alter_column("keys", "rotation_period_seconds", comment="the period in force")
    op.add_column(
        "keys",
        sa.Column(
            "rotation_setting_seconds",
            sa.BigInteger(),
            nullable=True,
            comment="what the vendor set; NULL: nothing",
        ),
    )
    op.add_column(
        "keys",
        sa.Column(
            "rotation_source",
            sa.Text(),
            server_default="setting",
            nullable=False,
            comment="who decided the period in force",
        ),
    )
    op.execute("UPDATE keys SET rotation_setting_seconds = rotation_period_seconds")
    op.alter_column("keys", "rotation_source", server_default=None)
    op.create_check_constraint(
        op.f("ck_keys_rotation_setting"), "keys", "rotation_setting_seconds BETWEEN 3600 AND 315360000"
    )
    op.create_check_constraint(
        op.f("ck_keys_rotation_source"), "keys", "rotation_source IN ('tag', 'kms-key', 'setting', 'default')"
    )


def downgrade() -> None:
    raise NotImplementedError("0003 loosens what is unique; restore a backup instead")
