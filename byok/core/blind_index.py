"""Blind indexes: what is searched for in place of an encrypted value, and under which versions. Pure.

An index is a keyed hash of a value in its column (``docs/spec/blind-index.md``)::

    version number, u32 big-endian | first 16 bytes of HMAC-SHA256(index secret, message)
    message: length of the context, u32 big-endian | context | value

A rebuild moves a key's indexes from one version to another in three steps, so that at no moment one process
writes what another does not look for: first every process looks for both, then every process writes the new
one, then the old one goes.
"""

import struct

from byok.core.model import IndexVersions, Key, Tenant
from byok.errors import IllegalTransition, InvalidInput, LostRace, NotSearchable

INDEX_PURPOSE = b"byok/blind-index/1"
MAC_BYTES = 16
INDEX_BYTES = 4 + MAC_BYTES

_NUMBER = struct.Struct(">I")


def index_message(context: bytes, value: bytes) -> bytes:
    """What is hashed. No two pairs of context and value give the same bytes."""
    return _NUMBER.pack(len(context)) + context + value


def format_index(version_number: int, mac: bytes) -> bytes:
    """An index out of the version's number and the whole HMAC."""
    return _NUMBER.pack(version_number) + mac[:MAC_BYTES]


def index_version(index: bytes) -> int:
    """The number of the version that an index was made under.

    Raises:
        InvalidInput: it is no blind index: not 20 bytes, or version number 0.
    """
    if len(index) != INDEX_BYTES:
        raise InvalidInput(f"a blind index has {INDEX_BYTES} bytes, not {len(index)}")
    number: int = _NUMBER.unpack_from(index)[0]
    if number == 0:
        raise InvalidInput("a blind index of version number 0")
    return number


def pinned_versions(key: Key) -> frozenset[int]:
    """The versions that a key's blind indexes rest on: none of them may be destroyed."""
    return frozenset() if key.index is None else frozenset(key.index.live)


def require_searchable(tenant: Tenant, key: Key) -> IndexVersions:
    """The versions that a key's blind indexes rest on.

    Raises:
        NotSearchable: the key has none.
    """
    if key.index is None:
        raise NotSearchable(
            f"key {key.name!r} of tenant {tenant.name!r} has no blind index",
            remedy=f"byok key index {tenant.name} {key.name} --enable",
        )
    return key.index


def enabled(index: IndexVersions | None, active: int) -> IndexVersions:
    """Searchable for the first time, under the active version.

    Raises:
        IllegalTransition: it is already.
    """
    if index is not None:
        raise IllegalTransition(
            f"the key has a blind index, under version {index.current}",
            remedy="--rebuild moves it to the active version",
        )
    return IndexVersions(active)


def announced(index: IndexVersions, active: int) -> IndexVersions:
    """The first step of a rebuild: the active version is looked for, too. A rebuild that was announced and
    went no further stays as it is.

    Raises:
        IllegalTransition: a rebuild is under way, or there is nothing to rebuild.
    """
    if index.is_announced:
        return index
    if index.other is not None:
        raise IllegalTransition(
            f"a rebuild from version {index.other} to {index.current} is under way",
            remedy="recompute what is left under the old version, then --finish",
        )
    if index.current == active:
        raise IllegalTransition(
            f"the blind index is under the active version, {active}, already",
            remedy="rotate the key first: byok key rotate",
        )
    return IndexVersions(index.current, active)


def switched(index: IndexVersions) -> IndexVersions:
    """The second step: new indexes are under the new version, and the old one is looked for, too.

    Raises:
        LostRace: somebody else took it since the announcement.
    """
    if index.other is None or not index.is_announced:
        raise LostRace("somebody else goes on with this rebuild", remedy="byok key index shows how far it is")
    return IndexVersions(index.other, index.current)


def finished(index: IndexVersions) -> IndexVersions:
    """The last step: the old version is looked for no more.

    Raises:
        IllegalTransition: there is no rebuild, or it did not get beyond its announcement.
    """
    if index.other is None:
        raise IllegalTransition("no rebuild is under way", remedy="--rebuild begins one")
    if index.is_announced:
        raise IllegalTransition(
            "the rebuild was announced, but its command ended early",
            remedy="run --rebuild again: it goes on from there",
        )
    return IndexVersions(index.current)
