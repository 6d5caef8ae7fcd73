"""The tables of tenants and keys."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from byok.core.dispatch import DueKey, DueWork, Place
from byok.core.lifecycle import TENANT_LIFECYCLE
from byok.core.model import (
    Connection,
    IndexVersions,
    Key,
    KmsKeyRotation,
    Suspension,
    SuspensionKind,
    Tenant,
    TenantEvent,
    TenantState,
    VersionState,
)
from byok.errors import LostRace, UnknownKey, UnknownTenant
from byok.store import schema
from byok.store.batches import any_of, parameters, rows_of
from byok.store.rows import from_connection, from_index, from_key, from_suspension, to_key, to_tenant
from byok.store.translate import translated_errors

_tenants, _keys, _rotations = schema.tenants, schema.keys, schema.rotations
_versions = schema.key_versions


class TenantTable:
    """Implements `byok.ports.Tenants`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def add(self, tenant: Tenant) -> None:
        with translated_errors():
            self._connection.execute(
                _tenants.insert().values(
                    id=tenant.id,
                    name=tenant.name,
                    state=tenant.state,
                    generation=tenant.generation,
                    external_id=tenant.external_id,
                    created_at=tenant.created_at,
                )
            )

    def get(self, name: str) -> Tenant:
        return self._one(_tenants.c.name == name, name)

    def get_by_id(self, tenant_id: UUID) -> Tenant:
        return self._one(_tenants.c.id == tenant_id, str(tenant_id))

    def get_all(self, tenant_ids: Collection[UUID]) -> Mapping[UUID, Tenant]:
        rows = self._connection.execute(sa.select(_tenants).where(any_of(_tenants.c.id, tenant_ids)))
        return {row.id: to_tenant(row) for row in rows.all()}

    def lock(self, tenant_id: UUID) -> Tenant:
        query = sa.select(_tenants).where(_tenants.c.id == tenant_id).with_for_update(key_share=True)
        return self._only(query, str(tenant_id))

    def hold_all(self, tenant_ids: Collection[UUID]) -> Mapping[UUID, Tenant]:
        # Many may hold one tenant at a time; who locks it waits for them. In one order, for all that.
        query = sa.select(_tenants).where(any_of(_tenants.c.id, tenant_ids)).order_by(_tenants.c.id)
        rows = self._connection.execute(query.with_for_update(read=True))
        return {row.id: to_tenant(row) for row in rows.all()}

    def _one(self, condition: sa.ColumnElement[bool], shown: str) -> Tenant:
        return self._only(sa.select(_tenants).where(condition), shown)

    def _only(self, query: sa.Select[tuple[object, ...]], shown: str) -> Tenant:
        row = self._connection.execute(query).one_or_none()
        if row is None:
            raise UnknownTenant(f"there is no tenant {shown!r}", remedy="byok tenant list shows them")
        return to_tenant(row)

    def list(self) -> Sequence[Tenant]:
        rows = self._connection.execute(sa.select(_tenants).order_by(_tenants.c.name))
        return [to_tenant(row) for row in rows]

    def list_suspended(self, limit: int) -> Sequence[Tenant]:
        rows = self._connection.execute(
            sa.select(_tenants)
            .where(
                schema.NOT_ACTIVE,
                _tenants.c.state == TenantState.SUSPENDED,
                _tenants.c.suspended_kind != SuspensionKind.LEAVING,
            )
            .order_by(_tenants.c.suspended_at.desc())
            .limit(limit)
        )
        return [to_tenant(row) for row in rows]

    def set_connection(self, tenant: Tenant, connection: Connection, *, shared: bool) -> None:
        with translated_errors():
            changed = self._connection.execute(
                _tenants.update()
                # Who has been verified meanwhile keeps what was checked, whatever the caller read before.
                .where(_tenants.c.id == tenant.id, _tenants.c.state == TenantState.PENDING)
                .values(**from_connection(connection), shares_connection=shared)
            )
        if changed.rowcount == 0:
            raise LostRace(
                f"tenant {tenant.name!r} is not pending any more: it keeps its KMS key and role",
                remedy=f"byok tenant show {tenant.name} shows them",
            )

    def move(self, tenant: Tenant, connection: Connection, at: datetime, *, shared: bool) -> Tenant:
        values: dict[str, object] = {
            **from_connection(connection),
            "shares_connection": shared,
            "verified_at": at,
            # Of the old KMS key: the new one was never seen to rotate by itself, or to be of this material.
            "kms_key_rotation_on_at": None,
            "kms_key_material_id": None,
        }
        values |= dict.fromkeys(("next_probe_at", "next_sync_at", "next_watch_at"), at)
        with translated_errors():
            row = self._swap(tenant, [_tenants.c.state == TenantState.ACTIVE], values)
        if row is None:
            raise LostRace(f"tenant {tenant.name!r} is not what it was any more")
        return to_tenant(row)

    def set_kms_key_rotation(self, tenant: Tenant, rotation: KmsKeyRotation, at: datetime) -> None:
        self._connection.execute(
            _tenants.update()
            .where(_tenants.c.id == tenant.id)
            .values(
                rotation_tag_days=rotation.tag_days,
                kms_key_rotation_days=rotation.period_days,
                kms_key_material_id=rotation.material_id,
                synced_at=at,
                **({} if rotation.period_days is None else {"kms_key_rotation_on_at": at}),
            )
        )

    def set_outage_wait(self, tenant: Tenant, wait: timedelta) -> None:
        self._update(tenant.id, outage_wait_seconds=int(wait.total_seconds()))

    def set_webhook_url(self, tenant: Tenant, url: str | None) -> None:
        self._update(tenant.id, webhook_url=url)

    def lock_due_probes(self, now: datetime, limit: int) -> Sequence[tuple[Tenant, timedelta | None]]:
        shortest = (
            sa.select(sa.func.min(_keys.c.lease_ttl_seconds))
            .where(_keys.c.tenant_id == _tenants.c.id, _keys.c.lease_ttl_seconds > 0)
            .scalar_subquery()
        )
        query = (
            sa.select(_tenants, shortest.label("shortest_ttl_seconds"))
            .where(schema.PROBED, _tenants.c.next_probe_at <= now)
            .order_by(_tenants.c.next_probe_at)
            .limit(limit)
            .with_for_update(of=_tenants, skip_locked=True, key_share=True)
        )
        return [
            (
                to_tenant(row),
                None if row.shortest_ttl_seconds is None else timedelta(seconds=row.shortest_ttl_seconds),
            )
            for row in self._connection.execute(query)
        ]

    def set_next_probes(self, times: Mapping[UUID, datetime]) -> None:
        self._connection.execute(
            _tenants.update()
            .where(_tenants.c.id == sa.bindparam("tenant_id"))
            .values(next_probe_at=sa.bindparam("at")),
            [{"tenant_id": tenant_id, "at": at} for tenant_id, at in times.items()],
        )

    def probe_by(self, tenant_id: UUID, at: datetime) -> None:
        self._update(tenant_id, next_probe_at=sa.func.least(_tenants.c.next_probe_at, at))

    def set_looked_at(self, tenant_id: UUID, at: datetime) -> None:
        self._update(tenant_id, looked_at=at)

    def least_recently_looked_at(self) -> datetime | None:
        query = sa.select(sa.func.min(_tenants.c.looked_at)).where(schema.PROBED)
        at: datetime | None = self._connection.execute(query).scalar_one()
        return at

    def _update(self, tenant_id: UUID, **values: object) -> None:
        self._connection.execute(_tenants.update().where(_tenants.c.id == tenant_id).values(**values))

    def replace_suspension(self, tenant: Tenant, suspension: Suspension) -> Tenant:
        row = self._swap(tenant, [_tenants.c.state == TenantState.SUSPENDED], from_suspension(suspension))
        if row is None:
            raise LostRace(f"tenant {tenant.name!r} is not suspended as it was any more")
        return to_tenant(row)

    def _swap(
        self, tenant: Tenant, unchanged: Sequence[sa.ColumnElement[bool]], values: Mapping[str, object]
    ) -> sa.Row[Any] | None:
        """Compare and swap into the next generation; None if the tenant is not what it was any more."""
        return self._connection.execute(
            _tenants.update()
            .where(_tenants.c.id == tenant.id, _tenants.c.generation == tenant.generation, *unchanged)
            .values(generation=_tenants.c.generation + 1, **values)
            .returning(_tenants)
        ).one_or_none()

    def transition(
        self, tenant: Tenant, event: TenantEvent, at: datetime, suspension: Suspension | None = None
    ) -> Tenant:
        to = TENANT_LIFECYCLE.after(tenant.state, event)
        values: dict[str, object] = {"state": to, **from_suspension(suspension)}
        if to is TenantState.ACTIVE:
            values["verified_at"] = at
            values["next_probe_at"] = at  # soon, and from then on periodically
        unchanged = [_tenants.c.state == tenant.state]
        if event is TenantEvent.VERIFY:
            values["looked_at"] = at
            checked = from_connection(tenant.connection)
            unchanged += [_tenants.c[column].is_not_distinct_from(arn) for column, arn in checked.items()]
        row = self._swap(tenant, unchanged, values)
        if row is None:
            raise _lost(tenant, event)
        return to_tenant(row)


