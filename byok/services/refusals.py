"""What `Cipher` says no with: the same words for fields and for streams."""

from byok.errors import CannotDecrypt, EmptyContext


def cannot_decrypt() -> CannotDecrypt:
    """One flat answer, so that nobody learns which check it was."""
    return CannotDecrypt(
        "the ciphertext does not open",
        remedy="check tenant, key and context; the data may be damaged",
    )


_FIELD = 'say where the value lives, such as context=b"users.email:42"'


def require_context(context: bytes, remedy: str = _FIELD) -> None:
    """Refuse an empty context; ``remedy`` says what to give instead.

    Raises:
        EmptyContext
    """
    if not context:
        raise EmptyContext("the context is empty", remedy=remedy)
