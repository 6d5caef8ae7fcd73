"""IAM's changes take their time: who asks sees the old policies until a change has propagated."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from moto.iam.models import Role
from moto.kms.models import Key

Document = dict[str, Any]


@dataclass(frozen=True)
class RolePolicies:
    """What a role's policies say; a role that is not there has no trust policy."""

    trust: Document | None = None
    permissions: list[Document] = field(default_factory=list)


class Propagation:
    """Policies as the services see them. ``delay_seconds`` is 0 until a test orders otherwise."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._before: dict[str, tuple[datetime, Any]] = {}
        self.delay_seconds = 0.0

    def will_change_role(self, arn: str, role: Role | None) -> None:
        """A role is about to be created, changed or deleted."""
        self._note(arn, self.role(arn, role))

    def will_change_key(self, key: Key) -> None:
        """A key policy is about to be changed."""
        self._note(key.arn, self.key_policy(key))

    def role(self, arn: str, role: Role | None) -> RolePolicies:
        """A role's policies, as they are seen now."""
        now = RolePolicies()
        if role is not None:
            documents = [json.loads(document) for document in role.policies.values()]
            now = RolePolicies(json.loads(role.assume_role_policy_document), documents)
        seen: RolePolicies = self._seen(arn, now)
        return seen

    def key_policy(self, key: Key) -> Document:
        """A key's policy, as it is seen now."""
        seen: Document = self._seen(key.arn, json.loads(key.policy))
        return seen

    def _note(self, arn: str, before: Any) -> None:  # noqa: ANN401  # a role's policies or a key policy
        if self.delay_seconds:
            with self._lock:
                until = self._clock() + timedelta(seconds=self.delay_seconds)
                self._before[arn] = (until, before)

    def _seen(self, arn: str, current: Any) -> Any:  # noqa: ANN401  # as above
        with self._lock:
            until, before = self._before.get(arn, (None, None))
            if until is None or until <= self._clock():
                self._before.pop(arn, None)
                return current
            return before
