"""Streams without a cipher: under a given secret, and as stock Tink makes and opens them."""

import io
import itertools
from typing import Any

from byok.core import segments
from byok.core.segments import STREAM_HEADER_BYTES, StreamHeader
from byok.crypto.hazmat import SecretBytes
from byok.services.streams import OpeningReader, copy_opened, sealing_writer

SALT, NONCE_PREFIX = bytes(range(32)), bytes(range(32, 39))
HEADER = StreamHeader(7, SALT, NONCE_PREFIX)
SMALL_SEGMENT_BYTES = 128  # for tests that need many segments, by monkeypatching `segments.SEGMENT_BYTES`


def seal(secret: bytes, plaintext: bytes, context: bytes, header: StreamHeader = HEADER) -> bytes:
    """A whole stream."""
    sink = io.BytesIO()
    with sealing_writer(lambda number: SecretBytes(secret), header, context, sink) as writer:
        writer.write(plaintext)
    return sink.getvalue()


def open_whole(secret: bytes, stream: bytes, context: bytes) -> bytes:
    """The plaintext of a whole stream."""
    sink = io.BytesIO()
    copy_opened(OpeningReader(lambda number: SecretBytes(secret), context, io.BytesIO(stream)), sink)
    return sink.getvalue()


def parts_of(stream: bytes) -> list[bytes]:
    """The header, then the segments."""
    size = segments.SEGMENT_BYTES
    ends = [STREAM_HEADER_BYTES, *range(5 + size, len(stream), size), len(stream)]
    return [stream[begin:end] for begin, end in itertools.pairwise([0, *ends])]


class KeptBytesIO(io.BytesIO):
    """Stays readable after Tink has closed it."""

    def close(self) -> None:
        pass


def tink_primitive(secret: bytes) -> Any:
    """Tink's AES256-GCM-HKDF-1MB under a key."""
    import tink
    from tink import cleartext_keyset_handle, streaming_aead
    from tink.proto import aes_gcm_hkdf_streaming_pb2, common_pb2, tink_pb2

    streaming_aead.register()
    params = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingParams(
        ciphertext_segment_size=2**20, derived_key_size=32, hkdf_hash_type=common_pb2.SHA256
    )
    key = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKey(version=0, params=params, key_value=secret)
    key_data = tink_pb2.KeyData(
        type_url="type.googleapis.com/google.crypto.tink.AesGcmHkdfStreamingKey",
        value=key.SerializeToString(),
        key_material_type=tink_pb2.KeyData.SYMMETRIC,
    )
    keyset = tink_pb2.Keyset(
        primary_key_id=1,
        key=[
            tink_pb2.Keyset.Key(
                key_data=key_data, status=tink_pb2.ENABLED, key_id=1, output_prefix_type=tink_pb2.RAW
            )
        ],
    )
    handle = cleartext_keyset_handle.read(tink.BinaryKeysetReader(keyset.SerializeToString()))
    return handle.primitive(streaming_aead.StreamingAead)


def tink_seal(
    secret: bytes, plaintext: bytes, context: bytes, version_number: int = HEADER.version_number
) -> bytes:
    """A stream of Tink's behind our five bytes."""
    sink = KeptBytesIO()
    with tink_primitive(secret).new_encrypting_stream(sink, context) as writer:
        writer.write(plaintext)
    return b"\x02" + version_number.to_bytes(4) + sink.getvalue()


def tink_open(secret: bytes, stream: bytes, context: bytes) -> bytes:
    """What Tink reads of a stream of ours."""
    plaintext: bytes = tink_primitive(secret).new_decrypting_stream(io.BytesIO(stream[5:]), context).read()
    return plaintext
