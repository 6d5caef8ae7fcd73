"""The simulator's memory on disk: keys with their material, and roles. Wrapped keys survive a restart."""

import json
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moto.iam.models import Role, iam_backends
from moto.kms.models import Key, kms_backends

from byok.simulator.keys import KeyStore

_KEY_FIELDS = (
    "id",
    "arn",
    "key_state",
    "enabled",
    "policy",
    "key_rotation_status",
    "creation_date",
    "origin",
)


class StateFile:
    """A JSON file, readable by its owner only."""

    def __init__(self, path: Path, keys: KeyStore) -> None:
        self._path = path
        self._keys = keys
        self._lock = threading.Lock()

    def save(self) -> None:
        """Write all keys and roles, all or nothing."""
        with self._lock:
            content = json.dumps(
                {"keys": [self._dump_key(key) for key in self._keys.all()], "roles": _roles()}
            )
            scratch = self._path.with_suffix(".new")
            descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(content)
            scratch.replace(self._path)

    def load(self) -> None:
        """Put back what was saved, if anything was."""
        if not self._path.exists():
            return
        content = json.loads(self._path.read_text())
        for saved in content["keys"]:
            self._load_key(saved)
        for saved in content["roles"]:
            _load_role(saved)

    def _dump_key(self, key: Key) -> dict[str, Any]:
        backend = kms_backends[key.account_id][key.region]
        return {
            "account": key.account_id,
            "region": key.region,
            "usage": key.key_usage,
            "spec": key.key_spec,
            "description": key.description,
            "fields": {name: getattr(key, name) for name in _KEY_FIELDS},
            "deletion_date": key.deletion_date and key.deletion_date.timestamp(),
            "aliases": [alias.alias_name for alias in backend.list_aliases(key.id)],
            "tags": backend.list_resource_tags(key.id)["Tags"],
            "material": self._keys.dump(key),
        }

    def _load_key(self, saved: dict[str, Any]) -> None:
        backend = kms_backends[saved["account"]][saved["region"]]
        key = backend.create_key(
            policy=saved["fields"]["policy"],
            key_usage=saved["usage"],
            key_spec=saved["spec"],
            description=saved["description"],
            tags=None,
        )
        del backend.keys[key.id]
        for name, value in saved["fields"].items():
            setattr(key, name, value)
        if saved["deletion_date"] is not None:
            key.deletion_date = datetime.fromtimestamp(saved["deletion_date"], UTC).replace(tzinfo=None)
        backend.keys[key.id] = key
        backend.tag_resource(key.id, {tag["TagKey"]: tag["TagValue"] for tag in saved["tags"]})
        for alias in saved["aliases"]:
            backend.create_alias(key.id, alias)
        self._keys.load(key, saved["material"])


def _roles() -> list[dict[str, Any]]:
    roles: list[Role] = [
        role
        for account in list(iam_backends.values())
        for backend in list(account.values())
        for role in list(backend.roles.values())
    ]
    return [
        {
            "account": role.account_id,
            "id": role.id,
            "name": role.name,
            "trust_policy": role.assume_role_policy_document,
            "policies": role.policies,
            "max_session_seconds": role.max_session_duration,
        }
        for role in roles
    ]


def _load_role(saved: dict[str, Any]) -> None:
    backend = iam_backends[saved["account"]]["aws"]
    role = backend.create_role(
        role_name=saved["name"],
        assume_role_policy_document=saved["trust_policy"],
        path="/",
        permissions_boundary=None,
        description="",
        tags=[],
        max_session_duration=saved["max_session_seconds"],
    )
    del backend.roles[role.id]
    role.id = saved["id"]
    role.policies = saved["policies"]
    backend.roles[role.id] = role
