"""Signed webhooks: the headers by which a customer knows that a message is the vendor's and fresh.

Scheme ``v1a`` of Standard Webhooks 1.0.0: Ed25519 over ``{id}.{timestamp}.{body}``, by the key that signs
reports. What it signs begins with an id, a report with a brace: neither can be taken for the other.
Each master key of the ring signs, as the standard has it for keys that change: whoever knows one of them can
check the message.
"""

import base64
from datetime import datetime
from uuid import UUID

from byok.crypto.keyring import MasterKeyRing
from byok.crypto.reports import PURPOSE


def signed_headers(ring: MasterKeyRing, message_id: UUID, at: datetime, body: str) -> dict[str, str]:
    """The headers of one try; receivers refuse a timestamp that is old."""
    timestamp = str(int(at.timestamp()))
    signed = f"{message_id}.{timestamp}.{body}".encode()
    signatures = [ring.sign(PURPOSE, signed, key_id).value for key_id in ring.ids]
    return {
        "content-type": "application/json",
        "webhook-id": str(message_id),
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1a,{base64.b64encode(one).decode()}" for one in signatures),
    }
