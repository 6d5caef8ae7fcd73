"""What the integrations share: whose cipher, and how a value becomes a token and a value again."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from byok import connect
from byok.errors import InvalidInput, NoTenant
from byok.services.fields import Cipher
from byok.services.vault import Vault

_Value = TypeVar("_Value")
_Out = TypeVar("_Out")

TenantSource = Callable[[], str | None]
VaultSource = Vault | Callable[[], Vault]


@dataclass(frozen=True, slots=True)
class CipherSource:
    """A key of whichever tenant it is the turn of: ``tenant`` is asked for each value."""

    key: str
    tenant: TenantSource
    vault: VaultSource = connect

    def cipher(self) -> Cipher:
        """The cipher of this moment's tenant.

        Raises:
            NoTenant: there is none; ConfigurationError.
        """
        try:
            tenant = self.tenant()
        except LookupError:  # of a ContextVar that is not set
            tenant = None
        if not tenant:
            raise NoTenant(
                "an encrypted column was used while no tenant is set",
                remedy="set the tenant of each request or job before it uses the database",
            )
        vault = self.vault if isinstance(self.vault, Vault) else self.vault()
        return vault.cipher(tenant, self.key)


@dataclass(frozen=True, slots=True)
class Codec(Generic[_Value]):
    """How values of one kind become bytes, and these tokens. No error shows a value."""

    kind: str
    to_bytes: Callable[[_Value], bytes]
    from_bytes: Callable[[bytes], _Value]

    def seal(self, source: CipherSource, value: _Value, context: str) -> bytes:
        """The token of a value.

        Raises:
            InvalidInput: the value is of another kind; NoTenant; and as `Cipher.encrypt`.
        """
        plaintext = _converted(
            self.to_bytes, value, f"a {type(value).__name__} can't be stored as {self.kind}"
        )
        return source.cipher().encrypt(plaintext, context=context.encode())

    def open(self, source: CipherSource, token: bytes, context: str) -> _Value:
        """The value of a token.

        Raises:
            InvalidInput: what was encrypted is of another kind; NoTenant; and as `Cipher.decrypt`.
        """
        plaintext = source.cipher().decrypt(token, context=context.encode())
        return _converted(self.from_bytes, plaintext, f"what is stored at {context} is not {self.kind}")


def _converted(convert: Callable[[_Value], _Out], value: _Value, otherwise: str) -> _Out:
    try:
        return convert(value)
    except (TypeError, ValueError, RecursionError):
        pass  # their messages and attributes hold the value: not even as a cause
    raise InvalidInput(otherwise)


def _text_to_bytes(value: str) -> bytes:
    return _required(value, str).encode()


def _bytes_to_bytes(value: bytes) -> bytes:
    return bytes(_required(value, bytes, bytearray, memoryview))


def _json_to_bytes(value: Any) -> bytes:  # whatever the standard library takes
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return text.encode()


def _required(value: _Value, *kinds: type) -> _Value:
    if not isinstance(value, kinds):
        raise TypeError
    return value


TEXT: Codec[str] = Codec("text", _text_to_bytes, bytes.decode)
BYTES: Codec[bytes] = Codec("bytes", _bytes_to_bytes, bytes)
JSON: Codec[Any] = Codec("JSON", _json_to_bytes, json.loads)
