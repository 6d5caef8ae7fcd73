"""Looking over each customer's side: what it changed since it was verified is found, and told once.

`byok.services.watch` looks for stops, every few seconds; this looks for all that hurts later, once a day.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from byok.core import looks
from byok.core.audit import BEFORE_THE_FIRST, AuditEntry
from byok.core.lookout import Change, ChangeEvent, Comparison, Seen, Severity, TenantFinding, compare
from byok.core.model import Tenant, TenantState
from byok.core.webhooks import WebhookMessage, body_of, is_told
from byok.errors import AuditChainBroken, KmsUnavailable
from byok.logs import get_logger
from byok.ports import AuditCheckpoint, Clock, Kms, Random, Store, Transaction, WebhookState
from byok.services.auditing import Auditor
from byok.services.checkpoints import Checkpoints
from byok.services.records import require_connection
from byok.services.suspension import is_leaving

log = get_logger(__name__)

# What a chain's events say is looked at again from the first one this often; between, what came since.
WALK_ALL_EVERY = timedelta(days=30)
_SHOWN = 200
_USED = (TenantState.ACTIVE, TenantState.SUSPENDED)


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look came to: the findings that are open now, and what it changed. ``unreached`` says why the
    customer's side did not answer, if it did not."""

    tenant: Tenant
    open: Sequence[TenantFinding]
    changes: Sequence[Change]
    unreached: str | None = None


@dataclass(frozen=True, slots=True)
class _Chain:
    """A tenant's audit chain: how it is broken, or up to where it is verified."""

    broken: str | None = None
    checkpoint: AuditCheckpoint | None = None


class Lookout:
    """Looks over tenants, and keeps what it found. ``period`` is the longest between two looks."""

    def __init__(
        self,
        *,
        store: Store,
        kms: Kms,
        auditor: Auditor,
        checkpoints: Checkpoints,
        clock: Clock,
        random: Random,
        period: timedelta,
    ) -> None:
        self._store = store
        self._kms = kms
        self._auditor = auditor
        self._checkpoints = checkpoints
        self._clock = clock
        self._random = random
        self._period = period

    def look(self, tenant_name: str, *, actor: str) -> Looked:
        """Look over a tenant's connection, KMS key and audit chain; open, change and resolve findings.

        An outage, or trouble of our own with AWS, changes nothing that is known of the customer's side. Of
        two looks at once the later one counts.

        Raises:
            UnknownTenant, StoreUnavailable.
        """
        began_at = self._clock.now()
        with self._store.transaction() as tx:
            tenant = tx.tenants.get(tenant_name)
            checkpoint = tx.audit_checkpoints.find(tenant.id)
        if tenant.state is TenantState.OFFBOARDED or is_leaving(tenant):
            return self._record(tenant, Seen([], frozenset()), _Chain(), None, began_at, actor)
        chain = self._verify_chain(tenant, checkpoint, began_at)
        seen, unreached = self._look_over(tenant, began_at)
        seen = seen.with_more(
            *looks.of_audit_chain(chain.broken),
            *looks.of_registration(tenant, began_at),
        )
        return self._record(tenant, seen, chain, unreached, began_at, actor)

    def _verify_chain(self, tenant: Tenant, checkpoint: AuditCheckpoint | None, began_at: datetime) -> _Chain:
        if checkpoint is None or began_at - checkpoint.walked_at >= WALK_ALL_EVERY:
            checkpoint = AuditCheckpoint(BEFORE_THE_FIRST, began_at)
        try:
            chain = self._auditor.chain(tenant.name)
            if checkpoint.place == BEFORE_THE_FIRST:
                place = self._auditor.verify(chain).last
            else:
                place = self._auditor.walk(chain, checkpoint.place)
        except AuditChainBroken as broken:
            log.error("audit_chain_broken", tenant=tenant.name, seen=broken.message)
            return _Chain(broken.message)
        return _Chain(checkpoint=AuditCheckpoint(place, checkpoint.walked_at))

    def _look_over(self, tenant: Tenant, began_at: datetime) -> tuple[Seen, str | None]:
        """What is seen of the customer's side, or why it is not."""
        if tenant.state not in _USED:
            return looks.nothing_known(), None  # nothing was verified that could have changed
        try:
            look = self._kms.look_over(require_connection(tenant))
        except KmsUnavailable as outage:
            unreached = outage.message
        else:
            if look.our_trouble is None:
                return looks.seen_in(look, tenant, began_at), None
            unreached = f"{look.our_trouble.check}: {look.our_trouble.explanation}"
        log.warning("look_got_no_answer", tenant=tenant.name, why=unreached)
        silence = looks.of_silence(tenant, unreached, began_at, self._period)
        return looks.nothing_known().with_more(*silence), unreached

    def _record(
        self,
        tenant: Tenant,
        seen: Seen,
        chain: _Chain,
        unreached: str | None,
        began_at: datetime,
        actor: str,
    ) -> Looked:
        with self._store.transaction() as tx:
            current = tx.tenants.lock(tenant.id)
            standing = tx.findings.list_open(tenant.id)
            if _is_out_of_date(tenant, current, began_at):
                return Looked(current, standing, (), unreached)
            now = self._clock.now()
            comparison = compare(standing, seen, tenant.id, now, self._random.uuid)
            _write(tx, comparison, now, actor)
            if current.webhook_url is not None:
                tx.outbox.add(self._messages(comparison, current, now), now)
            if chain.checkpoint is not None:
                tx.audit_checkpoints.set(tenant.id, chain.checkpoint)
                self._checkpoints.sign_news(tx, current, chain.checkpoint.place, actor=actor)
            elif chain.broken is not None:
                tx.audit_checkpoints.remove(tenant.id)
            if tenant.state in _USED and unreached is None:
                tx.tenants.set_looked_at(tenant.id, began_at)
            still_open = tx.findings.list_open(tenant.id)
        for change in comparison.changes:
            _tell(tenant, change)
        return Looked(current, still_open, comparison.changes, unreached)

    def _messages(self, comparison: Comparison, tenant: Tenant, now: datetime) -> Sequence[WebhookMessage]:
        return [
            WebhookMessage(self._random.uuid(), tenant.id, body_of(change, tenant, now))
            for change in comparison.changes
            if is_told(change)
        ]

    def webhook_state(self, tenant: Tenant) -> WebhookState:
        """How the messages to the tenant's endpoint fare."""
        with self._store.transaction() as tx:
            return tx.outbox.state(tenant.id)

    def list_gravest(self) -> Sequence[tuple[Tenant, TenantFinding]]:
        """Open findings of all tenants, the gravest first; no more than 200."""
        with self._store.transaction() as tx:
            findings = tx.findings.list_gravest(_SHOWN)
            tenants = tx.tenants.get_all({finding.tenant_id for finding in findings})
        return [(tenants[finding.tenant_id], finding) for finding in findings]

    def list_of(self, tenant_name: str, *, resolved: bool = False) -> Sequence[tuple[Tenant, TenantFinding]]:
        """A tenant's open findings, or with those that are ``resolved``, the latest first.

        Raises:
            UnknownTenant.
        """
        with self._store.transaction() as tx:
            tenant = tx.tenants.get(tenant_name)
            found = tx.findings.list_all(tenant.id, _SHOWN) if resolved else tx.findings.list_open(tenant.id)
        return [(tenant, finding) for finding in found]


