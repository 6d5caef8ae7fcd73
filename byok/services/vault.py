"""What a service gets from `byok.connect`."""

from collections.abc import Callable

from byok.core.model import RotationReason
from byok.ports import MetricsCollector
from byok.services.fields import Cipher
from byok.services.leases import LeaseDesk
from byok.services.requests import Requested, RotationRequests

MAX_CIPHERS = 10_000  # that a vault remembers


class Vault:
    """The door for services: ciphers, and requests for rotation. Thread-safe and fork-safe."""

    def __init__(self, desk: LeaseDesk, requests: RotationRequests) -> None:
        self._desk = desk
        self._requests = requests
        self._ciphers: dict[tuple[str, str], Cipher] = {}
        self._close: Callable[[], None] | None = None
        self._metrics: MetricsCollector | None = None
        self.is_closed = False

    def close_with(self, close: Callable[[], None]) -> None:
        """Have `close` do this. Whatever it belongs to lives as long as the vault."""
        self._close = close

    def measure_with(self, metrics: MetricsCollector) -> None:
        """Have `metrics_collector` return this."""
        self._metrics = metrics

    def metrics_collector(self) -> MetricsCollector:
        """What this process counts, for ``prometheus_client.REGISTRY.register``; see ``docs/metrics.md``.

        Not where PROMETHEUS_MULTIPROC_DIR is set: there the counts are in its files already.
        """
        assert self._metrics is not None
        return self._metrics

    def close(self) -> None:
        """Drop all leases, leave the fleet and close all connections, as the end of the process does.

        Neither the vault nor its ciphers are to be used afterwards. Does nothing the second time.
        """
        if self.is_closed:
            return
        self.is_closed = True
        if self._close is not None:
            self._close()

    def cipher(self, tenant: str, key: str) -> Cipher:
        """The cipher of a tenant's key. Makes no call: whether the key exists shows on first use.

        Asked again it is the same, so that services may ask at each use.
        """
        cipher = self._ciphers.get((tenant, key))
        if cipher is None:
            if len(self._ciphers) >= MAX_CIPHERS:
                self._ciphers.clear()  # they are made again as they are asked for
            cipher = self._ciphers[tenant, key] = Cipher(self._desk, tenant, key)
        return cipher

    def request_rotation(
        self,
        tenant: str,
        key: str,
        *,
        reason: str = RotationReason.FORCED.value,
        idempotency_key: str | None = None,
        requested_by: str = "service",
    ) -> Requested:
        """Enqueue a rotation; see `byok.services.requests.RotationRequests.request`."""
        return self._requests.request(
            tenant,
            key,
            reason=RotationReason(reason),
            requested_by=requested_by,
            idempotency_key=idempotency_key,
        )
