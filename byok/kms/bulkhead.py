"""Keeps one customer's slow or broken KMS from holding up the others, and our own outages from
suspending anybody. Per process, in memory.

Three means. A tenant has a few calls at a time, and only one while its calls are slow. After a row of
failures its KMS is left alone for a while. And where many tenants of a region fail at once, the fault
is more likely ours or AWS's than theirs: the region is left alone, and refusals count as outages.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

from byok.core.model import Connection
from byok.errors import KmsAccessRevoked, KmsBackingOff, KmsUnavailable
from byok.logs import get_logger

log = get_logger(__name__)

# For a place among the tenant's calls; then the thread does something else. Some healthy calls long.
_MAX_WAIT_SECONDS = 0.1
_BUSY_RETRY_SECONDS = 3.0
_SLOW_SECONDS = 1.0  # a KMS call takes 5 to 50 ms
_FAILURES_TO_OPEN = 5
_OPEN_SECONDS = (5.0, 300.0)  # first and longest time that a tenant's KMS is left alone
_MAX_TENANTS = 20_000

_REGION_WINDOW_SECONDS = 60.0
_REGION_MIN_TENANTS = 5
_REGION_SHARE = 0.5
_REGION_TRIAL_SECONDS = 1.0
# Refusals that a fault on our side can bring about. That a key is disabled only its owner can.
_DOUBTFUL_CODES = frozenset({"AccessDenied", "AccessDeniedException"})


@dataclass(slots=True)
class _Tenant:
    """One tenant's calls. ``retry_at`` lies ahead while its KMS is left alone."""

    limit: int
    in_flight: int = 0
    failures: int = 0
    open_seconds: float = 0.0
    retry_at: float = 0.0


@dataclass(slots=True)
class _Region:
    """The latest outcome of each tenant of a region within the window, oldest first."""

    outcomes: OrderedDict[UUID, tuple[float, bool]] = field(default_factory=OrderedDict)
    failing: int = 0
    tripped: bool = False
    trial_at: float = 0.0

    def note(self, tenant_id: UUID, at: float, *, failed: bool) -> None:
        _, before = self.outcomes.pop(tenant_id, (0.0, False))
        self.failing += failed - before
        self.outcomes[tenant_id] = (at, failed)
        while self.outcomes:
            oldest, (when, was_failing) = next(iter(self.outcomes.items()))
            if when > at - _REGION_WINDOW_SECONDS:
                break
            self.failing -= was_failing
            del self.outcomes[oldest]

    def is_bad(self) -> bool:
        return self.failing >= max(_REGION_MIN_TENANTS, _REGION_SHARE * len(self.outcomes))

    def reset(self) -> None:
        self.outcomes.clear()
        self.failing, self.tripped = 0, False


