"""The log of every request to KMS and STS"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "kms_requests",
        sa.Column(
            "id", postgresql.UUID(), nullable=False, comment="in the request's User-Agent, as byok-id/…"
        ),
        sa.Column("tenant_id", postgresql.UUID(), nullable=False),
        sa.Column("operation", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False, comment="the ARN that it was about, or a region"),
        sa.Column("role_arn", sa.Text(), nullable=True, comment="in whose session; NULL: our own identity"),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "ended_at", sa.DateTime(timezone=True), nullable=True, comment="NULL: its process died before"
        ),
        sa.Column(
            "request_id",
            sa.Text(),
            server_default=sa.text("''"),
            nullable=False,
            comment="AWS's; empty: no reply",
        ),
        sa.Column(
            "code", sa.Text(), server_default=sa.text("''"), nullable=False, comment="AWS's error code"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_kms_requests")),
    )
    op.create_index("ix_kms_requests_tenant_id_began_at_id", "kms_requests", ["tenant_id", "began_at", "id"])
    op.create_index("ix_kms_requests_began_at", "kms_requests", ["began_at"])
