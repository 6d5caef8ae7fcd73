"""A stand-in for KMS and STS that is fast enough not to be what a benchmark measures.

    python -m benchmarks.kms_stub --port 4599 --latency-ms 10 --processes 2

It answers in the shapes that boto3 reads, remembers nothing and enforces one thing: a blob opens under the
KMS key and the encryption context that it was made for, else InvalidCiphertextException. No identity, no
policy, no key state: for those there is the simulator. A secret is derived from its blob, so any of several
processes on one port (SO_REUSEPORT) opens what another one made. Replies wait for the latency without keeping
anybody else waiting. ``/_stub/counts`` tells what all processes were asked since the start, and the most
requests in flight in each, added up; ``/_stub/latency/MS`` sets the latency of all.
"""

import argparse
import asyncio
import base64
import ctypes
import hashlib
import json
import multiprocessing
import multiprocessing.sharedctypes
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs
from uuid import uuid4

OPERATIONS = ("GenerateDataKeyWithoutPlaintext", "Decrypt", "DescribeKey", "AssumeRole")
_BLOB_BYTES, _TAG_BYTES = 184, 32  # AWS's blob of a 256-bit key has 184 bytes
_SEED = b"benchmarks.kms_stub"  # no secret: nothing that it protects is one
_CREATED_AT = 1_700_000_000
_STS_REPLY = """<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>\
<AssumedRoleUser><AssumedRoleId>AROASTUB:{session}</AssumedRoleId><Arn>{role}/{session}</Arn></AssumedRoleUser>\
<Credentials><AccessKeyId>ASIASTUB000000000000</AccessKeyId><SecretAccessKey>stub</SecretAccessKey>\
<SessionToken>stub</SessionToken><Expiration>{expires:%Y-%m-%dT%H:%M:%SZ}</Expiration></Credentials>\
</AssumeRoleResult><ResponseMetadata><RequestId>{request}</RequestId></ResponseMetadata></AssumeRoleResponse>"""


class _Refused(Exception):
    """A reply with an error; its argument is AWS's code."""


class _Shared(ctypes.Structure):
    """What the processes share; each writes its own, but for the latency."""

    _fields_ = [
        *((name, ctypes.c_uint64) for name in (*OPERATIONS, "in_flight", "most_in_flight")),
        ("latency_seconds", ctypes.c_double),
    ]


def _binding(parameters: dict[str, Any]) -> bytes:
    context = parameters.get("EncryptionContext", {})
    return json.dumps([parameters["KeyId"], sorted(context.items())]).encode()


def _digest(purpose: bytes, nonce: bytes, binding: bytes) -> bytes:
    return hashlib.blake2b(nonce + binding, key=_SEED, person=purpose, digest_size=32).digest()


def _generate(parameters: dict[str, Any]) -> dict[str, Any]:
    nonce = os.urandom(_BLOB_BYTES - _TAG_BYTES)
    blob = nonce + _digest(b"tag", nonce, _binding(parameters))
    return {"KeyId": parameters["KeyId"], "CiphertextBlob": base64.b64encode(blob).decode()}


def _decrypt(parameters: dict[str, Any]) -> dict[str, Any]:
    blob, binding = base64.b64decode(parameters["CiphertextBlob"]), _binding(parameters)
    nonce, tag = blob[:-_TAG_BYTES], blob[-_TAG_BYTES:]
    if tag != _digest(b"tag", nonce, binding):
        raise _Refused("InvalidCiphertextException")
    secret = base64.b64encode(_digest(b"secret", nonce, binding)).decode()
    return {"KeyId": parameters["KeyId"], "Plaintext": secret, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}


def _describe(parameters: dict[str, Any]) -> dict[str, Any]:
    arn = parameters["KeyId"]
    metadata = {
        "AWSAccountId": arn.split(":")[4],
        "KeyId": arn.rpartition("/")[2],
        "Arn": arn,
        "CreationDate": _CREATED_AT,
        "Enabled": True,
        "KeyUsage": "ENCRYPT_DECRYPT",
        "KeyState": "Enabled",
        "Origin": "AWS_KMS",
        "KeyManager": "CUSTOMER",
        "KeySpec": "SYMMETRIC_DEFAULT",
        "EncryptionAlgorithms": ["SYMMETRIC_DEFAULT"],
        "MultiRegion": False,
    }
    return {"KeyMetadata": metadata}


_HANDLERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "GenerateDataKeyWithoutPlaintext": _generate,
    "Decrypt": _decrypt,
    "DescribeKey": _describe,
}


def _utc_now() -> datetime:
    return datetime.now(UTC)  # noqa: TID251  # a program of its own


