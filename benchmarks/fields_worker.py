"""The process of `benchmarks.fields` that encrypts: times what it is ordered to, interleaved with the floor.

Imports each peer only when it measures it, so that it also runs in an environment that has one and nothing
else of this project. Takes its order as a JSON document on standard input; answers on standard output.
"""

import importlib
import json
import os
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Any

from benchmarks.kms_requests_worker import CachingCmm, Hierarchical, Tenant

CONTEXT = b"users.email:00000000000000000042"  # 32 bytes
SLICE_SECONDS = 0.012  # of one measurement
BATCH = 1000

Loop = Callable[[int, bytes], None]  # so many operations on a value or a token


class Floor:
    """``cryptography``'s AESGCM and nothing else: one key object, a random IV each, kept before the body."""

    def __init__(self, _: Tenant) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._key = AESGCM(os.urandom(32))

    def sample(self, value: bytes) -> bytes:
        iv = os.urandom(12)
        return iv + self._key.encrypt(iv, value, CONTEXT)

    def encrypt(self, count: int, value: bytes) -> None:
        key, urandom, context = self._key, os.urandom, CONTEXT
        for _ in repeat(None, count):
            iv = urandom(12)
            iv + key.encrypt(iv, value, context)  # the blob, as it would be stored

    def decrypt(self, count: int, blob: bytes) -> None:
        key, context = self._key, CONTEXT
        for _ in repeat(None, count):
            key.decrypt(blob[:12], blob[12:], context)


