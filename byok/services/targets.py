"""Targets: which tables of the application hold tokens of a key. Checked against the rows when registered."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from byok.core.reencryption import TableShape, Target, TargetColumn, UnreadableRow
from byok.errors import TargetMismatch
from byok.ports import Clock, Random, RowStore, Store
from byok.services.fields import Cipher
from byok.services.leases import LeaseDesk
from byok.services.suspension import require_active

_SAMPLE_ROWS = 100
_NAMED_ROWS = 10


@dataclass(frozen=True, slots=True)
class Registration:
    """A new target, how many values of it were opened for a try, and which of them did not open."""

    target: Target
    sampled: int
    unreadable: Sequence[UnreadableRow]


class TargetRegistry:
    """Registers targets."""

    def __init__(self, store: Store, rows: RowStore, desk: LeaseDesk, clock: Clock, random: Random) -> None:
        self._store = store
        self._rows = rows
        self._desk = desk
        self._clock = clock
        self._random = random

    def register(
        self,
        tenant_name: str,
        key_name: str,
        *,
        table: str,
        primary_key: str,
        columns: Sequence[TargetColumn],
        actor: str,
        tenant: tuple[str, str] | None = None,
        allow_unreadable: bool = False,
    ) -> Registration:
        """Register a table, after a look at its columns and a try to open its first hundred rows.

        ``tenant``: the column that names the tenant of a row, and what it holds for this one. With
        ``allow_unreadable`` values that don't open are reported and hinder nothing, unless none opens.

        Raises:
            TargetMismatch: the table is not like that, or its values don't open under these contexts: the
                message names rows, never values.
            DuplicateTarget, UnknownTenant, UnknownKey, TenantNotActive, ApplicationUnavailable,
            ConfigurationError; and as `Cipher.decrypt`.
        """
        with self._store.transaction() as tx:
            owner = tx.tenants.get(tenant_name)
            key = tx.keys.get(owner, key_name)
        require_active(owner)
        shape = self._rows.inspect(table, primary_key, columns, tenant)
        sampled, unreadable = self._try_to_open(shape, Cipher(self._desk, owner.name, key.name))
        if unreadable and (not allow_unreadable or len(unreadable) == sampled):
            raise _does_not_open(shape, sampled, unreadable)
        now = self._clock.now()
        target = Target(self._random.uuid(), key.id, shape, actor, now)
        with self._store.transaction() as tx:
            tx.targets.add(target)
            tx.audit.append(
                owner.id, now, actor, "target.registered",
                key=key.name, target=str(target.id), table=shape.name,
                columns=", ".join(f"{one.name}={one.template}" for one in shape.columns),
            )  # fmt: skip
        return Registration(target, sampled, unreadable)

    def _try_to_open(self, shape: TableShape, cipher: Cipher) -> tuple[int, list[UnreadableRow]]:
        sample = [
            (UnreadableRow(column.name, row.id), token, column.context(row.id))
            for row in self._rows.page(shape, None, _SAMPLE_ROWS)
            for column, token in zip(shape.columns, row.tokens, strict=True)
            if token is not None
        ]
        opened = cipher.rewrap_many([(token, context) for _, token, context in sample])
        return len(sample), [
            place for (place, _, _), fresh in zip(sample, opened, strict=True) if fresh is None
        ]

    def list(self, tenant_name: str, key_name: str) -> Sequence[Target]:
        """The targets of a key, by table.

        Raises:
            UnknownTenant, UnknownKey.
        """
        with self._store.transaction() as tx:
            return tx.targets.list(tx.keys.get(tx.tenants.get(tenant_name), key_name).id)

    def unregister(self, target_id: UUID, *, actor: str) -> Target:
        """Forget a target. Its campaigns stay as evidence.

        Raises:
            UnknownTarget, CampaignOpen.
        """
        now = self._clock.now()
        with self._store.transaction() as tx:
            target = tx.targets.get(target_id)
            key = tx.keys.get_by_id(target.key_id)
            tx.targets.unregister(target, now)
            tx.audit.append(
                key.tenant_id, now, actor, "target.unregistered",
                key=key.name, target=str(target.id), table=target.shape.name,
            )  # fmt: skip
        return target


def _does_not_open(shape: TableShape, sampled: int, unreadable: Sequence[UnreadableRow]) -> TargetMismatch:
    rows = ", ".join(f"{one.column} of {one.row_id}" for one in unreadable[:_NAMED_ROWS])
    more = f" and {len(unreadable) - _NAMED_ROWS} more" if len(unreadable) > _NAMED_ROWS else ""
    return TargetMismatch(
        f"{len(unreadable)} of {sampled} values of {shape.name} that were tried don't open: {rows}{more}",
        remedy="the template must give the context that services use; if the values are damaged, "
        "--allow-unreadable",
    )
