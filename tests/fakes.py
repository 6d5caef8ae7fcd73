"""Stand-ins for the world. They do real cryptography and pass the same contract tests as the adapters."""

import itertools
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from byok.core.findings import Cause, Finding, Verdict
from byok.core.looks import ConnectionLook, KmsKeyFacts
from byok.core.metric_list import KmsOutcome, SweeperFinding
from byok.core.model import Connection, KmsKeyRotation, OpenWork, Rotation
from byok.core.moves import KmsKeyMove
from byok.core.reencryption import Campaign, CampaignState
from byok.core.request_log import LoggedRequest, merged
from byok.core.resealing import Reseal
from byok.core.rotation_period import parse_rotation_tag
from byok.core.wire import associated_data
from byok.crypto import hazmat
from byok.crypto.hazmat import SecretBytes
from byok.errors import ByokError, CacheUnavailable, KmsAccessRevoked, KmsIntegrityError, QueueUnavailable
from byok.ports import (
    CacheAnswer,
    Failing,
    Failure,
    KmsKeyDescription,
    LeaseId,
    Notice,
    RotationReading,
    SealedLease,
    Subscription,
    UnwrappedKey,
    WrappedKey,
)


class FakeClock:
    """A clock that moves when told to; its wall clock can be set, its ticks can't."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self.time = start
        self._ticks = 1000.0

    def now(self) -> datetime:
        return self.time

    def ticks(self) -> float:
        return self._ticks

    def sleep(self, seconds: float) -> None:
        self.advance(seconds=seconds)

    def advance(self, **duration: float) -> None:
        passed = timedelta(**duration)
        self.time += passed
        self._ticks += passed.total_seconds()

    def step(self, **duration: float) -> None:
        """Set the wall clock."""
        self.time += timedelta(**duration)


class CountingRandom:
    """Real random bytes, ordered ids, and a fixed fraction."""

    def __init__(self, fraction: float = 0.5) -> None:
        self._ids = itertools.count(1)
        self._fraction = fraction
        self._run = int.from_bytes(os.urandom(6))

    def bytes(self, count: int) -> bytes:
        return os.urandom(count)

    def fraction(self) -> float:
        return self._fraction

    def uuid(self) -> UUID:
        return UUID(int=self._run << 80 | 7 << 76 | 0b10 << 62 | next(self._ids))


@dataclass
class FakeKmsKey:
    """One customer's KMS key, as its owner may change it."""

    material: SecretBytes = field(default_factory=lambda: SecretBytes(os.urandom(32)))
    state: str = "Enabled"
    spec: str = "SYMMETRIC_DEFAULT"
    rotation_tag: str | None = None
    rotation_days: int | None = None
    material_id: str = "material-1"
    deletion_at: datetime | None = None
    material_expires_at: datetime | None = None


