"""What an operator sees at a glance."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from byok.core.model import RotationState, Tenant, TenantState
from byok.ports import Clock, Store


@dataclass(frozen=True, slots=True)
class Overview:
    """The fleet in numbers, and who is stopped."""

    tenants: Mapping[TenantState, int]
    keys: int
    overdue: int
    rotations: Mapping[RotationState, int]
    suspended: Sequence[Tenant]


class Observer:
    """Reads what the tables say of the whole fleet."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def overview(self) -> Overview:
        """Count tenants, keys and rotations by state."""
        with self._store.transaction() as tx:
            tenants = tx.tenants.list()
            keys, overdue = tx.keys.count_overdue(self._clock.now())
            rotations = tx.rotations.count_by_state()
        return Overview(
            tenants=Counter(tenant.state for tenant in tenants),
            keys=keys,
            overdue=overdue,
            rotations=rotations,
            suspended=[tenant for tenant in tenants if tenant.state is TenantState.SUSPENDED],
        )
