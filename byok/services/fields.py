"""Encrypting and decrypting fields: the data plane.

Both ways have a fast part, which uses what is on the cipher's lane (`byok.services.lease`) and takes
neither a lock nor a system call, and a slow part that asks the desk. The fast part decides nothing: whatever
it meets that is not plain success, the slow part does again and answers for.
"""

import io
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

from byok.core import blind_index
from byok.core.wire import OVERHEAD_BYTES, MalformedToken, parse_token
from byok.crypto.hazmat import XAES_SALT_BYTES, NotAuthentic, SecretBytes
from byok.errors import UnknownVersion
from byok.services import streams
from byok.services.blind_index import compute_index, compute_indexes
from byok.services.files import Sink, Source
from byok.services.in_hand import Desk, LeasesInHand
from byok.services.lease import PREFIX_BYTES, Lane, Opening
from byok.services.page import MAX_PAGE_VALUES, Page
from byok.services.refusals import cannot_decrypt, require_context


class TokenInfo(NamedTuple):
    """What a token tells to whoever has no key."""

    version_number: int
    plaintext_bytes: int


class Cipher:
    """Encrypts and decrypts the fields of one tenant under one of its keys. Thread-safe.

    ``context`` is associated data and required: say where the value lives, such as
    ``b"users.email:42"``. A token opens under the same context only.
    """

    def __init__(self, desk: Desk, tenant: str, key: str, lane: Lane | None = None) -> None:
        self._desk = desk
        self._tenant = tenant
        self._key = key
        self._lane = Lane() if lane is None else lane
        # Bound once, since looking an attribute's attribute up at each call shows in the figures.
        self._openings = self._lane.openings
        self._ivs = desk.ivs
        self._take_iv = desk.ivs.take_iv
        self._ticks = desk.ticks

    def unasking(self) -> "Cipher":
        """The same cipher for an event loop: it never blocks, and raises `WouldAsk` where this one would ask
        PostgreSQL, Redis or KMS. They share a lane."""
        if isinstance(self._desk, LeasesInHand):
            return self
        return Cipher(LeasesInHand(self._desk), self._tenant, self._key, self._lane)

    def encrypt(self, plaintext: bytes, *, context: bytes) -> bytes:
        """Encrypt one value; the token is 45 bytes longer (``docs/spec/ciphertext.md``).

        Raises:
            EmptyContext, UnknownTenant, UnknownKey, NotReady, AccessStopped, Unavailable.
        """
        sealing = self._lane.sealing
        if sealing is not None and context and self._ticks() < sealing.lease.encrypts_until_ticks:
            try:
                next(sealing.lease.uses_left)
                iv = self._take_iv()
            except IndexError:
                iv = self._ivs.iv()
            except StopIteration:
                return self._encrypt_slowly(plaintext, context)
            return sealing.prefix + iv + sealing.encrypt(iv, plaintext, context)
        return self._encrypt_slowly(plaintext, context)

    def decrypt(self, token: bytes, *, context: bytes) -> bytes:
        """Open a token.

        Raises:
            CannotDecrypt: malformed, tampered with, of another tenant or key, or under another
                context. Which of these is not told.
            EmptyContext, UnknownTenant, UnknownKey, AccessStopped, Unavailable.
        """
        try:
            opening = self._openings[token[:17]]
            if self._ticks() < opening.lease.decrypts_until_ticks and context:
                next(opening.lease.uses_left)
                return opening.decrypt(token[17:29], token[29:], context)
        except (KeyError, StopIteration, NotAuthentic, ValueError, TypeError):
            pass  # the slow part says why
        return self._decrypt_slowly(token, context)

    def encrypt_many(self, items: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        """Encrypt many values, each given as (plaintext, context).

        Raises:
            As `encrypt`; then none of the tokens is returned.
        """
        tokens = []
        sealing, ticks, take_iv = self._lane.sealing, self._ticks, self._take_iv
        for plaintext, context in items:
            # The fast part of `encrypt`, without what a call costs.
            if sealing is not None and context and ticks() < sealing.lease.encrypts_until_ticks:
                try:
                    next(sealing.lease.uses_left)
                except StopIteration:
                    pass
                else:
                    try:
                        iv = take_iv()
                    except IndexError:
                        iv = self._ivs.iv()
                    tokens.append(sealing.prefix + iv + sealing.encrypt(iv, plaintext, context))
                    continue
            tokens.append(self.encrypt(plaintext, context=context))
            sealing = self._lane.sealing
        return tokens

    def _encrypt_slowly(self, plaintext: bytes, context: bytes) -> bytes:
        require_context(context)
        lease = self._desk.encrypting(self._tenant, self._key)
        sealing = self._lane.sealing
        if sealing is None or sealing.lease is not lease:
            sealing = lease.epoch(self._ivs.random)
            self._desk.keep_sealing(self._lane, sealing)
        iv = self._ivs.iv()
        return sealing.prefix + iv + sealing.encrypt(iv, plaintext, context)

    def _decrypt_slowly(self, token: bytes, context: bytes) -> bytes:
        require_context(context)
        try:
            parsed = parse_token(token)
            lease = self._desk.decrypting(self._tenant, self._key, parsed.version_number)
            decrypt = lease.cipher.message_key(parsed.nonce[:XAES_SALT_BYTES]).decrypt
            plaintext = decrypt(parsed.nonce[XAES_SALT_BYTES:], parsed.body, context)
        except (MalformedToken, UnknownVersion, NotAuthentic):
            raise cannot_decrypt() from None
        # Only now: keys of salts that somebody made up would crowd out the others.
        self._desk.keep_opening(self._lane, bytes(token[:PREFIX_BYTES]), Opening(decrypt, lease))
        return plaintext

    def rewrap(self, token: bytes, *, context: bytes) -> bytes:
        """The same value under the active version; the token itself where it is under that already.

        Raises:
            As `decrypt` and `encrypt`.
        """
        plaintext = self.decrypt(token, context=context)
        return self.encrypt(plaintext, context=context) if self.needs_rewrap(token) else token

    def rewrap_many(self, items: Sequence[tuple[bytes, bytes]]) -> list[bytes | None]:
        """Rewrap many values, each given as (token, context), to the version that is active: None for each
        that does not open. One lease a version serves 500 of them; before the next, the desk is asked anew.

        Raises:
            EmptyContext, UnknownTenant, UnknownKey, NotReady, AccessStopped, Unavailable.
        """
        for _, context in items:
            require_context(context)
        rewrapped: list[bytes | None] = []
        for start in range(0, len(items), MAX_PAGE_VALUES):
            page = Page(self._desk, self._tenant, self._key)
            rewrapped += [page.rewrap(*item) for item in items[start : start + MAX_PAGE_VALUES]]
        return rewrapped

    def needs_rewrap(self, token: bytes) -> bool:
        """Whether a token is under an older version than the active one. Opens nothing.

        Raises:
            CannotDecrypt: it is no token; and as `encrypt`.
        """
        active = self._desk.encrypting(self._tenant, self._key)
        return token_info(token).version_number < active.version_number

    # --- large values (docs/spec/stream.md) ---------------------------------------------------------

    def encrypt_stream(self, source: Source, sink: Sink, *, context: bytes) -> None:
        """Encrypt a binary file of any length to another, within about 3 MiB of memory.

        A pause, or None, of a non-blocking source is waited out. Neither file is closed. If this raises,
        what is in ``sink`` does not open as a whole stream.

        Raises:
            As `encrypt`; OutOfBounds: longer than 4 PiB.
        """
        with self._sealing_writer(sink, context) as writer:
            streams.copy(source, writer)

    def decrypt_stream(self, source: Source, sink: Sink, *, context: bytes) -> None:
        """Decrypt what `encrypt_stream` made, within about 3 MiB of memory.

        Each segment of 1 MiB is authenticated before it is written, but those before a damaged or missing
        one are in ``sink`` by then: unless this returns, don't use what is there. The tenant's access is
        looked at before each segment.

        Raises:
            CannotDecrypt: as `decrypt`; and cut short, continued, or in another order.
            EmptyContext, UnknownTenant, UnknownKey, AccessStopped, Unavailable.
        """
        streams.copy_opened(self._opening_reader(source, context), sink)

    def encrypting_writer(self, sink: Sink, *, context: bytes) -> AbstractContextManager[io.RawIOBase]:
        """A file to write plaintext to, for a ``with`` block: the stream ends with the block.

        A block that an exception ends leaves a stream that does not open to its end. Closing the file
        inside the block ends nothing; ``sink`` stays open.

        Raises:
            As `encrypt_stream`, at once or at any write.
        """
        return self._sealing_writer(sink, context)

    def decrypting_reader(self, source: Source, *, context: bytes) -> io.RawIOBase:
        """A file to read the plaintext of a stream from; `io.BufferedReader` makes it buffered.

        What is read is authentic, and whether it is all shows at the end: whoever stops before the empty
        read does not know. After AccessStopped or Unavailable the next read goes on where it stopped.
        ``source`` stays open.

        Raises:
            EmptyContext; and as `decrypt_stream` at any read.
        """
        return self._opening_reader(source, context)

    def _sealing_writer(self, sink: Sink, context: bytes) -> AbstractContextManager[streams.SealingWriter]:
        require_context(context)
        number = self._desk.encrypting(self._tenant, self._key).version_number
        header = streams.new_header(number, self._ivs.random)
        return streams.sealing_writer(self._stream_secret, header, context, sink)

    def _opening_reader(self, source: Source, context: bytes) -> streams.OpeningReader:
        require_context(context)
        return streams.OpeningReader(self._stream_secret, context, source)

    def _stream_secret(self, number: int) -> SecretBytes:
        return self._desk.decrypting(self._tenant, self._key, number).derived(streams.PURPOSE)

    # --- search (docs/search.md) ------------------------------------------------------------------

    def blind_index(self, value: bytes, *, context: bytes) -> bytes:
        """What to store beside the token, to find the row by its value: 20 bytes, the same for equal values.

        ``context`` is the column, such as ``b"users.email"``, and **never the row**: two rows are to have one
        index. Normalise the value first (`byok.normalise`): ``Ada`` and ``ada`` have nothing in common.

        Raises:
            EmptyContext, EmptyValue, NotSearchable, UnknownTenant, UnknownKey, AccessStopped, Unavailable.
        """
        return compute_index(self._desk, self._tenant, self._key, value, context)

    def blind_indexes(self, value: bytes, *, context: bytes) -> list[bytes]:
        """What to look for: ``WHERE email_index IN (…)``. One index, or two while a rebuild is under way.

        Raises:
            As `blind_index`.
        """
        return compute_indexes(self._desk, self._tenant, self._key, value, context)

    def needs_reindex(self, index: bytes) -> bool:
        """Whether an index is under another version than new ones are: a rebuild has to compute it anew.

        Raises:
            InvalidInput: it is no blind index; NotSearchable, UnknownTenant, UnknownKey, AccessStopped,
                Unavailable.
        """
        current = self._desk.index_versions(self._tenant, self._key).current
        return blind_index.index_version(index) != current


def token_info(token: bytes) -> TokenInfo:
    """What a token tells without any key. Nobody vouches for it: only decryption does.

    Raises:
        CannotDecrypt: it is no token.
    """
    try:
        parsed = parse_token(token)
    except MalformedToken:
        raise cannot_decrypt() from None
    return TokenInfo(parsed.version_number, len(token) - OVERHEAD_BYTES)