class FakeKms:
    """AWS KMS of many customers in memory: wraps with AES-GCM, binds the context, knows key states."""

    def __init__(self) -> None:
        self.keys: dict[str, FakeKmsKey] = {}
        self.calls: list[str] = []
        self.warnings: list[Finding] = []
        self.secrets: list[bytes] = []  # of the next data keys; then random ones
        self._faults: list[ByokError] = []
        self.hooks: dict[str, Callable[[], None]] = {}
        self._requests = itertools.count(1)

    def fail_next(self, error: ByokError, times: int = 1) -> None:
        """Let the next calls raise ``error``."""
        self._faults += [error] * times

    def clear_faults(self) -> None:
        """Let no further call fail."""
        self._faults.clear()

    def disable(self, arn: object) -> None:
        self.keys[str(arn)].state = "Disabled"

    def enable(self, arn: object) -> None:
        self.keys[str(arn)].state = "Enabled"

    def count(self, operation: str) -> int:
        return self.calls.count(operation)

    def generate_data_key(self, connection: Connection, context: Mapping[str, str]) -> WrappedKey:
        key = self._usable(connection, "GenerateDataKeyWithoutPlaintext")
        iv, secret = os.urandom(12), self.secrets.pop(0) if self.secrets else os.urandom(32)
        body = hazmat.gcm_encrypt(key.material, iv, secret, _encode(context))
        return WrappedKey(iv + body, self._request_id(), key.material_id)

    def decrypt(
        self,
        connection: Connection,
        ciphertext: bytes,
        context: Mapping[str, str],
        *,
        fresh_session: bool = False,
    ) -> UnwrappedKey:
        key = self._usable(connection, "Decrypt")
        try:
            secret = hazmat.gcm_decrypt(key.material, ciphertext[:12], ciphertext[12:], _encode(context))
        except hazmat.NotAuthentic:
            raise KmsIntegrityError("Decrypt: InvalidCiphertextException") from None
        return UnwrappedKey(SecretBytes(secret), self._request_id())

    def encrypt(
        self, connection: Connection, plaintext: SecretBytes, context: Mapping[str, str]
    ) -> WrappedKey:
        key, iv = self._usable(connection, "Encrypt"), os.urandom(12)
        with plaintext.borrow() as raw:
            body = hazmat.gcm_encrypt(key.material, iv, raw, _encode(context))
        return WrappedKey(iv + body, self._request_id(), None)

    def re_encrypt(
        self, source: Connection, target: Connection, ciphertext: bytes, context: Mapping[str, str]
    ) -> WrappedKey:
        old, new = self._usable(source, "ReEncrypt"), self._usable(target, "ReEncrypt")
        try:
            secret = hazmat.gcm_decrypt(old.material, ciphertext[:12], ciphertext[12:], _encode(context))
        except hazmat.NotAuthentic:
            raise KmsIntegrityError("ReEncrypt: InvalidCiphertextException") from None
        iv = os.urandom(12)
        body = hazmat.gcm_encrypt(new.material, iv, secret, _encode(context))
        return WrappedKey(iv + body, self._request_id(), new.material_id)

    def refuses_context(self, connection: Connection, ciphertext: bytes, context: Mapping[str, str]) -> bool:
        try:
            self.decrypt(connection, ciphertext, context).secret.wipe()
        except KmsIntegrityError:
            return True
        return False

    def describe_key(self, connection: Connection) -> KmsKeyDescription:
        self._begin("DescribeKey")
        key = self._key(connection)
        return KmsKeyDescription(
            str(connection.kms_key_arn), key.state, key.spec, "ENCRYPT_DECRYPT", "CUSTOMER"
        )

    def read_rotation(self, connection: Connection) -> RotationReading:
        self._begin("GetKeyRotationStatus")
        key = self._key(connection)
        days = None if key.rotation_tag is None else parse_rotation_tag(key.rotation_tag)
        return RotationReading(
            KmsKeyRotation(days, key.rotation_days, key.material_id),
            ignored_tag=key.rotation_tag if days is None else None,
        )

    def check_connection(self, connection: Connection) -> Sequence[Finding]:
        self._begin("CheckConnection")
        try:
            self._usable(connection, "Decrypt")
        except KmsAccessRevoked as refused:
            return [Finding("kms-key-is-usable", Verdict.FAILED, refused.message, Cause.KEY_DISABLED)]
        return [Finding("kms-key-is-usable", Verdict.PASSED, "fake"), *self.warnings]

    def look_over(self, connection: Connection) -> ConnectionLook:
        findings = self.check_connection(connection)
        key = self._key(connection)
        usable = key.state == "Enabled"
        checks = ("foreign-tenant-context-is-refused", "missing-context-is-refused", "no-unneeded-rights")
        said = {finding.check for finding in findings}
        passed = [Finding(check, Verdict.PASSED, "fake") for check in (*checks, "round-trip")]
        return ConnectionLook(
            [*findings, *(one for one in passed if usable and one.check not in said)],
            KmsKeyFacts(key.state, "AWS_KMS", key.deletion_at, key.material_expires_at),
            key.rotation_days is not None if usable else None,
        )

    def _usable(self, connection: Connection, operation: str) -> FakeKmsKey:
        self._begin(operation)
        key = self._key(connection)
        if key.state != "Enabled":
            request = self._request_id()
            raise KmsAccessRevoked(
                f"{operation}: DisabledException", aws_code="DisabledException", request_id=request
            )
        return key

    def _key(self, connection: Connection) -> FakeKmsKey:
        return self.keys.setdefault(str(connection.kms_key_arn), FakeKmsKey())

    def _begin(self, operation: str) -> None:
        self.calls.append(operation)
        if hook := self.hooks.get(operation):
            hook()
        if self._faults:
            raise self._faults.pop(0)

    def _request_id(self) -> str:
        return f"request-{next(self._requests)}"


def _encode(context: Mapping[str, str]) -> bytes:
    return associated_data("fake-kms", *itertools.chain.from_iterable(sorted(context.items())))


