"""The tables of the fleet: which processes live, and what each owes to a stop."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from byok.core.bounds import MAX_LEASE_TTL
from byok.core.model import SuspensionKind
from byok.core.stops import Acknowledgement, Member, Stop, StopReport
from byok.errors import UnknownStop
from byok.store import schema

_members, _stops, _owed = schema.members, schema.stops, schema.acknowledgements
_keys = schema.keys
_reports = _stops.outerjoin(_owed)


class MemberTable:
    """Implements `byok.ports.Members`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def enrol(self, member: Member, now: datetime) -> None:
        self._connection.execute(
            insert(_members)
            .values(
                id=member.id,
                kind=member.kind,
                host=member.host,
                pid=member.pid,
                master_key_ids=None if member.master_key_ids is None else list(member.master_key_ids),
                started_at=now,
                seen_at=now,
            )
            .on_conflict_do_update(index_elements=[_members.c.id], set_={"seen_at": now})
        )

    def leave(self, member_id: UUID) -> None:
        self._connection.execute(_members.delete().where(_members.c.id == member_id))

    def remove_unseen(self, since: datetime) -> int:
        return self._connection.execute(_members.delete().where(_members.c.seen_at < since)).rowcount

    def count(self, seen_since: datetime) -> int:
        counted = sa.select(sa.func.count()).where(_members.c.seen_at >= seen_since)
        return self._connection.execute(counted).scalar_one()

    def list_seen(self, since: datetime) -> Sequence[Member]:
        rows = self._connection.execute(
            sa.select(_members)
            .where(_members.c.seen_at >= since)
            .order_by(_members.c.kind, _members.c.host, _members.c.pid)
        )
        return [
            Member(
                row.id,
                row.kind,
                row.host,
                row.pid,
                None if row.master_key_ids is None else tuple(row.master_key_ids),
            )
            for row in rows
        ]

    def count_by_kind(self, seen_since: datetime) -> Mapping[str, int]:
        counted = (
            sa.select(_members.c.kind, sa.func.count())
            .where(_members.c.seen_at >= seen_since)
            .group_by(_members.c.kind)
            .order_by(_members.c.kind)
        )
        return dict(self._connection.execute(counted).all())


class StopTable:
    """Implements `byok.ports.Stops`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def add(self, stop: Stop, alive_since: datetime) -> int:
        self._connection.execute(
            _stops.insert().values(
                id=stop.id,
                tenant_id=stop.tenant_id,
                generation=stop.generation,
                kind=stop.kind,
                noticed_at=stop.noticed_at,
                committed_at=stop.committed_at,
            )
        )
        living = sa.select(sa.literal(stop.id), _members.c.id, schema.member_name).where(
            _members.c.seen_at >= alive_since
        )
        added = self._connection.execute(
            _owed.insert()
            .from_select(["stop_id", "member_id", "member"], living)
            .returning(_owed.c.member_id)
        )
        return len(added.all())

    def list_owed(self, member_id: UUID) -> Sequence[Stop]:
        rows = self._connection.execute(
            sa.select(_stops)
            .join(_owed)
            .where(_owed.c.member_id == member_id, _owed.c.dropped_at.is_(None))
            .order_by(_stops.c.committed_at)
        )
        return [_to_stop(row) for row in rows]

    def acknowledge(self, stop_id: UUID, member_id: UUID, dropped_at: datetime, leases: int) -> None:
        self._connection.execute(
            _owed.update()
            .where(_owed.c.stop_id == stop_id, _owed.c.member_id == member_id, _owed.c.dropped_at.is_(None))
            .values(dropped_at=dropped_at, leases=leases)
        )

    def set_purged(self, stop_id: UUID, at: datetime) -> None:
        self._connection.execute(_stops.update().where(_stops.c.id == stop_id).values(purged_at=at))

    def list_unpurged(self, since: datetime, limit: int) -> Sequence[Stop]:
        rows = self._connection.execute(
            sa.select(_stops)
            .where(_stops.c.purged_at.is_(None), _stops.c.committed_at >= since)
            .order_by(_stops.c.committed_at)
            .limit(limit)
        )
        return [_to_stop(row) for row in rows]

    def report(self, stop_id: UUID) -> StopReport:
        reports = self._read(_stops.c.id == stop_id)
        if not reports:
            raise UnknownStop(f"there is no stop {stop_id}")
        return reports[0]

    def list_latest(self, tenant_id: UUID, limit: int) -> Sequence[StopReport]:
        latest = (
            sa.select(_stops.c.id)
            .where(_stops.c.tenant_id == tenant_id)
            .order_by(_stops.c.committed_at.desc())
            .limit(limit)
        )
        return self._read(_stops.c.id.in_(latest))

    def _read(self, condition: sa.ColumnElement[bool]) -> list[StopReport]:
        rows = self._connection.execute(
            sa.select(_stops, _owed.c.member, _owed.c.dropped_at, _owed.c.leases)
            .select_from(_reports)
            .where(condition)
            .order_by(_stops.c.committed_at.desc(), _stops.c.id, _owed.c.dropped_at, _owed.c.member)
        )
        return [_to_report(list(group)) for _, group in groupby(rows, key=lambda row: row.id)]

    def worst_latencies(self, since: datetime, now: datetime, limit: int) -> Sequence[tuple[str, timedelta]]:
        longest_ttl = (
            sa.select(
                sa.func.least(
                    sa.func.coalesce(sa.func.max(_keys.c.lease_ttl_seconds), 0), MAX_LEASE_TTL.total_seconds()
                )
                * timedelta(seconds=1)
            )
            .where(_keys.c.tenant_id == _stops.c.tenant_id)
            .scalar_subquery()
        )
        # Who has not answered may hold leases until they end.
        silent_until = sa.func.least(sa.literal(now, schema.Timestamp), _stops.c.committed_at + longest_ttl)
        dropped_at = sa.case(
            (_owed.c.member_id.is_not(None), sa.func.coalesce(_owed.c.dropped_at, silent_until))
        )
        last = sa.func.greatest(sa.func.max(dropped_at), _stops.c.committed_at)
        each = (
            sa.select(_stops.c.tenant_id, (last - _stops.c.noticed_at).label("latency"))
            .select_from(_reports)
            .where(_stops.c.committed_at >= since)
            .group_by(_stops.c.id)
            .subquery()
        )
        worst = sa.func.max(each.c.latency)
        rows = self._connection.execute(
            sa.select(schema.tenants.c.name, worst)
            .join_from(each, schema.tenants, each.c.tenant_id == schema.tenants.c.id)
            .group_by(schema.tenants.c.name)
            .order_by(worst.desc())
            .limit(limit)
        )
        return [(name, latency) for name, latency in rows]


def _to_stop(row: sa.Row[Any]) -> Stop:
    return Stop(
        row.id, row.tenant_id, row.generation, SuspensionKind(row.kind), row.noticed_at, row.committed_at
    )


def _to_report(rows: Sequence[sa.Row[Any]]) -> StopReport:
    owed = [Acknowledgement(row.member, row.dropped_at, row.leases) for row in rows if row.member is not None]
    return StopReport(_to_stop(rows[0]), owed)