class Byok:
    """This project, by its public API, with a live lease."""

    def __init__(self, tenant: Tenant) -> None:
        from byok import connect

        self._cipher = connect().cipher(tenant.name, "pii")

    def sample(self, value: bytes) -> bytes:
        return self._cipher.encrypt(value, context=CONTEXT)

    def encrypt(self, count: int, value: bytes) -> None:
        encrypt, context = self._cipher.encrypt, CONTEXT
        for _ in repeat(None, count):
            encrypt(value, context=context)

    def decrypt(self, count: int, token: bytes) -> None:
        decrypt, context = self._cipher.decrypt, CONTEXT
        for _ in repeat(None, count):
            decrypt(token, context=context)

    def encrypt_many(self, count: int, value: bytes) -> None:
        items = [(value, CONTEXT)] * BATCH
        for _ in repeat(None, count // BATCH):
            self._cipher.encrypt_many(items)


class _Tink:
    template: str

    def __init__(self, _: Tenant) -> None:
        import tink
        from tink import aead

        aead.register()
        handle = tink.new_keyset_handle(getattr(aead.aead_key_templates, self.template))
        self._aead = handle.primitive(aead.Aead)

    def sample(self, value: bytes) -> bytes:
        token: bytes = self._aead.encrypt(value, CONTEXT)
        return token

    def encrypt(self, count: int, value: bytes) -> None:
        encrypt, context = self._aead.encrypt, CONTEXT
        for _ in repeat(None, count):
            encrypt(value, context)

    def decrypt(self, count: int, token: bytes) -> None:
        decrypt, context = self._aead.decrypt, CONTEXT
        for _ in repeat(None, count):
            decrypt(token, context)


class TinkGcm(_Tink):
    """Tink, AES-256-GCM: its fastest; random 96-bit nonces under one key."""

    template = "AES256_GCM"


class TinkXaes(_Tink):
    """Tink, XAES-256-GCM: the cipher and the format of byok."""

    template = "XAES_256_GCM_192_BIT_NONCE"


class Fernet:
    """``cryptography``'s Fernet. It has no associated data."""

    def __init__(self, _: Tenant) -> None:
        from cryptography.fernet import Fernet as Recipe

        self._fernet = Recipe(Recipe.generate_key())

    def sample(self, value: bytes) -> bytes:
        return self._fernet.encrypt(value)

    def encrypt(self, count: int, value: bytes) -> None:
        encrypt = self._fernet.encrypt
        for _ in repeat(None, count):
            encrypt(value)

    def decrypt(self, count: int, token: bytes) -> None:
        decrypt = self._fernet.decrypt
        for _ in repeat(None, count):
            decrypt(token)


class Asherah:
    """Asherah with a session that is kept, static KMS and metastore in memory. It has no associated data."""

    def __init__(self, tenant: Tenant) -> None:
        import asherah

        config = {
            "ServiceName": "bench",
            "ProductID": "bench",
            "Metastore": "memory",
            "KMS": "static",
            "StaticMasterKeyHex": os.urandom(32).hex(),
        }
        self._factory = asherah.SessionFactory(config)
        self._session = self._factory.get_session(tenant.name)

    def sample(self, value: bytes) -> bytes:
        token: bytes = self._session.encrypt_bytes(value)
        return token

    def encrypt(self, count: int, value: bytes) -> None:
        encrypt = self._session.encrypt_bytes
        for _ in repeat(None, count):
            encrypt(value)

    def decrypt(self, count: int, token: bytes) -> None:
        decrypt = self._session.decrypt_bytes
        for _ in repeat(None, count):
            decrypt(token)


class _Esdk:
    system: Callable[[list[Tenant]], CachingCmm | Hierarchical]

    def __init__(self, tenant: Tenant) -> None:
        self._tenant = tenant
        self._system = type(self).system([tenant])

    def sample(self, value: bytes) -> bytes:
        return self._system.encrypt(self._tenant, value, CONTEXT.decode())

    def encrypt(self, count: int, value: bytes) -> None:
        context = CONTEXT.decode()
        for _ in repeat(None, count):
            self._system.encrypt(self._tenant, value, context)

    def decrypt(self, count: int, token: bytes) -> None:
        context = CONTEXT.decode()
        for _ in repeat(None, count):
            self._system.decrypt(self._tenant, token, context)


class EsdkCaching(_Esdk):
    """AWS Encryption SDK with its caching materials manager, unsigned, one encryption context."""

    system = CachingCmm


class EsdkHierarchical(_Esdk):
    """AWS Encryption SDK with its hierarchical keyring."""

    system = Hierarchical


SYSTEMS: dict[str, tuple[str, type[Any]]] = {  # the package that it needs, and what measures it
    "floor": ("cryptography", Floor),
    "byok": ("byok", Byok),
    "tink-gcm": ("tink", TinkGcm),
    "tink-xaes": ("tink", TinkXaes),
    "fernet": ("cryptography", Fernet),
    "asherah": ("asherah", Asherah),
    "caching-cmm": ("aws_encryption_sdk", EsdkCaching),
    "hierarchical": ("aws_cryptographic_material_providers", EsdkHierarchical),
}


def seconds(loop: Loop, count: int, value: bytes, threads: int) -> float:
    """How long ``threads`` threads take that do ``count`` operations each at the same time."""
    if threads == 1:
        began = time.perf_counter()
        loop(count, value)
        return time.perf_counter() - began
    start = threading.Barrier(threads + 1)

    def work() -> None:
        start.wait()
        loop(count, value)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    start.wait()
    began = time.perf_counter()
    for worker in workers:
        worker.join()
    return time.perf_counter() - began


def calibrated(loop: Loop, value: bytes, least: int = 1) -> int:
    """How many operations fill a slice, once what is fetched at first is there."""
    for _ in range(3):
        loop(least, value)
    count = least
    while (took := seconds(loop, count, value, 1)) < SLICE_SECONDS / 4:
        count *= 4
    return max(least, int(count * SLICE_SECONDS / took) // least * least)


def interleaved(loops: dict[str, tuple[Loop, bytes, int, int]], rounds: int) -> dict[str, list[float]]:
    """Seconds an operation, by name, in each round; in another order each time."""
    taken: dict[str, list[float]] = {name: [] for name in loops}
    order = list(loops)
    for _ in range(rounds):
        random.shuffle(order)
        for name in order:
            loop, value, count, threads = loops[name]
            taken[name].append(seconds(loop, count, value, threads) / (count * threads))
    return taken


def figures(own: list[float], floor: list[float]) -> dict[str, float]:
    ratios = [one / other for one, other in zip(own, floor, strict=True)]
    return {"microseconds": statistics.median(own) * 1e6, "ratio": statistics.median(ratios)}


def measure(order: dict[str, Any]) -> Iterator[dict[str, Any]]:
    tenant = Tenant(**order["tenant"])
    systems = {name: SYSTEMS[name][1](tenant) for name in ["floor", *order["systems"]]}
    for size in order["sizes"]:
        value = random.randbytes(size)
        for direction in ("encrypt", "decrypt"):
            loops: dict[str, tuple[Loop, bytes, int, int]] = {}
            for name, system in systems.items():
                given = value if direction == "encrypt" else system.sample(value)
                loop: Loop = getattr(system, direction)
                loops[name] = (loop, given, calibrated(loop, given), 1)
            taken = interleaved(loops, order["rounds"])
            for name in systems:
                yield {"system": name, "do": direction, "bytes": size} | figures(taken[name], taken["floor"])
    yield from _in_threads(systems, order)
    if "byok" in systems:
        yield from _in_batches(systems, order["rounds"])


def _in_threads(systems: dict[str, Any], order: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Each system against itself: four threads in sum, against one."""
    value = random.randbytes(32)
    for name, system in systems.items():
        for direction in ("encrypt", "decrypt"):
            given = value if direction == "encrypt" else system.sample(value)
            loop: Loop = getattr(system, direction)
            count = calibrated(loop, given)
            # Long enough for the interpreter to let each thread run several times (5 ms each).
            taken = interleaved(
                {"one": (loop, given, 8 * count, 1), "four": (loop, given, 2 * count, 4)},
                order["rounds"] // 2,
            )
            one_four = [one / four for one, four in zip(taken["one"], taken["four"], strict=True)]
            yield {"system": name, "do": f"{direction}, 4 threads", "speed": statistics.median(one_four)}


def _in_batches(systems: dict[str, Any], rounds: int) -> Iterator[dict[str, Any]]:
    value = random.randbytes(32)
    byok, floor = systems["byok"], systems["floor"]
    loops = {
        "byok": (byok.encrypt_many, value, calibrated(byok.encrypt_many, value, BATCH), 1),
        "floor": (floor.encrypt, value, calibrated(floor.encrypt, value), 1),
    }
    taken = interleaved(loops, rounds)
    yield {"system": "byok", "do": "encrypt_many", "bytes": 32} | figures(taken["byok"], taken["floor"])


def main() -> None:
    order = json.loads(sys.stdin.readline())
    missing = {}
    for name in order["systems"]:
        try:
            importlib.import_module(SYSTEMS[name][0])
        except ModuleNotFoundError as error:
            missing[name] = error.name
    print(json.dumps({"missing": missing}), flush=True)
    order["systems"] = [name for name in order["systems"] if name not in missing]
    if "hierarchical" in order["systems"]:
        from benchmarks.kms_requests_worker import create_branch_keys

        order["tenant"]["branch_key_id"] = create_branch_keys([order["tenant"]["kms_key_arn"]])[0]
    if order["systems"]:
        for result in measure(order):
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