class MemoryLeaseCache:
    """A lease cache in memory, which can be taken down."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        # Each with the ticks at which it is gone: the server has a clock of its own.
        self.entries: dict[LeaseId, tuple[SealedLease, float]] = {}
        self.claims: dict[LeaseId, tuple[str, float]] = {}
        self.failing: dict[LeaseId, tuple[Failure, float]] = {}
        self.is_down = False
        self._lock = threading.Lock()

    def take(self, lease_id: LeaseId, claim: str, claim_for: timedelta, newer_than: datetime) -> CacheAnswer:
        self.ping()
        now = self._clock.ticks()
        with self._lock:
            lease, gone_at = self.entries.get(lease_id, (None, 0.0))
            if lease is not None and gone_at > now and lease.decrypted_at > newer_than:
                return CacheAnswer(lease, timedelta(seconds=gone_at - now))
            failure, until = self.failing.get(lease_id, (Failure.OUTAGE, 0.0))
            if until > now:
                return CacheAnswer(failing=Failing(timedelta(seconds=until - now), failure))
            holder, until = self.claims.get(lease_id, ("", 0.0))
            if until > now and holder != claim:
                return CacheAnswer()
            self.claims[lease_id] = claim, now + claim_for.total_seconds()
            return CacheAnswer(is_ours=True)

    def put(self, lease_id: LeaseId, lease: SealedLease, ttl: timedelta, claim: str) -> None:
        self.ping()
        now = self._clock.ticks()
        with self._lock:
            old, gone_at = self.entries.get(lease_id, (None, 0.0))
            if old is None or gone_at <= now or old.decrypted_at <= lease.decrypted_at:
                self.entries[lease_id] = (lease, now + ttl.total_seconds())
            self.failing.pop(lease_id, None)
            if self.claims.get(lease_id, ("", 0.0))[0] == claim:
                self.claims.pop(lease_id, None)

    def fail(self, lease_id: LeaseId, pause: timedelta, failure: Failure, claim: str) -> None:
        self.ping()
        with self._lock:
            holder, until = self.claims.get(lease_id, (claim, 0.0))
            if holder != claim and until > self._clock.ticks():
                return
            self.failing[lease_id] = failure, self._clock.ticks() + pause.total_seconds()
            self.claims.pop(lease_id, None)

    def drop(self, lease_id: LeaseId) -> None:
        self.ping()
        self.entries.pop(lease_id, None)

    def purge(self, tenant_id: UUID) -> int:
        self.ping()
        mine = [lease_id for lease_id in self.entries if lease_id.tenant_id == tenant_id]
        for lease_id in mine:
            del self.entries[lease_id]
        return len(mine)

    def count(self, tenant_id: UUID) -> int:
        self.ping()
        now = self._clock.ticks()
        until = [
            *((one, gone_at) for one, (_, gone_at) in self.entries.items()),
            *((one, gone_at) for one, (_, gone_at) in self.claims.items()),
            *((one, gone_at) for one, (_, gone_at) in self.failing.items()),
        ]
        return sum(one.tenant_id == tenant_id and gone_at > now for one, gone_at in until)

    def ping(self) -> None:
        if self.is_down:
            raise CacheUnavailable("the cache is down")


class MemoryNoticeBoard:
    """Hands a notice to every ear at once, or loses it."""

    def __init__(self) -> None:
        self.ears: list[Callable[[Notice], None]] = []
        self.published: list[Notice] = []
        self.loses_all = False
        self.is_down = False

    def publish(self, notice: Notice) -> None:
        if self.is_down:
            raise CacheUnavailable("the cache is down")
        self.published.append(notice)
        if not self.loses_all:
            for hear in self.ears:
                hear(notice)

    @contextmanager
    def listen(self) -> Iterator[Subscription]:
        raise CacheUnavailable("no thread listens in these tests: `ears` are called")
        yield


class RecordingQueue:
    """Keeps what was published, for the test to run or to lose."""

    def __init__(self) -> None:
        self.rotations: list[tuple[str, str, Rotation]] = []
        self.validations: list[tuple[str, str]] = []
        self.probes: list[str] = []
        self.syncs: list[str] = []
        self.watches: list[str] = []
        self.campaigns: list[tuple[Campaign, timedelta]] = []
        self.reseals: list[tuple[Reseal, timedelta]] = []
        self.moves: list[KmsKeyMove] = []
        self.is_down = False
        self.fail_after: int | None = None  # so many of a kind

    def rotate(self, works: Sequence[OpenWork]) -> None:
        self.ping()
        self.rotations += [(work.tenant, work.key, work.rotation) for work in works]

    def backlog(self) -> int:
        self.ping()
        return len(self.rotations)

    def checks_waiting(self) -> int:
        self.ping()
        return len(self.validations) + len(self.probes) + len(self.watches)

    def syncs_waiting(self) -> int:
        self.ping()
        return len(self.syncs)

    def validate(self, tenant: str, key: str) -> None:
        self.ping()
        self._fail_after(self.validations)
        self.validations.append((tenant, key))

    def probe(self, tenant: str) -> None:
        self.ping()
        self._fail_after(self.probes)
        self.probes.append(tenant)

    def sync_rotation(self, tenant: str) -> None:
        self.ping()
        self._fail_after(self.syncs)
        self.syncs.append(tenant)

    def watch(self, tenant: str) -> None:
        self.ping()
        self._fail_after(self.watches)
        self.watches.append(tenant)

    def _fail_after(self, published: Sized) -> None:
        if self.fail_after is not None and len(published) >= self.fail_after:
            raise QueueUnavailable("the broker is down")

    def reencrypt(self, campaign: Campaign, delay: timedelta) -> None:
        self.ping()
        self.campaigns.append((campaign, delay))

    def reseal(self, reseal: Reseal, delay: timedelta) -> None:
        self.ping()
        self.reseals.append((reseal, delay))

    def move(self, move: KmsKeyMove) -> None:
        self.ping()
        self.moves.append(move)

    def ping(self) -> None:
        if self.is_down:
            raise QueueUnavailable("the broker is down")


class CountingMetrics:
    """Counts in memory."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, ...] | str] = Counter()
        self.held = 0

    def rotation_ended(self, rotation: Rotation) -> None:
        self.counts["ended", rotation.reason.value, rotation.state.value] += 1

    def rotation_step_took(self, step: str, seconds: float) -> None:
        self.counts["step", step] += 1

    def kms_requested(self, operation: str, outcome: KmsOutcome, tenant: str, seconds: float) -> None:
        self.counts["kms", operation, outcome.value, tenant] += 1

    def rotation_tried_again(self, code: str) -> None:
        self.counts["tried-again", code] += 1

    def dispatch_held_back(self, reason: str) -> None:
        self.counts["held-back", reason] += 1

    def sweeper_found(self, finding: SweeperFinding, count: int) -> None:
        self.counts["found", finding] += count

    def integrity_alarm(self) -> None:
        self.counts["integrity-alarm"] += 1

    def campaign_ended(self, state: CampaignState) -> None:
        self.counts["campaign", state.value] += 1

    def rows_rewritten(self, count: int) -> None:
        self.counts["rows-rewritten"] += count

    def lease_taken(self, source: str) -> None:
        self.counts["lease", source] += 1

    def leases_held(self, count: int) -> None:
        self.held = count

    def uses_recorded(self, count: int) -> None:
        self.counts["uses"] += count

    def stop_reached(self, latency: timedelta) -> None:
        self.counts["stop"] += 1


