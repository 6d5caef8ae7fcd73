"""Keeps one customer's slow or broken KMS from holding up the others, and our own outages from
suspending anybody. Per process, in memory.

Four means. A tenant has a few calls at a time, and only one while its calls are slow. After a row of
failures its KMS is left alone for a while. Where many tenants of a region fail at once, the region is left
alone, and refusals by KMS count as outages. And where many are refused one after the other what our own
identity asks, sts:AssumeRole first of all, that counts as an outage too.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from uuid import UUID

from byok.core.arns import KmsKeyArn
from byok.core.model import Connection
from byok.errors import KmsAccessRevoked, KmsBackingOff, KmsUnavailable
from byok.kms.refusals import Refusals
from byok.kms.region import Region

# For a place among the tenant's calls; then the thread does something else. Some healthy calls long.
_MAX_WAIT_SECONDS = 0.1
_BUSY_RETRY_SECONDS = 3.0
_SLOW_SECONDS = 1.0  # a KMS call takes 5 to 50 ms
_FAILURES_TO_OPEN = 5
_OPEN_SECONDS = (5.0, 300.0)  # first and longest time that a tenant's KMS is left alone
_MAX_TENANTS = 20_000

# Refusals that a fault on our side can bring about, by STS and by KMS. That a key is disabled only its
# owner can.
_STS_REFUSES, _KMS_REFUSES = "AccessDenied", "AccessDeniedException"


@dataclass(slots=True)
class _Tenant:
    """One tenant's calls. ``retry_at`` lies ahead while its KMS is left alone; ``refused``: it is stopped."""

    limit: int
    in_flight: int = 0
    failures: int = 0
    open_seconds: float = 0.0
    retry_at: float = 0.0
    refused: bool = False


class _End(Enum):
    """How a call ended."""

    WELL = auto()
    ANSWERED = auto()  # with an error that says nothing against the tenant's KMS
    REFUSED = auto()
    DOUBTFUL = auto()  # refused, and taken for an outage
    FAILED = auto()


@dataclass(slots=True)
class _Call:
    connection: Connection
    tenant: _Tenant
    region: Region
    began: float


class Bulkhead:
    """Admits KMS calls and learns from how they end. Thread-safe."""

    def __init__(self, max_calls: int = 2, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._max_calls = max_calls
        self._monotonic = monotonic
        self.forget()

    def forget(self) -> None:
        """Begin anew, as in a forked child."""
        self._changed = threading.Condition()
        # By the KMS key, too: during a move a tenant has two, and neither is to suffer from the other.
        self._tenants: OrderedDict[tuple[UUID, KmsKeyArn], _Tenant] = OrderedDict()
        self._regions: dict[str, Region] = {}
        self._assuming = Refusals("sts:AssumeRole")
        self._asking_ourselves = Refusals("kms, in key-policy mode")

    def note_assumed(self) -> None:
        """A role was assumed, whosever: our own identity has sts:AssumeRole."""
        with self._changed:
            self._assuming.end()

    @contextmanager
    def admitted(self, connection: Connection) -> Iterator[None]:
        """Let one call of a tenant pass.

        Raises:
            KmsBackingOff: it is not to be made now.
            KmsUnavailable: instead of `KmsAccessRevoked`, where so many are refused that it may be our doing.
        """
        call = self._enter(connection)
        end = _End.ANSWERED
        try:
            yield
            end = _End.WELL
        except KmsUnavailable:
            end = _End.FAILED
            raise
        except KmsAccessRevoked as refusal:
            if refusal.aws_code in (_STS_REFUSES, _KMS_REFUSES):
                end = _End.REFUSED
                if self._may_be_our_doing(call, refusal.aws_code):
                    end = _End.DOUBTFUL
                    raise KmsUnavailable(
                        f"{refusal.message}; so are many tenants: taken for an outage",
                        remedy="check the workers' own AWS identity and AWS's health page",
                    ) from refusal
            raise
        finally:
            self._leave(call, end)

    def _enter(self, connection: Connection) -> _Call:
        with self._changed:
            now = self._monotonic()
            region_name = connection.kms_key_arn.region
            region = self._regions.setdefault(region_name, Region(region_name))
            tenant = self._tenant((connection.tenant_id, connection.kms_key_arn))
            _ask_breaker(tenant, now)
            region.ask(now)  # after the tenant's, lest one that is left alone uses up the region's trial
            if tenant.open_seconds:  # one call tries; the others wait for how it fares
                tenant.retry_at = now + tenant.open_seconds
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
            return _Call(connection, tenant, region, self._monotonic())

    def _tenant(self, called: tuple[UUID, KmsKeyArn]) -> _Tenant:
        tenant = self._tenants.get(called)
        if tenant is None:
            tenant = self._tenants[called] = _Tenant(self._max_calls)
            if len(self._tenants) > _MAX_TENANTS:
                idle = next((key for key, one in self._tenants.items() if one.in_flight == 0), None)
                if idle is not None:
                    del self._tenants[idle]
        self._tenants.move_to_end(called)
        return tenant

    def _may_be_our_doing(self, call: _Call, code: str) -> bool:
        with self._changed:
            now, tenant_id = self._monotonic(), call.connection.tenant_id
            known = call.tenant.refused
            if code == _STS_REFUSES:
                doubt = self._assuming.note(tenant_id, now, known=known)
            elif call.connection.role_arn is None:
                doubt = self._asking_ourselves.note(tenant_id, now, known=known)
            else:  # signed by a session that its role gave us just now
                doubt = not known and call.region.note_failure(tenant_id, now)
            call.tenant.refused = known or not doubt
            return doubt

    def _leave(self, call: _Call, end: _End) -> None:
        with self._changed:
            now, tenant = self._monotonic(), call.tenant
            tenant.in_flight -= 1
            failed = end in (_End.FAILED, _End.DOUBTFUL)
            slow = failed or now - call.began > _SLOW_SECONDS
            tenant.limit = 1 if slow else min(self._max_calls, tenant.limit + 1)
            if failed:
                _note_failure(tenant, now)
            else:
                tenant.failures, tenant.open_seconds, tenant.retry_at = 0, 0.0, 0.0
            self._conclude(call, end, now)
            self._changed.notify_all()

    def _conclude(self, call: _Call, end: _End, now: float) -> None:
        """What the end of a call says of its region and of ourselves. Refusals have been judged already."""
        if end is _End.WELL:
            call.tenant.refused = False
            if call.connection.role_arn is None:
                self._asking_ourselves.end()
        if end in (_End.WELL, _End.ANSWERED):
            call.region.note_success(call.connection.tenant_id, now)
        elif end is _End.FAILED:
            call.region.note_failure(call.connection.tenant_id, now)


def _ask_breaker(tenant: _Tenant, now: float) -> None:
    if tenant.retry_at > now:
        raise KmsBackingOff(
            f"this tenant's KMS failed {tenant.failures} times in a row and is left alone for a while",
            retry_after_seconds=tenant.retry_at - now,
            remedy="byok tries again by itself",
        )


def _note_failure(tenant: _Tenant, now: float) -> None:
    tenant.failures += 1
    if tenant.failures >= _FAILURES_TO_OPEN:
        first, longest = _OPEN_SECONDS
        tenant.open_seconds = min(longest, tenant.open_seconds * 2 or first)
        tenant.retry_at = now + tenant.open_seconds