def _assume_role(body: bytes) -> bytes:
    asked = parse_qs(body.decode())
    return _STS_REPLY.format(
        session=asked["RoleSessionName"][0],
        role=asked["RoleArn"][0],
        expires=_utc_now() + timedelta(seconds=int(asked.get("DurationSeconds", ["3600"])[0])),
        request=uuid4(),
    ).encode()


def _reply(status: str, body: bytes, content_type: str = "application/x-amz-json-1.1") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}x-amzn-RequestId: {uuid4()}\r\n\r\n".encode() + body


class _Connection(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self, shared: "ctypes.Array[_Shared]", own: int) -> None:
        self._shared = shared
        self._own = shared[own]
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            first, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
            pairs = (line.partition(":") for line in lines)
            headers = {name.lower(): value.strip() for name, _, value in pairs}
            whole = end + 4 + int(headers.get("content-length", "0"))
            if len(self._buffer) < whole:
                return
            body, self._buffer = self._buffer[end + 4 : whole], self._buffer[whole:]
            if first.startswith("GET /_stub/"):
                self._transport.write(_reply("200 OK", json.dumps(self._control(first)).encode()))
            else:
                self._answer(headers.get("x-amz-target", "").rpartition(".")[2] or "AssumeRole", body)

    def _control(self, request_line: str) -> dict[str, float]:
        _, what, *value = request_line.split()[1].strip("/").split("/")
        if what == "latency":
            for one in self._shared:
                one.latency_seconds = float(value[0]) / 1000
                one.most_in_flight = 0
        names = (*OPERATIONS, "in_flight", "most_in_flight")
        return {name: sum(getattr(one, name) for one in self._shared) for name in names}

    def _answer(self, operation: str, body: bytes) -> None:
        own = self._own
        if operation in OPERATIONS:
            setattr(own, operation, getattr(own, operation) + 1)
        reply = _aws(operation, body)
        if not own.latency_seconds:
            self._transport.write(reply)
            return
        own.in_flight += 1
        own.most_in_flight = max(own.most_in_flight, own.in_flight)
        self._loop.call_later(own.latency_seconds, self._answer_late, reply)

    def _answer_late(self, reply: bytes) -> None:
        self._own.in_flight -= 1
        self._transport.write(reply)


def _aws(operation: str, body: bytes) -> bytes:
    try:
        if operation == "AssumeRole":
            return _reply("200 OK", _assume_role(body), "text/xml")
        return _reply("200 OK", json.dumps(_HANDLERS[operation](json.loads(body))).encode())
    except _Refused as refused:
        return _reply("400 Bad Request", json.dumps({"__type": refused.args[0]}).encode())
    except (KeyError, ValueError):  # an operation or parameters that nothing of byok's benchmarks sends
        return _reply("400 Bad Request", json.dumps({"__type": "ValidationException"}).encode())


async def _serve(port: int, shared: "ctypes.Array[_Shared]", own: int) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    server = await loop.create_server(
        lambda: _Connection(shared, own), "127.0.0.1", port, reuse_port=True, backlog=512
    )
    async with server:
        await ended.wait()


def _serve_process(port: int, shared: "ctypes.Array[_Shared]", own: int) -> None:
    asyncio.run(_serve(port, shared, own))


def serve(port: int, latency_seconds: float, processes: int) -> None:
    """Serve until SIGTERM."""
    shared = multiprocessing.sharedctypes.RawArray(_Shared, processes)
    for one in shared:
        one.latency_seconds = latency_seconds
    fork = multiprocessing.get_context("fork")
    others = [
        fork.Process(target=_serve_process, args=(port, shared, own), daemon=True)
        for own in range(1, processes)
    ]
    for other in others:
        other.start()
    _serve_process(port, shared, 0)
    for other in others:
        other.terminate()


def ceiling(port: int, stub_cpu_seconds: Callable[[], float], seconds: float = 2.0) -> float:
    """Requests per second of its CPU time that the stub on ``port`` answers: what one core can do.

    Asked by 32 connections that send the next request as soon as they have their reply, without botocore.
    """
    body = json.dumps(
        {"KeyId": "arn:aws:kms:eu-central-1:222222222222:key/x", "EncryptionContext": {"a": "b"}}
    )
    head = "POST / HTTP/1.1\r\nHost: stub\r\nX-Amz-Target: TrentService.GenerateDataKeyWithoutPlaintext\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(32)]
    answered, began = 0, stub_cpu_seconds()
    deadline = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client, selectors.EVENT_READ)
            client.sendall(request)
        while time.monotonic() < deadline:
            for ready, _ in selector.select(timeout=1):
                clients_socket = ready.fileobj
                assert isinstance(clients_socket, socket.socket)
                clients_socket.recv(65536)
                answered += 1
                clients_socket.sendall(request)
    for client in clients:
        client.close()
    return answered / (stub_cpu_seconds() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    serve(arguments.port, arguments.latency_ms / 1000, arguments.processes)


if __name__ == "__main__":
    main()
