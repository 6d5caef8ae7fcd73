"""One of the processes of `benchmarks.kms_requests`: takes orders on standard input, a JSON document a line.

Imports what it measures only when it is told which system that is, so that it also runs in an environment
that has one of the peers and nothing else. What it encrypts goes into a folder that all processes share.
"""

import base64
import hashlib
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

TTL_SECONDS = 3600
CACHE_ENTRIES = 1000  # more than one tenant's data keys of all processes: nothing is evicted
KEY_STORE = "kms-requests"
PACKAGES = {
    "byok": ("byok",),
    "caching-cmm": ("aws_encryption_sdk",),
    "hierarchical": ("aws_encryption_sdk", "aws_cryptographic_material_providers"),
}


@dataclass(frozen=True)
class Tenant:
    """A tenant as the measured system knows it; ``branch_key_id`` is for the hierarchical keyring."""

    name: str
    kms_key_arn: str
    branch_key_id: str = ""


class System(Protocol):
    """What is measured. Made for all tenants before the start, without a KMS request."""

    def encrypt(self, tenant: Tenant, plaintext: bytes, context: str) -> bytes: ...

    def decrypt(self, tenant: Tenant, ciphertext: bytes, context: str) -> bytes: ...


class Byok:
    """This project, by its public API. The context is another one for each value."""

    def __init__(self, tenants: list[Tenant]) -> None:
        from byok import connect

        vault = connect()
        self._ciphers = {tenant.name: vault.cipher(tenant.name, "pii") for tenant in tenants}

    def encrypt(self, tenant: Tenant, plaintext: bytes, context: str) -> bytes:
        return self._ciphers[tenant.name].encrypt(plaintext, context=context.encode())

    def decrypt(self, tenant: Tenant, ciphertext: bytes, context: str) -> bytes:
        return self._ciphers[tenant.name].decrypt(ciphertext, context=context.encode())


class CachingCmm:
    """AWS Encryption SDK with a caching materials manager for each tenant.

    The encryption context is one for each tenant: under another one for each value its cache never hits.
    """

    def __init__(self, tenants: list[Tenant]) -> None:
        import aws_encryption_sdk as esdk
        import botocore.session

        self._client = esdk.EncryptionSDKClient()
        self._algorithm = esdk.Algorithm.AES_256_GCM_HKDF_SHA512_COMMIT_KEY
        session = botocore.session.Session()
        self._managers = {
            tenant.name: esdk.CachingCryptoMaterialsManager(
                cache=esdk.LocalCryptoMaterialsCache(CACHE_ENTRIES),
                max_age=float(TTL_SECONDS),
                master_key_provider=esdk.StrictAwsKmsMasterKeyProvider(
                    key_ids=[tenant.kms_key_arn], botocore_session=session
                ),
            )
            for tenant in tenants
        }

    def encrypt(self, tenant: Tenant, plaintext: bytes, context: str) -> bytes:  # noqa: ARG002
        ciphertext: bytes
        ciphertext, _ = self._client.encrypt(
            source=plaintext,
            materials_manager=self._managers[tenant.name],
            algorithm=self._algorithm,
            encryption_context={"tenant": tenant.name},
        )
        return ciphertext

    def decrypt(self, tenant: Tenant, ciphertext: bytes, context: str) -> bytes:  # noqa: ARG002
        plaintext: bytes
        plaintext, _ = self._client.decrypt(source=ciphertext, materials_manager=self._managers[tenant.name])
        return plaintext


class Hierarchical:
    """AWS Encryption SDK with a hierarchical keyring and a branch key for each tenant.

    The encryption context is another one for each value, as with byok: it costs no request here.
    """

    def __init__(self, tenants: list[Tenant]) -> None:
        import aws_encryption_sdk as esdk

        self._client = esdk.EncryptionSDKClient()
        self._algorithm = esdk.Algorithm.AES_256_GCM_HKDF_SHA512_COMMIT_KEY
        clients = _clients()
        self._keyrings = {tenant.name: _keyring(tenant, clients) for tenant in tenants}

    def encrypt(self, tenant: Tenant, plaintext: bytes, context: str) -> bytes:
        ciphertext: bytes
        ciphertext, _ = self._client.encrypt(
            source=plaintext,
            keyring=self._keyrings[tenant.name],
            algorithm=self._algorithm,
            encryption_context={"tenant": tenant.name, "context": context},
        )
        return ciphertext

    def decrypt(self, tenant: Tenant, ciphertext: bytes, context: str) -> bytes:
        plaintext: bytes
        plaintext, header = self._client.decrypt(source=ciphertext, keyring=self._keyrings[tenant.name])
        assert header.encryption_context["context"] == context
        return plaintext


SYSTEMS: dict[str, Callable[[list[Tenant]], System]] = {
    "byok": Byok,
    "caching-cmm": CachingCmm,
    "hierarchical": Hierarchical,
}


def _clients() -> dict[str, Any]:
    """KMS as the vendor's worker role; DynamoDB as the administrator whose account holds the key store."""
    import boto3

    session = boto3.session.Session()
    administrator: dict[str, Any] = {
        "aws_access_key_id": os.environ["KEY_STORE_ACCESS_KEY_ID"],  # noqa: TID251  # not byok's
        "aws_secret_access_key": "not-a-secret",
    }
    return {"kms_client": session.client("kms"), "ddb_client": session.client("dynamodb", **administrator)}


