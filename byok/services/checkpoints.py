"""Signing checkpoints of audit chains, and giving them to the customers."""

from byok.core.audit import BEFORE_THE_FIRST, ChainPlace
from byok.core.checkpoints import Checkpoint, SignedCheckpoint, entry_of
from byok.core.model import Tenant
from byok.core.webhooks import WebhookMessage, body_of_checkpoint
from byok.crypto.checkpoints import document_of, sign_checkpoint
from byok.crypto.keyring import MasterKeyRing
from byok.errors import AuditChainBroken
from byok.ports import Clock, Random, Store, Transaction
from byok.services.auditing import Auditor


class Checkpoints:
    """Signs what was verified, and nothing else."""

    def __init__(
        self, store: Store, auditor: Auditor, master_keys: MasterKeyRing, clock: Clock, random: Random
    ) -> None:
        self._store = store
        self._auditor = auditor
        self._master_keys = master_keys
        self._clock = clock
        self._random = random

    def sign(self, tenant_name: str, *, actor: str) -> SignedCheckpoint:
        """Verify what the watch has not verified yet, and sign the last event. Whoever is overtaken by
        somebody else gets that one's checkpoint.

        Raises:
            UnknownTenant; AuditChainBroken.
        """
        chain = self._auditor.chain(tenant_name)
        with self._store.transaction() as tx:
            watched = tx.audit_checkpoints.find(chain.tenant_id)
        place = self._auditor.walk(chain, BEFORE_THE_FIRST if watched is None else watched.place)
        with self._store.transaction() as tx:
            tenant = tx.tenants.get_by_id(chain.tenant_id)
            signed = self._sign_in(tx, tenant, place, actor)
            latest = tx.signed_checkpoints.find_latest(chain.tenant_id)
        assert latest is not None  # ours, or the one that overtook it
        return latest if signed is None else signed

    def sign_news(self, tx: Transaction, tenant: Tenant, place: ChainPlace, *, actor: str) -> None:
        """Sign the event at ``place``, up to which the chain was verified, within a transaction of the
        caller's. Where nothing has come since the last checkpoint but its own event, that one stands."""
        latest = tx.signed_checkpoints.find_latest(tenant.id)
        if latest is None:
            is_news = place != BEFORE_THE_FIRST
        else:
            is_by_others = latest.master_key_id != self._master_keys.primary_id
            is_news = is_by_others or place.sequence > latest.checkpoint.place.sequence + 1
        if is_news:
            self._sign_in(tx, tenant, place, actor)

    def _sign_in(
        self, tx: Transaction, tenant: Tenant, place: ChainPlace, actor: str
    ) -> SignedCheckpoint | None:
        """Store and send a checkpoint; None if there is one of a later event already."""
        tx.audit.lock_head(tenant.id)  # before the last one is read: whoever signs waits here
        latest = tx.signed_checkpoints.find_latest(tenant.id)
        if latest is not None and latest.checkpoint.place.sequence > place.sequence:
            return None
        if latest is not None:
            _require_no_contradiction(latest.checkpoint, place)
        number = 1 if latest is None else latest.checkpoint.number + 1
        now = self._clock.now()
        signed = sign_checkpoint(self._master_keys, Checkpoint(tenant.id, number, place, now))
        tx.signed_checkpoints.add(signed)
        tx.audit.append_all([entry_of(signed.checkpoint, actor)])
        if tenant.webhook_url is not None:
            body = body_of_checkpoint(document_of(signed), now)
            tx.outbox.add([WebhookMessage(self._random.uuid(), tenant.id, body)], now)
        return signed


def _require_no_contradiction(signed: Checkpoint, place: ChainPlace) -> None:
    """Two of one event that differ are proof against us (A-9)."""
    if signed.place.sequence == place.sequence and signed.place.hash != place.hash:
        raise AuditChainBroken(f"event {place.sequence} is not what checkpoint {signed.number} signed")
