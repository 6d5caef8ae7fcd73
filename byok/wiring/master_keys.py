"""The ring of a process: its entries, and what unwraps those that a KMS key wraps."""

from byok.core.arns import KmsKeyArn
from byok.crypto.hazmat import SecretBytes
from byok.crypto.keyring import MasterKeyRing
from byok.crypto.ring_entries import WrappedEntry
from byok.entropy import SystemRandom
from byok.errors import InvalidMasterKey
from byok.kms.master_keys import VendorKms
from byok.settings import Settings


def load_ring(settings: Settings) -> MasterKeyRing:
    """The ring that the settings name.

    Raises:
        ConfigurationError: the file can't be read, an entry is malformed, or KMS does not unwrap it.
        KmsUnavailable.
    """
    return parse_ring(settings.read_master_keys(), settings)


def parse_ring(text: str, settings: Settings) -> MasterKeyRing:
    """The ring in a text, such as a backup's. Raises as `load_ring`."""
    kms, default = VendorKms(settings.kms_endpoint_url), settings.master_keys_kms_key_arn

    def unwrap(entry: WrappedEntry) -> SecretBytes:
        arn = entry.kms_key_arn or (None if default is None else KmsKeyArn.parse(default))
        if arn is None:
            raise InvalidMasterKey(
                f"nothing says which KMS key wraps master key {entry.key_id!r}",
                remedy="set BYOK_MASTER_KEYS_KMS_KEY_ARN, or write the entry as ID:kms:ARN:BASE64",
            )
        return kms.unwrap(entry.key_id, arn, entry.wrapped_key)

    return MasterKeyRing.parse(text, SystemRandom().bytes, unwrap)