def _key_store(kms_key_arn: str, clients: dict[str, Any]) -> Any:  # noqa: ANN401  # an optional package's
    from aws_cryptographic_material_providers.keystore import KeyStore
    from aws_cryptographic_material_providers.keystore.config import KeyStoreConfig
    from aws_cryptographic_material_providers.keystore.models import KMSConfigurationKmsKeyArn

    return KeyStore(
        config=KeyStoreConfig(
            ddb_table_name=KEY_STORE,
            logical_key_store_name=KEY_STORE,
            kms_configuration=KMSConfigurationKmsKeyArn(value=kms_key_arn),
            **clients,
        )
    )


def _keyring(tenant: Tenant, clients: dict[str, Any]) -> Any:  # noqa: ANN401  # an optional package's
    from aws_cryptographic_material_providers.mpl import AwsCryptographicMaterialProviders
    from aws_cryptographic_material_providers.mpl.config import MaterialProvidersConfig
    from aws_cryptographic_material_providers.mpl.models import (
        CacheTypeDefault,
        CreateAwsKmsHierarchicalKeyringInput,
        DefaultCache,
    )

    return AwsCryptographicMaterialProviders(
        config=MaterialProvidersConfig()
    ).create_aws_kms_hierarchical_keyring(
        input=CreateAwsKmsHierarchicalKeyringInput(
            key_store=_key_store(tenant.kms_key_arn, clients),
            branch_key_id=tenant.branch_key_id,
            ttl_seconds=TTL_SECONDS,
            cache=CacheTypeDefault(value=DefaultCache(entry_capacity=CACHE_ENTRIES)),
        )
    )


def create_branch_keys(kms_key_arns: list[str]) -> list[str]:
    """Make the key store's table and a branch key under each KMS key; return their ids."""
    from aws_cryptographic_material_providers.keystore.models import CreateKeyInput, CreateKeyStoreInput

    clients = _clients()
    stores = [_key_store(arn, clients) for arn in kms_key_arns]
    stores[0].create_key_store(CreateKeyStoreInput())
    return [store.create_key(CreateKeyInput()).branch_key_identifier for store in stores]


class Worker:
    """Process ``number`` of ``processes``."""

    def __init__(self, system: str, order: dict[str, Any]) -> None:
        self._number, self._processes = int(order["number"]), int(order["processes"])
        self._encryptions, self._kept = int(order["encryptions"]), int(order["kept"])
        self._folder = Path(order["folder"])
        self._tenants = [Tenant(**one) for one in order["tenants"]]
        self._system = SYSTEMS[system](self._tenants)
        self._others: dict[int, dict[str, list[str]]] = {}

    def encrypt(self) -> int:
        """Encrypt for all tenants in turns; leave a sample, spread evenly, for the others to read."""
        step = self._encryptions // self._kept
        kept: dict[str, list[str]] = {tenant.name: [] for tenant in self._tenants}
        count = 0
        for index in range(self._encryptions):
            for tenant in self._tenants:
                plaintext, context = _value(self._number, tenant.name, index)
                ciphertext = self._system.encrypt(tenant, plaintext, context)
                count += 1
                if index % step == 0:
                    kept[tenant.name].append(base64.b64encode(ciphertext).decode())
        self._file(self._number).write_text(json.dumps(kept))
        return count

    def decrypt(self, start: int, stop: int) -> int:
        """Read the values ``start`` to ``stop`` of the sample of every other process, for all tenants."""
        step = self._encryptions // self._kept
        count = 0
        for sample in range(start, stop):
            for tenant in self._tenants:
                for distance in range(1, self._processes):
                    writer = (self._number + distance) % self._processes
                    plaintext, context = _value(writer, tenant.name, sample * step)
                    ciphertext = base64.b64decode(self._of(writer)[tenant.name][sample])
                    assert self._system.decrypt(tenant, ciphertext, context) == plaintext
                    count += 1
        return count

    def _of(self, writer: int) -> dict[str, list[str]]:
        if writer not in self._others:
            self._others[writer] = json.loads(self._file(writer).read_text())
        return self._others[writer]

    def _file(self, number: int) -> Path:
        return self._folder / f"{number}.json"


def _value(writer: int, tenant: str, index: int) -> tuple[bytes, str]:
    """32 bytes and a context that any process can tell."""
    context = f"users.email:{writer}.{index}"
    return hashlib.sha256(f"{tenant} {context}".encode()).digest(), context


def _missing(system: str) -> str | None:
    for package in PACKAGES[system]:
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as error:
            return error.name
    return None


def _say(reply: dict[str, Any]) -> None:
    print(json.dumps(reply), flush=True)


def _carry_out(worker: Worker, order: dict[str, Any]) -> int:
    time.sleep(max(0.0, order["at_monotonic_seconds"] - time.monotonic()))
    return worker.encrypt() if order["do"] == "encrypt" else worker.decrypt(order["start"], order["stop"])


def main() -> None:
    system = sys.argv[1]
    if (missing := _missing(system)) is not None:
        _say({"missing": missing})
        return
    _say({"ready": True})
    worker: Worker | None = None
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "create-branch-keys":
            _say({"branch_key_ids": create_branch_keys(order["kms_key_arns"])})
        elif order["do"] == "open":
            worker = Worker(system, order)
            _say({"opened": True})
        else:
            assert worker is not None
            _say({"operations": _carry_out(worker, order)})


if __name__ == "__main__":
    main()
