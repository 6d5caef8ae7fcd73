"""How large tables and indexes are, and what a key and a rotation take."""

from dataclasses import dataclass

import sqlalchemy as sa

_RELATIONS = """
    SELECT c.relname, greatest(c.reltuples, 0)::bigint, pg_table_size(c.oid),
        (SELECT coalesce(json_object_agg(i.indexrelid::regclass::text, pg_relation_size(i.indexrelid)), '{}')
         FROM pg_index AS i WHERE i.indrelid = c.oid)
    FROM pg_class AS c
    WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND c.reltuples > 0
        AND c.relname <> 'alembic_version'
    ORDER BY pg_total_relation_size(c.oid) DESC
"""
# Rows that one rotation adds: itself, its request, its version, and four events of the audit log.
_ROTATION = {"rotations": 1, "rotation_requests": 1, "key_versions": 1, "audit_events": 4}


@dataclass(frozen=True, slots=True)
class Relation:
    """A table: rows as analyze counted them, bytes, and bytes of each index."""

    name: str
    rows: int
    table_bytes: int
    index_bytes: dict[str, int]

    @property
    def total_bytes(self) -> int:
        """With all its indexes."""
        return self.table_bytes + sum(self.index_bytes.values())

    @property
    def bytes_per_row(self) -> float:
        """With its share of the indexes."""
        return self.total_bytes / max(self.rows, 1)


def relations(engine: sa.Engine) -> list[Relation]:
    """All tables that have rows, the largest first."""
    with engine.connect() as connection:
        return [Relation(*row) for row in connection.execute(sa.text(_RELATIONS))]


def bytes_per_rotation(found: list[Relation]) -> float:
    """What is left of a rotation for ever, indexes included."""
    per_row = {relation.name: relation.bytes_per_row for relation in found}
    return sum(per_row.get(name, 0.0) * rows for name, rows in _ROTATION.items())
