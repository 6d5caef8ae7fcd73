"""Signed webhooks: the headers by which a customer knows that a message is the vendor's and fresh.

Scheme ``v1a`` of Standard Webhooks 1.0.0: Ed25519 over ``{id}.{timestamp}.{body}``, by the key that signs
reports. What it signs begins with an id, a report with a brace: neither can be taken for the other.
"""

import base64
from datetime import datetime
from uuid import UUID

from byok.crypto.keyring import MasterKeyRing
from byok.crypto.reports import PURPOSE


def signed_headers(ring: MasterKeyRing, message_id: UUID, at: datetime, body: str) -> dict[str, str]:
    """The headers of one try; receivers refuse a timestamp that is old."""
    timestamp = str(int(at.timestamp()))
    signature = ring.sign(PURPOSE, f"{message_id}.{timestamp}.{body}".encode())
    return {
        "content-type": "application/json",
        "webhook-id": str(message_id),
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1a,{base64.b64encode(signature.value).decode()}",
    }
