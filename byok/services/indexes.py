"""Which versions the blind indexes of a key rest on: made searchable, rebuilt under another version.

Rotation leaves them alone. Each change is committed with its audit event, and then every process is told.
"""

from collections.abc import Callable
from datetime import timedelta

from byok.core.blind_index import announced, enabled, finished, require_searchable, switched
from byok.core.model import IndexVersions, Key, Tenant
from byok.errors import NotReady
from byok.ports import Clock, Store
from byok.services.suspension import Suspensions

_MARGIN = timedelta(seconds=1)  # for calls that are under way with what was read before

# Of a tenant, its key, and the number of the key's active version.
_Step = Callable[[Tenant, Key, int], IndexVersions]


class Indexes:
    """Changes what blind indexes rest on. ``recheck`` is how long a process may go by what it read."""

    def __init__(self, store: Store, suspensions: Suspensions, clock: Clock, recheck: timedelta) -> None:
        self._store = store
        self._suspensions = suspensions
        self._clock = clock
        self._settle_seconds = (recheck + _MARGIN).total_seconds()

    def enable(self, tenant: str, key: str, *, actor: str) -> Key:
        """Make a key searchable: its indexes rest on the version that is active now.

        Raises:
            UnknownTenant, UnknownKey, NotReady, IllegalTransition: it is searchable already.
        """
        return self._change(
            tenant, key, actor, "index.enabled", lambda _, key, active: enabled(key.index, active)
        )

    def rebuild(self, tenant: str, key: str, *, actor: str) -> Key:
        """Put new indexes under the active version; those under the former are looked for until `finish`.

        Waits twice for what the processes know to get out of date: until all look for both, and until all
        write the new ones only. A process that can't reach PostgreSQL learns of neither. If this dies
        under way, the next call goes on.

        Raises:
            UnknownTenant, UnknownKey, NotReady, NotSearchable, IllegalTransition: another rebuild is not
                finished, or the indexes rest on the active version already; LostRace: somebody else goes on
                with this one.
        """
        self._change(
            tenant, key, actor, "index.rebuild.begun",
            lambda tenant, key, active: announced(require_searchable(tenant, key), active),
        )  # fmt: skip
        self._clock.sleep(self._settle_seconds)
        changed = self._change(
            tenant, key, actor, "index.rebuild.switched",
            lambda tenant, key, _: switched(require_searchable(tenant, key)),
        )  # fmt: skip
        self._clock.sleep(self._settle_seconds)
        return changed

    def finish(self, tenant: str, key: str, *, actor: str) -> Key:
        """Look for indexes under the former version no more: rows that still have one are not found then.

        Raises:
            UnknownTenant, UnknownKey, NotReady, NotSearchable, IllegalTransition: no rebuild is under way.
        """
        return self._change(
            tenant, key, actor, "index.rebuild.finished",
            lambda tenant, key, _: finished(require_searchable(tenant, key)),
        )  # fmt: skip

    def _change(self, tenant_name: str, key_name: str, actor: str, action: str, step: _Step) -> Key:
        with self._store.transaction() as tx:
            tenant = tx.tenants.get(tenant_name)
            key = tx.keys.lock(tx.keys.get(tenant, key_name).id)
            active = tx.versions.find_active(key.id)
            if active is None:
                raise NotReady(f"key {key_name!r} of tenant {tenant_name!r} has no active version yet")
            index = step(tenant, key, active.number)
            if index == key.index:
                return key
            tx.keys.set_index(key, index)
            tx.audit.append(
                tenant.id, self._clock.now(), actor, action,
                key=key.name, version=index.current, other_version=index.other,
            )  # fmt: skip
            changed = tx.keys.get_by_id(key.id)
        self._suspensions.changed(tenant)
        return changed
