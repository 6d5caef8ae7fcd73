"""A region's breaker: where many tenants of a region fail at once, the fault is more likely ours or AWS's.

Every method wants the caller's lock held.
"""

from collections import OrderedDict
from uuid import UUID

from byok.errors import KmsBackingOff
from byok.logs import get_logger

log = get_logger(__name__)

_WINDOW_SECONDS = 60.0
_MIN_TENANTS = 5
_SHARE = 0.5
_TRIAL_SECONDS = 1.0
_RETRY_SECONDS = 3.0


class Region:
    """The latest outcome of each tenant of a region within the window, oldest first."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._outcomes: OrderedDict[UUID, tuple[float, bool]] = OrderedDict()
        self._failing = 0
        self._tripped = False
        self._trial_at = 0.0

    def ask(self, now: float) -> None:
        """Let a call pass; while tripped, one trial a second.

        Raises:
            KmsBackingOff: another has the trial.
        """
        # What tripped it counts for a window only: else a region that nobody can prove healthy, since all
        # of its few tenants are refused, would never suspend one of them.
        if self._tripped and not self.is_bad(now):
            self._reset()
        if not self._tripped:
            return
        if self._trial_at > now:
            raise KmsBackingOff(
                f"many tenants of {self.name} fail at once: the region is left alone for a moment",
                retry_after_seconds=_RETRY_SECONDS,
                remedy="check the workers' own AWS identity and AWS's health page: nobody is suspended",
            )
        self._trial_at = now + _TRIAL_SECONDS

    def note_success(self, tenant_id: UUID, now: float) -> None:
        """A call went well: one that does proves that the region is well."""
        self._note(tenant_id, now, failed=False)
        if self._tripped:
            self._reset()

    def note_failure(self, tenant_id: UUID, now: float) -> bool:
        """A call failed or was refused. Returns whether too many do."""
        self._note(tenant_id, now, failed=True)
        bad = self.is_bad(now)
        if bad and not self._tripped:
            self._tripped, self._trial_at = True, now + _TRIAL_SECONDS
            log.error("region_tripped", region=self.name, failing=self._failing, tenants=len(self._outcomes))
        return bad

    def is_bad(self, now: float) -> bool:
        """Whether too many of the tenants that were asked within the window failed."""
        self._forget_before(now - _WINDOW_SECONDS)
        return self._failing >= max(_MIN_TENANTS, _SHARE * len(self._outcomes))

    def _note(self, tenant_id: UUID, now: float, *, failed: bool) -> None:
        _, before = self._outcomes.pop(tenant_id, (0.0, False))
        self._failing += failed - before
        self._outcomes[tenant_id] = (now, failed)
        self._forget_before(now - _WINDOW_SECONDS)

    def _forget_before(self, start: float) -> None:
        while self._outcomes:
            oldest, (when, was_failing) = next(iter(self._outcomes.items()))
            if when > start:
                break
            self._failing -= was_failing
            del self._outcomes[oldest]

    def _reset(self) -> None:
        self._outcomes.clear()
        self._failing, self._tripped = 0, False
        log.warning("region_recovered", region=self.name)
