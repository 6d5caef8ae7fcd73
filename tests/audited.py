"""A store that refuses what is not audited: a transaction with an act in it appends to an audit chain, too.

All services of a `tests.world.World` work on one, so that whatever the suite has them do is looked at.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from byok.core.model import RequestOutcome
from byok.ports import Store

Arguments = tuple[Any, ...]


def _always(_: Arguments, __: object) -> bool:
    return True


def _some(arguments: Arguments, _: object) -> bool:
    """Of the things in the first argument."""
    return bool(arguments[0])


def _some_came_of_it(_: Arguments, result: Any) -> bool:  # a sequence
    return bool(result)


# What acts of the control plane do to the store: what changes a tenant, its keys, versions and rotations, or
# what is known against somebody. Each with what tells whether anything was changed.
ACTS: Mapping[str, Callable[[Arguments, Any], bool]] = {
    "tenants.add": _always,
    "tenants.set_connection": _always,
    "tenants.set_kms_key_rotation": lambda arguments, _: arguments[0].kms_key_rotation != arguments[1],
    "tenants.set_outage_wait": _always,
    "tenants.set_webhook_url": _always,
    "tenants.replace_suspension": _always,
    "tenants.transition": _always,
    "keys.add": _always,
    "keys.update": _always,
    "keys.set_index": _always,
    "keys.set_decryption_floor": _always,
    "keys.set_next_rotations": _some,
    "versions.add": _some,
    "versions.set_validated": _some,
    "versions.set_checks": _always,
    "versions.transition": _some,
    "rotations.schedule": _some_came_of_it,
    "rotations.request": lambda _, result: result[1] is not RequestOutcome.REPEATED,
    "rotations.set_reason": _always,
    "rotations.transition": _some_came_of_it,
    "stops.add": _always,
    "targets.add": _always,
    "targets.unregister": _always,
    "campaigns.start": lambda _, result: result[1],
    "campaigns.transition": _always,
    "findings.add": _some,
    "findings.update": lambda arguments, _: any(one.resolved_at for one in arguments[0]),
    "signed_checkpoints.add": _always,
    "moves.add": _always,
    "moves.transition": _always,
    "moves.swap": _always,
    "moves.forget_wrappings": _always,
    "tenants.move": _always,
    "offboardings.add": _always,
    "offboardings.transition": _always,
    "offboardings.set_access_statement": _always,
    "remains.forget": _always,
    "remains.retire_key": _always,
}
# What only says how far work has come, when it is due next, who lives, what was used.
BOOKKEEPING = frozenset(
    {
        "tenants.set_looked_at", "tenants.set_next_probes", "tenants.probe_by",
        "rotations.claim", "rotations.renew", "rotations.release", "rotations.lock_waking",
        "stops.acknowledge", "stops.set_purged",
        "campaigns.claim", "campaigns.advance", "campaigns.release", "campaigns.lock_waking",
        "members.enrol", "members.leave", "members.remove_unseen", "usage.add", "usage.note_flush",
        "ticks.begin", "ticks.end", "ticks.set_cursor",
        "validations.claim", "validations.give_back", "validations.draw_in",
        "syncs.claim", "syncs.give_back", "syncs.draw_in",
        "watches.claim", "watches.give_back", "watches.draw_in",
        "audit_checkpoints.set", "audit_checkpoints.remove",
        "outbox.add", "outbox.claim", "outbox.set_delivered", "outbox.set_failed", "outbox.remove_settled",
        "audit.append", "audit.append_all",
        "moves.claim", "moves.renew", "moves.release", "moves.lock_waking", "moves.put_wrappings",
        "request_log.add", "request_log.remove_before", "tenants.hold_all",
        # Of the whole fleet, and of no tenant: who asked for it and how it ended stands in their own rows.
        "reseals.start", "reseals.claim", "reseals.advance", "reseals.release", "reseals.end",
        "reseals.lock_waking", "sealed.replace_seals",
    }
)  # fmt: skip
READS = (
    "count",
    "find",
    "first",
    "get",
    "is_",
    "list",
    "lock",
    "longest",
    "page",
    "progress",
    "read",
    "report",
    "sample",
    "state",
)
_APPENDING = ("audit.append", "audit.append_all")


class AuditedStore:
    """Implements `byok.ports.Store` over another one. ``acts`` are those that were done so far."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.acts: set[str] = set()

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """A transaction of the other store's; fails instead of committing an act without an event."""
        with self._store.transaction() as tx:
            watched = _Watched(tx)
            yield watched
            assert watched.appended or not watched.acts, f"{sorted(watched.acts)} left no audit event"
        self.acts |= watched.acts

    def __getattr__(self, name: str) -> Any:  # whatever the other store has
        return getattr(self._store, name)


class _Watched:
    """A transaction that remembers what was called of its parts."""

    def __init__(self, tx: object) -> None:
        self._tx = tx
        self.acts: set[str] = set()
        self.appended = False

    def __getattr__(self, part: str) -> "_Part":
        return _Part(part, getattr(self._tx, part), self)

    def note(self, name: str, arguments: Arguments, result: object) -> None:
        """Remember a call that ended well."""
        if name in _APPENDING:
            self.appended = self.appended or name == "audit.append" or bool(arguments[0])
        elif name in ACTS and ACTS[name](arguments, result):
            self.acts.add(name)


class _Part:
    """A part of a transaction."""

    def __init__(self, name: str, part: object, watched: _Watched) -> None:
        self._name, self._part, self._watched = name, part, watched

    def __getitem__(self, kind: object) -> "_Part":
        return _Part(self._name, self._part[kind], self._watched)  # type: ignore[index]  # a mapping of parts

    def __getattr__(self, method: str) -> Callable[..., Any]:
        call = getattr(self._part, method)

        def called(*arguments: Any, **named: Any) -> Any:  # as the method's
            result = call(*arguments, **named)
            self._watched.note(f"{self._name}.{method}", arguments, result)
            return result

        return called
