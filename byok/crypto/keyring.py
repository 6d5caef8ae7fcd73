"""The vendor's master keys: the first seals, all open."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from byok.core.model import SealedBox
from byok.core.wire import associated_data
from byok.crypto import hazmat
from byok.crypto.hazmat import SecretBytes
from byok.crypto.ring_entries import PlainEntry, WrappedEntry, parse_entries
from byok.errors import InvalidMasterKey, SealBroken, UnknownMasterKey


@dataclass(frozen=True, slots=True)
class Signature:
    """An Ed25519 signature, with the public key that checks it and the master key it was derived from."""

    master_key_id: str
    public_key: bytes
    value: bytes


RandomBytes = Callable[[int], bytes]
Unwrap = Callable[[WrappedEntry], SecretBytes]


class MasterKeyRing:
    """An ordered ring of master keys.

    What is sealed is bound to its associated data twice: the AES-256-GCM key of a seal is derived from
    the master key by HKDF over it, and GCM authenticates it. So one master key is never worn out by the
    number of seals, and a row copied to another tenant, version or purpose doesn't open.
    """

    def __init__(self, keys: Iterable[tuple[str, SecretBytes]], random_bytes: RandomBytes) -> None:
        self._keys = dict(keys)
        self._random_bytes = random_bytes
        if not self._keys:
            raise InvalidMasterKey(
                "the master key ring is empty", remedy="byok master-key generate prints a new one"
            )

    @classmethod
    def parse(cls, text: str, random_bytes: RandomBytes, unwrap: Unwrap | None = None) -> "MasterKeyRing":
        """Parse the text of a ring (`byok.crypto.ring_entries`). ``unwrap`` opens what a KMS key wraps.

        Raises:
            InvalidMasterKey: naming the entry by its place, never by its content.
            And what ``unwrap`` raises.
        """
        return cls([_secret_of(entry, unwrap) for entry in parse_entries(text)], random_bytes)

    @property
    def primary_id(self) -> str:
        """The id of the key that seals."""
        return next(iter(self._keys))

    @property
    def ids(self) -> tuple[str, ...]:
        """All key ids, the sealing one first."""
        return tuple(self._keys)

    def __repr__(self) -> str:
        return f"MasterKeyRing({', '.join(self._keys)})"

    def seal(self, plaintext: bytes | bytearray, purpose: str, *parts: str | int) -> SealedBox:
        """Seal under the first key, bound to ``purpose`` and ``parts``."""
        key_id = self.primary_id
        bound_to = associated_data(purpose, *parts, key_id)
        iv = self._random_bytes(hazmat.GCM_IV_BYTES)
        body = hazmat.gcm_encrypt(hazmat.derive_key(self._keys[key_id], bound_to), iv, plaintext, bound_to)
        return SealedBox(key_id, iv, body)

    def open(self, box: SealedBox, purpose: str, *parts: str | int) -> bytes:
        """Open a box that was sealed with the same ``purpose`` and ``parts``.

        Raises:
            UnknownMasterKey: the ring does not hold the key that sealed it.
            SealBroken: tampered with, or sealed for something else.
        """
        key = self._keys.get(box.master_key_id)
        if key is None:
            raise UnknownMasterKey(
                f"a record is sealed under master key {box.master_key_id!r}, which is not in the ring",
                remedy="add that key to BYOK_MASTER_KEYS, behind the first",
            )
        bound_to = associated_data(purpose, *parts, box.master_key_id)
        try:
            return hazmat.gcm_decrypt(hazmat.derive_key(key, bound_to), box.iv, box.body, bound_to)
        except hazmat.NotAuthentic:
            raise SealBroken(
                f"a {purpose} record does not open: it was changed, or belongs to another row",
                remedy="restore the row from a backup and find out who wrote it",
            ) from None

    def sign(self, purpose: str, message: bytes, key_id: str | None = None) -> Signature:
        """Sign with an Ed25519 key that is derived from a master key for this purpose alone: the first one,
        or ``key_id`` of this ring."""
        signing_id = key_id or self.primary_id
        seed = self._signing_seed(signing_id, purpose)
        return Signature(signing_id, hazmat.signing_public_key(seed), hazmat.sign(seed, message))

    def signing_keys(self, purpose: str) -> dict[str, bytes]:
        """The public key of each master key, by its id, for whoever checks our signatures."""
        return {
            key_id: hazmat.signing_public_key(self._signing_seed(key_id, purpose)) for key_id in self._keys
        }

    def _signing_seed(self, key_id: str, purpose: str) -> SecretBytes:
        return hazmat.derive_key(self._keys[key_id], associated_data("byok/signing/1", purpose, key_id))


def _secret_of(entry: PlainEntry | WrappedEntry, unwrap: Unwrap | None) -> tuple[str, SecretBytes]:
    if isinstance(entry, PlainEntry):
        return entry.key_id, entry.secret
    if unwrap is None:
        raise InvalidMasterKey(
            f"master key {entry.key_id!r} is wrapped by a KMS key, and nobody here may ask KMS",
            remedy="use its copy in escrow, or run this where the workers' AWS identity is",
        )
    return entry.key_id, unwrap(entry)
