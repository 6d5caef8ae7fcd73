"""The counters of this process's leases, read now and then for the usage ledger."""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import repeat
from operator import length_hint

from byok.core.usage import VersionId
from byok.ports import LeaseId


@dataclass(slots=True)
class _Tally:
    """A lease's counter, without the lease: a secret that was dropped must not be kept for its count.

    ``left`` is how many uses it had left when it was last read, less those that are not to be counted.
    """

    lease_id: LeaseId
    uses_left: "repeat[None]"
    left: int
    is_gone: bool = False

    def take(self) -> int:
        """The uses since the last call."""
        due = max(self.left - length_hint(self.uses_left), 0)
        self.left -= due
        return due


class Tallies:
    """Knows the counter of every lease that was handed out. Thread-safe.

    A use costs one ``next()`` on its lease's counter, which knows how many it has left, and nothing else.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Forget all counts, as in a forked child: its parent reports them."""
        self._lock = threading.Lock()
        self._tallies: dict[int, _Tally] = {}

    def add(self, lease_id: LeaseId, uses_left: "repeat[None]") -> None:
        """Count a lease's uses from now on, until some time after it is let go."""
        with self._lock:
            self._tallies[id(uses_left)] = _Tally(lease_id, uses_left, length_hint(uses_left))

    def excuse(self, uses_left: "repeat[None]") -> None:
        """Don't count one of a lease's uses: it was a check of our own."""
        with self._lock:
            if tally := self._tallies.get(id(uses_left)):
                tally.left -= 1

    def read(self, held: "Mapping[LeaseId, repeat[None]]") -> "Counter[VersionId]":
        """The uses since the last reading. ``held``: the leases that are still in memory.

        One that is not is read once more at the next reading, and then forgotten: a thread may have taken it
        just before it was let go.
        """
        used: Counter[VersionId] = Counter()
        with self._lock:
            for identity, tally in list(self._tallies.items()):
                if tally.is_gone:
                    del self._tallies[identity]
                tally.is_gone = held.get(tally.lease_id) is not tally.uses_left
                if due := tally.take():
                    used[VersionId(tally.lease_id.key_id, tally.lease_id.version_number)] += due
        return used
