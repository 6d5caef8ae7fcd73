"""Blind indexes: the versions that those of a key rest on, which must decrypt"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_COLUMNS = {"fk_keys_index_version": "index_version_number"}
_COLUMNS["fk_keys_other_index_version"] = "other_index_version_number"


def upgrade() -> None:
    op.add_column(
        "key_versions",
        sa.Column(
            "decrypts",
            sa.Boolean(),
            sa.Computed("state IN ('active', 'retired', 'compromised')", persisted=True),
            nullable=True,
        ),
    )
    op.create_unique_constraint(
        op.f("uq_key_versions_key_id_number_decrypts"), "key_versions", ["key_id", "number", "decrypts"]
    )
    op.add_column(
        "keys",
        sa.Column(
            "index_version_number",
            sa.Integer(),
            nullable=True,
            comment="new blind indexes are under it; NULL: not searchable",
        ),
    )
    op.add_column(
        "keys",
        sa.Column(
            "other_index_version_number",
            sa.Integer(),
            nullable=True,
            comment="looked for as well, during a rebuild",
        ),
    )
    op.add_column(
        "keys",
        sa.Column("index_decrypts", sa.Boolean(), sa.Computed("true", persisted=True), nullable=True),
    )
    for name, column in _COLUMNS.items():
        op.create_foreign_key(
            op.f(name),
            "keys",
            "key_versions",
            ["id", column, "index_decrypts"],
            ["key_id", "number", "decrypts"],
        )
    for name, condition in (
        ("other_index_version", "other_index_version_number IS NULL OR index_version_number IS NOT NULL"),
        ("index_versions_differ", "other_index_version_number <> index_version_number"),
        (
            "index_above_floor",
            "decryption_floor <= LEAST(index_version_number, other_index_version_number)",
        ),
    ):
        op.create_check_constraint(op.f(f"ck_keys_{name}"), "keys", condition)


def downgrade() -> None:
    raise NotImplementedError("0006 adds pins that indexes depend on; restore a backup instead")