def _lost(tenant: Tenant, event: TenantEvent) -> LostRace:
    if event is TenantEvent.VERIFY:
        return LostRace(
            f"tenant {tenant.name!r} is not what was checked any more: its state, KMS key or role changed",
            remedy=f"check it as it is now: byok tenant verify {tenant.name}",
        )
    return LostRace(f"tenant {tenant.name!r} is not {tenant.state} any more")


class KeyTable:
    """Implements `byok.ports.Keys`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def add(self, key: Key) -> None:
        with translated_errors():
            self._connection.execute(_keys.insert().values(from_key(key)))

    def get(self, tenant: Tenant, name: str) -> Key:
        condition = sa.and_(_keys.c.tenant_id == tenant.id, _keys.c.name == name)
        return self._one(sa.select(_keys).where(condition), f"tenant {tenant.name!r} has no key {name!r}")

    def get_by_id(self, key_id: UUID) -> Key:
        return self._one(sa.select(_keys).where(_keys.c.id == key_id), f"there is no key {key_id}")

    def longest_lease_ttl(self) -> timedelta:
        longest = sa.select(sa.func.coalesce(sa.func.max(_keys.c.lease_ttl_seconds), 0))
        return timedelta(seconds=self._connection.execute(longest).scalar_one())

    def lock(self, key_id: UUID) -> Key:
        query = sa.select(_keys).where(_keys.c.id == key_id).with_for_update(key_share=True)
        return self._one(query, f"there is no key {key_id}")

    def get_all(self, key_ids: Collection[UUID]) -> Mapping[UUID, Key]:
        return self._all(sa.select(_keys).where(any_of(_keys.c.id, key_ids)))

    def lock_all(self, key_ids: Collection[UUID]) -> Mapping[UUID, Key]:
        # In one order, or two batches could wait for each other.
        query = sa.select(_keys).where(any_of(_keys.c.id, key_ids)).order_by(_keys.c.id)
        return self._all(query.with_for_update(key_share=True))

    def _all(self, query: sa.Select[tuple[object, ...]]) -> Mapping[UUID, Key]:
        keys = [to_key(row) for row in self._connection.execute(query).all()]
        return {key.id: key for key in keys}

    def set_next_rotations(self, times: Mapping[UUID, datetime]) -> None:
        new = rows_of(_keys, "id", "next_rotation_at")
        self._connection.execute(
            _keys.update().where(_keys.c.id == new.c.id).values(next_rotation_at=new.c.next_rotation_at),
            parameters([{"id": key_id, "next_rotation_at": at} for key_id, at in times.items()]),
        )

    def _one(self, query: sa.Select[tuple[object, ...]], message: str) -> Key:
        row = self._connection.execute(query).one_or_none()
        if row is None:
            raise UnknownKey(message, remedy="byok key list TENANT shows them")
        return to_key(row)

    def list(self, tenant_id: UUID) -> Sequence[Key]:
        query = sa.select(_keys).where(_keys.c.tenant_id == tenant_id).order_by(_keys.c.name)
        return [to_key(row) for row in self._connection.execute(query)]

    def update(self, key: Key) -> None:
        self._connection.execute(_keys.update().where(_keys.c.id == key.id).values(from_key(key)))

    def set_index(self, key: Key, index: IndexVersions) -> None:
        unchanged = [_keys.c[column].is_not_distinct_from(n) for column, n in from_index(key.index).items()]
        query = _keys.update().where(_keys.c.id == key.id, *unchanged).values(from_index(index))
        with translated_errors():
            changed = self._connection.execute(query).rowcount
        if changed != 1:
            raise LostRace(f"the blind index of key {key.name!r} was changed meanwhile")

    def set_decryption_floor(self, key: Key, floor: int, at: datetime) -> Key:
        changed = (
            _keys.update()
            .where(_keys.c.id == key.id)
            .values(decryption_floor=floor, decryption_floor_set_at=at)
            .returning(_keys)
        )
        return to_key(self._connection.execute(changed).one())

    def list_due(self, now: datetime, after: Place | None, limit: int) -> Sequence[DueKey]:
        place = (_keys.c.next_rotation_at, _keys.c.id)
        page = sa.select(*place, _keys.c.tenant_id).where(_keys.c.next_rotation_at <= now)
        if after is not None:
            page = page.where(sa.tuple_(*place) > (after.next_rotation_at, after.key_id))
        due = page.order_by(*place).limit(limit).subquery()
        is_free = sa.and_(_tenant(_tenants.c.state, due) == TenantState.ACTIVE, _open_rotation(due).is_(None))
        query = sa.select(due, is_free).order_by(due.c.next_rotation_at, due.c.id)
        return [
            DueKey(Place(at, key_id), tenant_id, free)
            for at, key_id, tenant_id, free in self._connection.execute(query).all()
        ]

    def lock_due(self, key_ids: Sequence[UUID], now: datetime) -> Sequence[DueWork]:
        has_version = sa.exists().where(
            _versions.c.key_id == _keys.c.id, _versions.c.state == VersionState.ACTIVE
        )
        query = (
            sa.select(
                _keys.c.id, _keys.c.tenant_id, _tenant(_tenants.c.name, _keys), _keys.c.name, has_version
            )
            .where(
                any_of(_keys.c.id, key_ids),
                _keys.c.next_rotation_at <= now,
                _tenant(_tenants.c.state, _keys) == TenantState.ACTIVE,
                _open_rotation(_keys).is_(None),
            )
            .with_for_update(of=_keys, skip_locked=True, key_share=True)
        )
        return [DueWork(*row) for row in self._connection.execute(query).all()]


# Each is looked up by an index, row by row: a join could be made by reading all tenants or open rotations.


def _tenant(column: sa.ColumnElement[str], key: sa.FromClause) -> sa.ScalarSelect[str]:
    return sa.select(column).where(_tenants.c.id == key.c.tenant_id).correlate(key).scalar_subquery()


def _open_rotation(key: sa.FromClause) -> sa.ScalarSelect[UUID]:
    """The open rotation of a key. The limit keeps PostgreSQL from reading them all into a hash."""
    found = sa.select(_rotations.c.id).where(_rotations.c.key_id == key.c.id, schema.OPEN_ROTATION)
    return found.limit(1).correlate(key).scalar_subquery()
