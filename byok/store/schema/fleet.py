"""What the fleet's processes tell each other: ticks, members, stops."""

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    cast,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, UUID

from byok.store.schema.base import Timestamp, metadata

ticks = Table(
    "ticks",
    metadata,
    Column("job", Text, primary_key=True),
    Column("began_at", Timestamp, nullable=False),
    Column("ended_at", Timestamp, comment="NULL while it runs, or if its worker died"),
    Column("more", Boolean, nullable=False, server_default=text("false"), comment="due again at once"),
    Column("cursor", Text, comment="where the next run goes on"),
)

# The processes that may hold leases. A row that is not renewed is that of a dead process.
members = Table(
    "members",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("kind", Text, nullable=False, comment="service or worker"),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started_at", Timestamp, nullable=False),
    Column("seen_at", Timestamp, nullable=False),
    Column(
        "usage_flushed_at", Timestamp, comment="the usage ledger has all that it used before; NULL: never"
    ),
    Column(
        "master_key_ids",
        ARRAY(Text),
        comment="of its ring, the sealing one first; NULL: it does not say",
    ),
    Index("ix_members_seen_at", "seen_at"),
)
# How `byok.core.stops.Member` shows itself.
member_name = members.c.kind + " " + cast(members.c.pid, Text) + "@" + members.c.host

stops = Table(
    "stops",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("tenant_id", UUID, ForeignKey("tenants.id"), nullable=False),
    Column("generation", Integer, nullable=False, comment="leases of an earlier one are void"),
    Column("kind", Text, nullable=False),
    Column("noticed_at", Timestamp, nullable=False, comment="when AWS refused, or somebody said stop"),
    Column("committed_at", Timestamp, nullable=False),
    Column("purged_at", Timestamp, comment="when Redis had dropped the tenant's leases; NULL: not yet"),
    UniqueConstraint("tenant_id", "generation"),
    CheckConstraint("kind IN ('revoked', 'locked', 'drill', 'leaving')", name="kind"),
    Index("ix_stops_tenant_id_committed_at", "tenant_id", "committed_at"),
    Index("ix_stops_committed_at", "committed_at"),
    Index("ix_stops_unpurged", "committed_at", postgresql_where=text("purged_at IS NULL")),
)

# What each process that lived when a stop was committed owes to it. Kept as evidence when the process is
# gone: no foreign key to members, and its name is written down.
acknowledgements = Table(
    "acknowledgements",
    metadata,
    Column("stop_id", UUID, ForeignKey("stops.id"), primary_key=True),
    Column("member_id", UUID, primary_key=True),
    Column("member", Text, nullable=False),
    Column("dropped_at", Timestamp, comment="when it had dropped the tenant's leases; NULL: not yet"),
    Column("leases", Integer, comment="how many it held"),
    CheckConstraint("(dropped_at IS NULL) = (leases IS NULL)", name="dropped_at"),
    Index("ix_acknowledgements_owed", "member_id", postgresql_where=text("dropped_at IS NULL")),
)
