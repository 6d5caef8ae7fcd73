"""Messages to customers' endpoints"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column(
        "tenants",
        sa.Column("webhook_url", sa.Text(), comment="where the customer is told of findings; NULL: nowhere"),
    )
    op.create_table(
        "webhook_messages",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("tenant_id", sa.UUID(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False, comment="canonical JSON; nothing secret"),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("due_at", _TIME, comment="when it is posted next; NULL: never again"),
        sa.Column("delivered_at", _TIME),
        sa.Column("given_up_at", _TIME),
        sa.Column("failure", sa.Text(), comment="why the latest try failed"),
        sa.CheckConstraint("octet_length(body) <= 8192", name=op.f("ck_webhook_messages_body")),
        sa.CheckConstraint("attempts >= 0", name=op.f("ck_webhook_messages_attempts")),
        sa.CheckConstraint(
            "num_nonnulls(due_at, delivered_at, given_up_at) = 1", name=op.f("ck_webhook_messages_one_end")
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_webhook_messages_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_messages")),
    )
    op.create_index(
        "ix_webhook_messages_due",
        "webhook_messages",
        ["attempts", "due_at"],
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_index(
        "ix_webhook_messages_tenant_id_created_at", "webhook_messages", ["tenant_id", "created_at"]
    )
