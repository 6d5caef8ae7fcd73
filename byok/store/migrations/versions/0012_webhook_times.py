"""Webhook messages by the times of retries and of their ends"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_webhook_messages_retries",
        "webhook_messages",
        ["due_at"],
        postgresql_where=sa.text("due_at IS NOT NULL AND attempts > 0"),
    )
    for column in ("delivered_at", "given_up_at"):
        op.create_index(
            f"ix_webhook_messages_{column}",
            "webhook_messages",
            [column],
            postgresql_where=sa.text(f"{column} IS NOT NULL"),
        )