def _is_out_of_date(tenant: Tenant, current: Tenant, began_at: datetime) -> bool:
    """Whether a later look was written already, or the tenant joined or left meanwhile."""
    if current.looked_at is not None and current.looked_at > began_at:
        return True
    return (current.state in _USED) is not (tenant.state in _USED)


def _write(tx: Transaction, comparison: Comparison, now: datetime, actor: str) -> None:
    changes = comparison.changes
    tx.findings.add([change.finding for change in changes if change.event is ChangeEvent.OPENED])
    changed = [change.finding for change in changes if change.event is not ChangeEvent.OPENED]
    tx.findings.update([*changed, *comparison.confirmed])
    tx.audit.append_all([_entry(change, now, actor) for change in changes])


def _entry(change: Change, now: datetime, actor: str) -> AuditEntry:
    finding = change.finding
    details: dict[str, str | int | None] = {
        "finding": str(finding.id),
        "kind": finding.kind.value,
        "severity": finding.severity.value,
        "severity_before": None if change.before is None else change.before.value,
        "deadline_at": None if finding.deadline_at is None else finding.deadline_at.isoformat(),
    }
    return AuditEntry(finding.tenant_id, now, actor, f"finding.{change.event}", details)


def _tell(tenant: Tenant, change: Change) -> None:
    is_quiet = change.event is ChangeEvent.RESOLVED or change.finding.severity is Severity.NOTE
    tell = log.info if is_quiet else log.warning
    tell(
        f"finding_{change.event.value.replace('-', '_')}",
        tenant=tenant.name,
        kind=change.finding.kind.value,
        severity=change.finding.severity.value,
    )
