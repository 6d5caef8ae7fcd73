"""Computing blind indexes: what to search encrypted fields by."""

from byok.core.blind_index import INDEX_PURPOSE, format_index, index_message
from byok.crypto.hazmat import mac
from byok.errors import EmptyValue
from byok.services.in_hand import Desk
from byok.services.refusals import require_context


def compute_index(desk: Desk, tenant: str, key: str, value: bytes, context: bytes) -> bytes:
    """The index under the key's current index version.

    Raises:
        As `compute_indexes`.
    """
    message = _message(value, context)
    return _index(desk, tenant, key, desk.index_versions(tenant, key).current, message)


def compute_indexes(desk: Desk, tenant: str, key: str, value: bytes, context: bytes) -> list[bytes]:
    """The indexes under all versions that are to be looked for, the current one first.

    Raises:
        EmptyContext, EmptyValue, NotSearchable, UnknownTenant, UnknownKey, AccessStopped, Unavailable,
        UnknownVersion: the version was destroyed a moment ago, after the end of its rebuild.
    """
    message = _message(value, context)
    return [_index(desk, tenant, key, number, message) for number in desk.index_versions(tenant, key).live]


def _index(desk: Desk, tenant: str, key: str, number: int, message: bytes) -> bytes:
    lease = desk.decrypting(tenant, key, number)  # counts as a use of the lease, as decrypting does
    return format_index(number, mac(lease.derived(INDEX_PURPOSE), message))


def _message(value: bytes, context: bytes) -> bytes:
    require_context(context, remedy='name the column, not the row, such as context=b"users.email"')
    if not value:
        # All rows without a value would have one index, and a search form left empty would find them.
        raise EmptyValue("an empty value has no blind index", remedy="store NULL where there is no value")
    return index_message(context, value)
