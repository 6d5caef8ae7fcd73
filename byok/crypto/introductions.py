"""How a new signing key is introduced: by a report that an older one signs.

Customers have pinned the public key by which they check reports and webhooks, and it changes with the first
master key. Whoever trusts the old one can trust what it signs about the new one (``docs/master-keys.md``).
"""

import base64
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from byok.crypto.keyring import MasterKeyRing
from byok.crypto.reports import PURPOSE, sign_report

KIND = "signing-key"


def introduce(ring: MasterKeyRing, master_key_id: str, at: datetime) -> Sequence[dict[str, Any]]:
    """A signed report of kind ``signing-key`` by each other key of the ring, that names the public key which
    is derived from ``master_key_id``, one of the ring."""
    report = {
        "issued_at": at.isoformat(),
        "master_key_id": master_key_id,
        "public_key": base64.b64encode(ring.signing_keys(PURPOSE)[master_key_id]).decode(),
    }
    return [sign_report(ring, KIND, report, signer) for signer in ring.ids if signer != master_key_id]
