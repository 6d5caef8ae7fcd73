"""Destroying what campaigns have proven to be nowhere any more."""

from collections.abc import Callable, Sequence
from datetime import timedelta

from byok.core.lifecycle import DECRYPTING_STATES
from byok.core.model import Key
from byok.core.reencryption import Target
from byok.errors import StillInUse
from byok.ports import Clock, RowStore, Store
from byok.services.campaigns import CampaignRequests
from byok.services.destruction import Destruction

_COUNTED_ROWS = 5_000  # in one statement


class OldVersions:
    """The end of all versions of a key that its registered tables are free of."""

    def __init__(
        self,
        *,
        store: Store,
        rows: RowStore,
        campaigns: CampaignRequests,
        destruction: Destruction,
        clock: Clock,
        recheck: timedelta,
    ) -> None:
        self._store = store
        self._rows = rows
        self._campaigns = campaigns
        self._destruction = destruction
        self._clock = clock
        self._recheck = recheck

    def destroy(
        self,
        tenant_name: str,
        key_name: str,
        *,
        actor: str,
        patience: timedelta,
        seen: Callable[[Sequence[str]], None] = lambda _: None,
    ) -> tuple[Key, Sequence[int]]:
        """Raise the floor to the version that campaigns have proven, and once nobody can hold a lease on an
        older one, count the tables again and destroy what is older. Called again, it goes on.

        Returns the key and the numbers of what was destroyed. How lately a version was used does not count.

        Raises:
            As `CampaignRequests.proven_version`, `Destruction.set_floor` and `Destruction.destroy`;
            StillInUse: a process was not heard of within ``patience``, or may hold a lease from before the
            floor, or a table holds something older after all. The floor stays raised then.
        """
        number = self._campaigns.proven_version(tenant_name, key_name)
        key = self._destruction.set_floor(tenant_name, key_name, number, actor=actor)
        if waiting := self._destruction.wait_for_floor(key, patience, seen):
            raise StillInUse(
                f"the floor is set, but not heard of from {', '.join(waiting)}",
                remedy="dead, frozen or cut off: look at their hosts, and do this again",
            )
        with self._store.transaction() as tx:
            targets = tx.targets.list(key.id)
            old = [
                version.number
                for version in tx.versions.list(key.id)
                if version.number < number and version.state in DECRYPTING_STATES
            ]
        if not old:
            return key, []
        self._require_no_lease(key)
        for target in targets:
            self._require_nothing_older(target, number)
        for one in old:
            self._destruction.destroy(tenant_name, key_name, one, actor=actor, unused_for=timedelta(0))
        return key, old

    def _require_no_lease(self, key: Key) -> None:
        """A process that PostgreSQL took for dead may go on writing, on a lease from before the floor."""
        assert key.decryption_floor_set_at is not None  # it was raised, since there is something below it
        ends_at = key.decryption_floor_set_at + self._recheck + key.lease_ttl
        if self._clock.now() < ends_at:
            raise StillInUse(
                f"the floor is raised to {key.decryption_floor}, but a process that is cut off may hold a"
                f" lease from before until {ends_at:%Y-%m-%d %H:%M:%SZ}",
                remedy="do this again after that",
            )

    def _require_nothing_older(self, target: Target, number: int) -> None:
        after, older = None, 0
        while True:
            page = self._rows.count(target.shape, after, _COUNTED_ROWS)
            older += sum(count for version, count in page.counts.items() if 1 <= version < number)
            after = page.last_id
            if after is None:
                break
        if older:
            raise StillInUse(
                f"{target.shape.name} holds {older} values under versions below {number} after all",
                remedy="lower the floor, which is raised now, and start another campaign",
            )