class Bulkhead:
    """Admits KMS calls and learns from how they end. Thread-safe."""

    def __init__(self, max_calls: int = 2, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._max_calls = max_calls
        self._monotonic = monotonic
        self.forget()

    def forget(self) -> None:
        """Begin anew, as in a forked child."""
        self._changed = threading.Condition()
        self._tenants: OrderedDict[UUID, _Tenant] = OrderedDict()
        self._regions: dict[str, _Region] = {}

    @contextmanager
    def admitted(self, connection: Connection) -> Iterator[None]:
        """Let one call of a tenant pass.

        Raises:
            KmsBackingOff: it is not to be made now.
            KmsUnavailable: instead of `KmsAccessRevoked`, where half the region is refused.
        """
        region_name = connection.kms_key_arn.region
        tenant, region = self._enter(connection.tenant_id, region_name)
        began = self._monotonic()
        failed = denied = False
        try:
            yield
        except KmsUnavailable:
            failed = True
            raise
        except KmsAccessRevoked as refusal:
            denied = refusal.aws_code in _DOUBTFUL_CODES
            if denied and self._is_refused_as_many(region, connection.tenant_id):
                raise KmsUnavailable(
                    f"{refusal.message}; so are many tenants of {region_name}: taken for an outage",
                    remedy="check the workers' own AWS identity and AWS's health page",
                ) from refusal
            raise
        finally:
            self._leave(tenant, region, connection.tenant_id, region_name, began, failed, denied)

    def _enter(self, tenant_id: UUID, region_name: str) -> tuple[_Tenant, _Region]:
        with self._changed:
            region = self._regions.setdefault(region_name, _Region())
            self._ask_region(region, region_name)
            tenant = self._tenant(tenant_id)
            self._ask_breaker(tenant)
            has_place = self._changed.wait_for(
                lambda: tenant.in_flight < tenant.limit, timeout=_MAX_WAIT_SECONDS
            )
            if not has_place:
                raise KmsBackingOff(
                    f"{tenant.in_flight} calls of this tenant wait for its KMS",
                    retry_after_seconds=_BUSY_RETRY_SECONDS,
                    remedy="byok tries again by itself",
                )
            tenant.in_flight += 1
            return tenant, region

    def _tenant(self, tenant_id: UUID) -> _Tenant:
        tenant = self._tenants.get(tenant_id)
        if tenant is None:
            tenant = self._tenants[tenant_id] = _Tenant(self._max_calls)
            if len(self._tenants) > _MAX_TENANTS:
                idle = next((key for key, one in self._tenants.items() if one.in_flight == 0), None)
                if idle is not None:
                    del self._tenants[idle]
        self._tenants.move_to_end(tenant_id)
        return tenant

    def _ask_breaker(self, tenant: _Tenant) -> None:
        now = self._monotonic()
        if tenant.retry_at > now:
            raise KmsBackingOff(
                f"this tenant's KMS failed {tenant.failures} times in a row and is left alone for a while",
                retry_after_seconds=tenant.retry_at - now,
                remedy="byok tries again by itself",
            )
        if tenant.open_seconds:  # one call tries; the others wait for how it fares
            tenant.retry_at = now + tenant.open_seconds

    def _ask_region(self, region: _Region, name: str) -> None:
        now = self._monotonic()
        if not region.tripped:
            return
        if region.trial_at > now:
            raise KmsBackingOff(
                f"many tenants of {name} fail at once: the region is left alone for a moment",
                retry_after_seconds=max(_REGION_TRIAL_SECONDS, _BUSY_RETRY_SECONDS),
                remedy="check the workers' own AWS identity and AWS's health page: nobody is suspended",
            )
        region.trial_at = now + _REGION_TRIAL_SECONDS

    def _is_refused_as_many(self, region: _Region, tenant_id: UUID) -> bool:
        with self._changed:
            region.note(tenant_id, self._monotonic(), failed=True)
            return region.tripped or region.is_bad()

    def _leave(
        self,
        tenant: _Tenant,
        region: _Region,
        tenant_id: UUID,
        region_name: str,
        began: float,
        failed: bool,
        denied: bool,
    ) -> None:
        with self._changed:
            now = self._monotonic()
            tenant.in_flight -= 1
            slow = failed or now - began > _SLOW_SECONDS
            tenant.limit = 1 if slow else min(self._max_calls, tenant.limit + 1)
            if failed:
                self._note_failure(tenant, now)
            else:
                tenant.failures, tenant.open_seconds, tenant.retry_at = 0, 0.0, 0.0
            region.note(tenant_id, now, failed=failed or denied)
            self._judge_region(region, region_name, succeeded=not failed and not denied)
            self._changed.notify_all()

    def _note_failure(self, tenant: _Tenant, now: float) -> None:
        tenant.failures += 1
        if tenant.failures >= _FAILURES_TO_OPEN:
            first, longest = _OPEN_SECONDS
            tenant.open_seconds = min(longest, tenant.open_seconds * 2 or first)
            tenant.retry_at = now + tenant.open_seconds

    def _judge_region(self, region: _Region, name: str, *, succeeded: bool) -> None:
        if region.tripped and succeeded:
            region.reset()
            log.warning("region_recovered", region=name)
        elif not region.tripped and region.is_bad():
            region.tripped = True
            region.trial_at = self._monotonic() + _REGION_TRIAL_SECONDS
            log.error("region_tripped", region=name, failing=region.failing, tenants=len(region.outcomes))
