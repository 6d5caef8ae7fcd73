"""Reseals; the master keys that each process has; records by the master key that sealed them"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)
_RUNNING = sa.text("state = 'running'")


def upgrade() -> None:
    # Of a large table it takes longer than the limit for statements of every day.
    op.execute("SET LOCAL statement_timeout = 0")
    op.add_column(
        "members",
        sa.Column(
            "master_key_ids",
            postgresql.ARRAY(sa.Text()),
            nullable=True,
            comment="of its ring, the sealing one first; NULL: it does not say",
        ),
    )
    op.create_index(
        "ix_key_versions_master_key_id",
        "key_versions",
        ["master_key_id"],
        postgresql_where=sa.text("master_key_id IS NOT NULL"),
    )
    op.create_table(
        "reseals",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column(
            "master_key_id", sa.Text(), nullable=False, comment="the key that is to have sealed all records"
        ),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("requested_at", _TIME, nullable=False),
        sa.Column(
            "total", sa.BigInteger(), nullable=False, comment="records under other keys when it was asked for"
        ),
        sa.Column(
            "kind",
            sa.Text(),
            nullable=True,
            comment="the kind of records that the pass is at; NULL: it is to be counted",
        ),
        sa.Column("cursor", sa.Text(), nullable=True, comment="the last place that this pass has done with"),
        sa.Column(
            "batch", sa.Integer(), nullable=False, comment="grows with every claim: fences off earlier ones"
        ),
        sa.Column("pass_number", sa.Integer(), nullable=False),
        sa.Column("resealed", sa.BigInteger(), nullable=False),
        sa.Column(
            "conflicts",
            sa.BigInteger(),
            nullable=False,
            comment="somebody else wrote or held the record then",
        ),
        sa.Column(
            "unreadable", sa.BigInteger(), nullable=False, comment="records that don't open, in all passes"
        ),
        sa.Column("pass_resealed", sa.BigInteger(), nullable=False),
        sa.Column("pass_conflicts", sa.BigInteger(), nullable=False),
        sa.Column("pass_unreadable", sa.BigInteger(), nullable=False),
        sa.Column(
            "unreadable_records",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="the first of those that don't open",
        ),
        sa.Column(
            "waits_for",
            sa.Text(),
            nullable=True,
            comment="why it goes on although there is nothing to do now",
        ),
        sa.Column("claimed_until", _TIME, nullable=True, comment="a worker has it until then"),
        sa.Column("wake_at", _TIME, nullable=True, comment="when the sweeper publishes it again"),
        sa.Column("failures", sa.Integer(), nullable=False, comment="batches in a row that came to nothing"),
        sa.Column("failure", sa.Text(), nullable=True, comment="why it failed or waits"),
        sa.Column("finished_at", _TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_reseals"),
        sa.CheckConstraint("state IN ('running', 'done', 'failed', 'superseded')", name="state"),
        sa.CheckConstraint("(state = 'running') = (finished_at IS NULL)", name="finished_at"),
        sa.CheckConstraint("(state = 'running') = (wake_at IS NOT NULL)", name="wake_at"),
        sa.CheckConstraint("claimed_until IS NULL OR state = 'running'", name="claimed_until"),
        sa.CheckConstraint("state <> 'failed' OR failure IS NOT NULL", name="failure"),
    )
    op.create_index("uq_reseals_running", "reseals", ["state"], unique=True, postgresql_where=_RUNNING)
    op.create_index("ix_reseals_requested_at", "reseals", ["requested_at"])
