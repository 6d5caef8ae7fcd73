"""Posting what waits in the outbox to customers' endpoints, at least once each."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from byok.core.webhooks import MAX_ATTEMPTS, WebhookMessage, host_of
from byok.crypto.keyring import MasterKeyRing
from byok.crypto.webhooks import signed_headers
from byok.logs import get_logger
from byok.ports import Clock, Store, WebhookSender

log = get_logger(__name__)

# So many at a time, and rounds of them in one run: with every endpoint hanging for the sender's 14 s, a run
# takes a minute.
_AT_ONCE = 8
_ROUNDS = 4
# A customer asks within a month what it was told; the audit log has the findings for ever.
_KEPT_FOR = timedelta(days=30)
_REMOVED_AT_ONCE = 1000


class WebhookDeliveries:
    """One run of Beat's at a time posts for the whole fleet.

    A try is counted and its successor set before it is made: whoever dies on the way costs a pause, and a
    message may come twice under its id. A round has one message of a tenant, and places for retries: neither
    a dead endpoint nor a tenant with much to be told of takes all of them.
    """

    def __init__(self, store: Store, sender: WebhookSender, master_keys: MasterKeyRing, clock: Clock) -> None:
        self._store = store
        self._sender = sender
        self._master_keys = master_keys
        self._clock = clock

    def run(self) -> int:
        """Post what is due, and forget what was settled long ago; return how many messages got through."""
        delivered = 0
        for _ in range(_ROUNDS):
            with self._store.transaction() as tx:
                claimed = tx.outbox.claim(self._clock.now(), _AT_ONCE)
            if not claimed:
                break
            delivered += sum(self._post_all(claimed))
        with self._store.transaction() as tx:
            tx.outbox.remove_settled(self._clock.now() - _KEPT_FOR, _REMOVED_AT_ONCE)
        return delivered

    def _post_all(self, claimed: Sequence[tuple[WebhookMessage, str | None]]) -> Sequence[bool]:
        with ThreadPoolExecutor(_AT_ONCE, "byok-webhook") as pool:
            return list(pool.map(lambda one: self._post(*one), claimed))

    def _post(self, message: WebhookMessage, url: str | None) -> bool:
        now = self._clock.now()
        if url is None:
            failure: str | None = "the tenant has no webhook any more"
        else:
            headers = signed_headers(self._master_keys, message.id, now, message.body)
            failure = self._sender.post(url, headers, message.body.encode())
        with self._store.transaction() as tx:
            if failure is None:
                tx.outbox.set_delivered(message.id, self._clock.now())
                return True
            give_up = url is None or message.attempts >= MAX_ATTEMPTS
            tx.outbox.set_failed(message.id, failure, self._clock.now(), give_up=give_up)
        log.warning(
            "webhook_given_up" if give_up else "webhook_failed",
            tenant_id=str(message.tenant_id),
            webhook_id=str(message.id),
            host=None if url is None else host_of(url),
            attempts=message.attempts,
            failure=failure,
        )
        return False
