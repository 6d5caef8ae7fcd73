"""What to look for where no secret may be."""

import base64


def spellings(name: str, secret: bytes) -> dict[str, bytes]:
    """A secret as it could turn up: raw, in hexadecimal, in base64, as Python prints bytes."""
    return {
        f"{name} (raw)": secret,
        f"{name} (hex)": secret.hex().encode(),
        f"{name} (base64)": base64.b64encode(secret).rstrip(b"="),
        f"{name} (url-safe)": base64.urlsafe_b64encode(secret).rstrip(b"="),
        f"{name} (repr)": repr(secret)[2:-1].encode(),
    }
