"""Signed checkpoints of audit chains"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "signed_checkpoints",
        sa.Column("tenant_id", sa.UUID(), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False, comment="number of the event that was signed"),
        sa.Column("hash", sa.LargeBinary(), nullable=False, comment="that event's"),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("master_key_id", sa.Text(), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False, comment="Ed25519"),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("number >= 1 AND sequence >= 1", name=op.f("ck_signed_checkpoints_numbers")),
        sa.CheckConstraint(
            "octet_length(hash) = 32 AND octet_length(public_key) = 32 AND octet_length(signature) = 64",
            name=op.f("ck_signed_checkpoints_lengths"),
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_signed_checkpoints_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "number", name=op.f("pk_signed_checkpoints")),
    )
