"""What an asyncio service gets from `byok.aconnect`: the vault and its ciphers, awaited.

No rule is here: every call is the synchronous one. It is made on the event loop while this process holds
the lease that it needs, and in a thread where PostgreSQL, Redis or KMS have to be asked.
"""

from collections.abc import Callable, Sequence
from typing import Self, TypeVar

from byok.core.model import RotationReason
from byok.ports import MetricsCollector
from byok.services.fields import Cipher
from byok.services.files import Sink, Source
from byok.services.in_hand import WouldAsk
from byok.services.offloading import Offloading
from byok.services.requests import Requested
from byok.services.vault import Vault

_Result = TypeVar("_Result")


class AsyncCipher:
    """`byok.services.fields.Cipher`, awaited: the same arguments, tokens and errors.

    What is cancelled stops waiting; the lease that was asked for is brought and kept all the same.
    """

    def __init__(self, cipher: Cipher, offloading: Offloading, group: str) -> None:
        self._cipher = cipher
        self._unasking = cipher.unasking()
        self._offloading = offloading
        self._group = group

    async def encrypt(self, plaintext: bytes, *, context: bytes) -> bytes:
        """As `Cipher.encrypt`."""
        return await self._call(lambda cipher: cipher.encrypt(plaintext, context=context))

    async def decrypt(self, token: bytes, *, context: bytes) -> bytes:
        """As `Cipher.decrypt`."""
        return await self._call(lambda cipher: cipher.decrypt(token, context=context))

    async def encrypt_many(self, items: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        """As `Cipher.encrypt_many`."""
        return await self._call(lambda cipher: cipher.encrypt_many(items))

    async def rewrap(self, token: bytes, *, context: bytes) -> bytes:
        """As `Cipher.rewrap`."""
        return await self._call(lambda cipher: cipher.rewrap(token, context=context))

    async def rewrap_many(self, items: Sequence[tuple[bytes, bytes]]) -> list[bytes | None]:
        """As `Cipher.rewrap_many`."""
        return await self._call(lambda cipher: cipher.rewrap_many(items))

    async def needs_rewrap(self, token: bytes) -> bool:
        """As `Cipher.needs_rewrap`."""
        return await self._call(lambda cipher: cipher.needs_rewrap(token))

    async def encrypt_stream(self, source: Source, sink: Sink, *, context: bytes) -> None:
        """As `Cipher.encrypt_stream`, in a thread: the files may block."""
        await self._offloading.run(
            self._group, lambda: self._cipher.encrypt_stream(source, sink, context=context)
        )

    async def decrypt_stream(self, source: Source, sink: Sink, *, context: bytes) -> None:
        """As `Cipher.decrypt_stream`, in a thread: the files may block."""
        await self._offloading.run(
            self._group, lambda: self._cipher.decrypt_stream(source, sink, context=context)
        )

    async def blind_index(self, value: bytes, *, context: bytes) -> bytes:
        """As `Cipher.blind_index`."""
        return await self._call(lambda cipher: cipher.blind_index(value, context=context))

    async def blind_indexes(self, value: bytes, *, context: bytes) -> list[bytes]:
        """As `Cipher.blind_indexes`."""
        return await self._call(lambda cipher: cipher.blind_indexes(value, context=context))

    async def needs_reindex(self, index: bytes) -> bool:
        """As `Cipher.needs_reindex`."""
        return await self._call(lambda cipher: cipher.needs_reindex(index))

    async def _call(self, act: Callable[[Cipher], _Result]) -> _Result:
        try:
            return act(self._unasking)
        except WouldAsk:
            pass  # and leave the handler: what the thread raises has nothing to do with it
        return await self._offloading.run(
            self._group, lambda: act(self._cipher), unless=lambda: self._at_once(act)
        )

    def _at_once(self, act: Callable[[Cipher], _Result]) -> _Result | None:
        """Somebody may have brought the lease meanwhile."""
        try:
            return act(self._unasking)
        except WouldAsk:
            return None


class AsyncVault:
    """`byok.services.vault.Vault`, awaited. For any event loop, and for several at once.

    It is the same vault that `byok.connect` gives, with the same leases: closing one closes the other.
    """

    def __init__(self, vault: Vault, offloading: Offloading) -> None:
        self._vault = vault
        self._offloading = offloading

    @property
    def is_closed(self) -> bool:
        """Whether the vault was closed."""
        return self._vault.is_closed

    async def close(self) -> None:
        """As `Vault.close`."""
        await self._offloading.run("close", self._vault.close)

    def metrics_collector(self) -> MetricsCollector:
        """As `Vault.metrics_collector`; not awaited."""
        return self._vault.metrics_collector()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def cipher(self, tenant: str, key: str) -> AsyncCipher:
        """The cipher of a tenant's key, as `Vault.cipher`: makes no call, and is not awaited."""
        return AsyncCipher(self._vault.cipher(tenant, key), self._offloading, f"tenant {tenant}")

    async def request_rotation(
        self,
        tenant: str,
        key: str,
        *,
        reason: str = RotationReason.FORCED.value,
        idempotency_key: str | None = None,
        requested_by: str = "service",
    ) -> Requested:
        """As `Vault.request_rotation`."""
        return await self._offloading.run(
            "requests",
            lambda: self._vault.request_rotation(
                tenant, key, reason=reason, idempotency_key=idempotency_key, requested_by=requested_by
            ),
        )
