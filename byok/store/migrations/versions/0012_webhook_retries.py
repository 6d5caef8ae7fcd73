"""Retries of webhooks by their time"""

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
