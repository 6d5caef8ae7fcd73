"""Wraps a version's secret under the KMS key that its tenant moves to, and proves it before it is kept."""

from byok.core.encryption_context import version_context
from byok.core.model import KeyVersion
from byok.core.moves import KmsKeyMove, SecondWrapping
from byok.crypto.hazmat import SecretBytes, fingerprint
from byok.errors import KmsAccessRevoked, ValidationFailed
from byok.ports import Clock, Kms, WrappedKey
from byok.services.records import Records, open_record


class SourceRefused(Exception):  # no error: whoever runs the move suspends the tenant
    """The old connection refuses a Decrypt: the customer took access away."""

    def __init__(self, refusal: KmsAccessRevoked) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class Rewrapper:
    """Makes second wrappings."""

    def __init__(self, kms: Kms, records: Records, clock: Clock) -> None:
        self._kms = kms
        self._records = records
        self._clock = clock

    @property
    def master_key_id(self) -> str:
        """The master key that seals them."""
        return self._records.master_keys.primary_id

    def rewrap(self, move: KmsKeyMove, version: KeyVersion) -> SecondWrapping:
        """Wrap a version under the move's new KMS key, and unwrap it once: it must be the same secret.

        Within KMS by ReEncrypt, where one principal may use both keys; else through this process's memory.

        Raises:
            SourceRefused; KmsAccessRevoked: the new connection, or a right of the errand's alone, is refused;
            ValidationFailed: KMS unwraps another secret; SealBroken, UnknownMasterKey, KmsUnavailable,
            KmsIntegrityError, KmsRequestRejected.
        """
        wrapped = self._crossed(move, version) if move.is_crossing else self._re_encrypted(move, version)
        context = version_context(move.tenant_id, version.key_id, version.number)
        unwrapped = self._kms.decrypt(move.target, wrapped.ciphertext, context).secret
        found = fingerprint(unwrapped)
        unwrapped.wipe()
        # A pending version has no fingerprint yet, and is compared with what the old connection unwraps.
        if found != (version.fingerprint or self._fingerprint(move, version)):
            raise ValidationFailed(
                f"version {version.number} unwraps to another secret under {move.target.kms_key_arn}",
                remedy="roll the move back; find out what answers in the place of AWS KMS",
            )
        return SecondWrapping(
            move_id=move.id,
            key_id=version.key_id,
            number=version.number,
            sealed_wrapped_key=self._records.seal_for(
                move.target, version.key_id, version.number, wrapped.ciphertext
            ),
            kms_request_id=wrapped.request_id,
            kms_key_material_id=wrapped.key_material_id,
            validated_at=self._clock.now(),
        )

    def _re_encrypted(self, move: KmsKeyMove, version: KeyVersion) -> WrappedKey:
        context = version_context(move.tenant_id, version.key_id, version.number)
        old = open_record(self._records.master_keys, move.tenant_id, version)
        try:
            return self._kms.re_encrypt(move.source, move.target, old, context)
        except KmsAccessRevoked:
            # Either KMS key may be behind it, or a right that only this errand needs: the old one is asked
            # for what it always does.
            self._unwrap(move, version).wipe()
            raise

    def _crossed(self, move: KmsKeyMove, version: KeyVersion) -> WrappedKey:
        context = version_context(move.tenant_id, version.key_id, version.number)
        secret = self._unwrap(move, version)
        try:
            return self._kms.encrypt(move.target, secret, context)
        finally:
            secret.wipe()

    def _fingerprint(self, move: KmsKeyMove, version: KeyVersion) -> bytes:
        secret = self._unwrap(move, version)
        found = fingerprint(secret)
        secret.wipe()
        return found

    def _unwrap(self, move: KmsKeyMove, version: KeyVersion) -> SecretBytes:
        """The secret, by the old connection."""
        context = version_context(move.tenant_id, version.key_id, version.number)
        old = open_record(self._records.master_keys, move.tenant_id, version)
        try:
            return self._kms.decrypt(move.source, old, context).secret
        except KmsAccessRevoked as refusal:
            raise SourceRefused(refusal) from refusal
