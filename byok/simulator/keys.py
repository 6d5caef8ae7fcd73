"""KMS keys: moto's key objects, with the key material and rotation that moto does not model."""

import os
import threading
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any
from uuid import uuid4

import moto.kms.models as moto_kms
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from moto.kms.models import Key, kms_backends

from byok.core.wire import associated_data
from byok.simulator.errors import AwsError

_KEY_ID_BYTES = 36
_MAX_ON_DEMAND_ROTATIONS = 25  # AWS KMS Developer Guide, "Resource quotas"; not adjustable


def _mend_moto() -> None:
    """moto makes an RSA key for every symmetric key, and multi-Region ids too long for its ciphertext."""
    moto: Any = moto_kms
    make_private_key = moto.generate_private_key
    moto.generate_private_key = lambda spec: (
        None if spec in (None, "SYMMETRIC_DEFAULT") else make_private_key(spec)
    )
    moto.generate_key_id = lambda multi_region=False: f"mrk-{uuid4().hex}" if multi_region else str(uuid4())


_mend_moto()


@dataclass
class Materials:
    """The generations of one key's material, oldest first, its rotation settings, and when it expires."""

    generations: list[bytes] = field(default_factory=lambda: [os.urandom(32)])
    on_demand_rotations: int = 0
    rotation_period_days: int = 365
    expires_at: datetime | None = None


class KeyStore:
    """Finds keys over all accounts, and encrypts and decrypts under their material."""

    def __init__(self) -> None:
        self._materials: dict[str, Materials] = {}
        self._lock = threading.Lock()

    def find(self, key_id: str, account: str, region: str) -> Key:
        """The key of an id, ARN, alias name or alias ARN, as a caller in ``account`` and ``region`` says it.

        Raises:
            AwsError: NotFoundException.
        """
        owner, name = account, key_id
        if key_id.startswith("arn:"):
            parts = key_id.split(":", 5)
            if len(parts) != 6 or parts[2] != "kms":
                raise AwsError("InvalidArnException", f"Invalid arn {key_id}")
            if parts[3] != region:
                raise AwsError("NotFoundException", f"Invalid arn {parts[3]}")
            owner, name = parts[4], parts[5].removeprefix("key/")
        backend = kms_backends[owner][region]
        if name.startswith("alias/"):
            name = backend.get_key_id_from_alias(name) or name
        key = backend.keys.get(name)
        if key is None:
            raise AwsError("NotFoundException", f"Key '{key_id}' does not exist")
        return key

    def materials(self, key: Key) -> Materials:
        """The key's material, made on first use."""
        with self._lock:
            return self._materials.setdefault(key.arn, Materials())

    def material_id(self, key: Key, generation: int | None = None) -> str:
        """AWS's id of a generation of material: 64 hexadecimal characters; the newest by default."""
        number = len(self.materials(key).generations) - 1 if generation is None else generation
        return sha256(f"{key.arn}/{number}".encode()).hexdigest()

    def rotate(self, key: Key) -> None:
        """Add a generation of material, as RotateKeyOnDemand does.

        Raises:
            AwsError: LimitExceededException after 25.
        """
        materials = self.materials(key)
        if materials.on_demand_rotations >= _MAX_ON_DEMAND_ROTATIONS:
            raise AwsError("LimitExceededException", "on-demand rotation limit reached")
        materials.on_demand_rotations += 1
        materials.generations.append(os.urandom(32))

    def import_material(self, key: Key, expires_at: datetime | None) -> None:
        """Make the key's material imported, as CreateKey with Origin EXTERNAL and ImportKeyMaterial do."""
        key.origin, key.key_state = "EXTERNAL", "Enabled"
        self.materials(key).expires_at = expires_at

    def let_expire(self, key: Key, now: datetime) -> None:
        """Delete imported material whose time has come: the key waits for it to be imported again."""
        materials = self.materials(key)
        if materials.expires_at is not None and materials.expires_at <= now:
            key.key_state, materials.expires_at = "PendingImport", None

    def encrypt(self, key: Key, plaintext: bytes, context: dict[str, str]) -> bytes:
        """A ciphertext blob: key id | generation | IV | ciphertext and tag."""
        generations = self.materials(key).generations
        header = key.id.encode() + bytes([len(generations) - 1])
        iv = os.urandom(12)
        return header + iv + AESGCM(generations[-1]).encrypt(iv, plaintext, _bind(header, context))

    def decrypt(self, key: Key, blob: bytes, context: dict[str, str]) -> tuple[bytes, int]:
        """The plaintext of a blob of this key, and the generation that opened it.

        Raises:
            AwsError: IncorrectKeyException for another key's blob, InvalidCiphertextException.
        """
        header, iv, body = blob[: _KEY_ID_BYTES + 1], blob[_KEY_ID_BYTES + 1 : _KEY_ID_BYTES + 13], blob[49:]
        invalid = AwsError("InvalidCiphertextException")
        if len(blob) < 49 + 16:
            raise invalid
        if header[:_KEY_ID_BYTES] != key.id.encode():
            raise AwsError("IncorrectKeyException") if self.exists(header[:_KEY_ID_BYTES]) else invalid
        generations, generation = self.materials(key).generations, header[_KEY_ID_BYTES]
        if generation >= len(generations):
            raise invalid
        try:
            return AESGCM(generations[generation]).decrypt(iv, body, _bind(header, context)), generation
        except InvalidTag:
            raise invalid from None

    def exists(self, key_id: bytes) -> bool:
        """Whether any account has a key of this id."""
        wanted = key_id.decode("ascii", "replace")
        return any(key.id == wanted for key in self.all())

    def all(self) -> list[Key]:
        """All keys of all accounts and regions."""
        return [
            key
            for account in list(kms_backends.values())
            for backend in list(account.values())
            for key in list(backend.keys.values())
        ]

    def dump(self, key: Key) -> dict[str, Any]:
        """The key's material for the state file."""
        materials = self.materials(key)
        return {
            "generations": [generation.hex() for generation in materials.generations],
            "on_demand_rotations": materials.on_demand_rotations,
            "rotation_period_days": materials.rotation_period_days,
            "expires_at": materials.expires_at and materials.expires_at.isoformat(),
        }

    def load(self, key: Key, dumped: dict[str, Any]) -> None:
        """Put back what `dump` gave."""
        expires_at = dumped.get("expires_at")
        self._materials[key.arn] = Materials(
            [bytes.fromhex(generation) for generation in dumped["generations"]],
            dumped["on_demand_rotations"],
            dumped["rotation_period_days"],
            expires_at and datetime.fromisoformat(expires_at),
        )


def _bind(header: bytes, context: dict[str, str]) -> bytes:
    pairs = [text for pair in sorted(context.items()) for text in pair]
    return header + associated_data("kms", *pairs)