class MemorySpool:
    """Keeps requests in memory: both sides of the log of requests."""

    def __init__(self) -> None:
        self.requests: list[LoggedRequest] = []

    def begin(self, connection: Connection, operation: str, subject: str) -> LoggedRequest:
        region, at = connection.kms_key_arn.region, datetime.now(UTC)
        request = LoggedRequest(uuid4(), connection.tenant_id, operation, subject, None, region, at)
        self.requests.append(request)
        return request

    def end(self, request: LoggedRequest, request_id: str, code: str) -> None:
        self.requests.append(request.ended(datetime.now(UTC), request_id, code))

    def seal(self) -> None:
        """Nothing: all of it can be read."""

    def sealed(self) -> Iterator[Sequence[LoggedRequest]]:
        taken, self.requests = merged(self.requests), []
        yield taken

    def unsealed(self) -> Iterator[Sequence[LoggedRequest]]:
        return iter(())

    def backlog_bytes(self) -> int:
        return len(self.requests)


class RecordingSender:
    """Keeps what was posted; ``failures`` are what the next posts to a URL come to."""

    def __init__(self) -> None:
        self.posted: list[tuple[str, Mapping[str, str], bytes]] = []
        self.failures: dict[str, str] = {}

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> str | None:
        self.posted.append((url, headers, body))
        return self.failures.get(url)
