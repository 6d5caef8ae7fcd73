"""Faults on order, and the log of calls."""

import itertools
import random
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any

_LOG_LENGTH = 100_000


@dataclass
class Rule:
    """Which calls fail, and how. Everything left out matches every call.

    ``after``: how many such calls it lets pass first. ``times``: how often it strikes, None for always.
    ``code`` and ``message``: an AWS error. ``html_status``: a gateway's page. ``reset``: the connection
    breaks before AWS sees the call. ``lose_reply``: it breaks once AWS did what was asked. ``reply_key_id``
    and ``reply_account``: the answer is right but for these. ``reply``: so with any fields of a KMS reply;
    where moto would have answered, or the call is refused, they are all of it. A rule with a delay alone
    slows calls down. ``struck``: how often it did.
    """

    id: int
    operation: str | None = None
    account: str | None = None
    key_arn: str | None = None
    after: int = 0
    times: int | None = None
    probability: float = 1.0
    delay_seconds: float = 0.0
    code: str | None = None
    message: str = "ordered fault"
    reply_key_id: str | None = None
    reply_account: str | None = None
    reply: dict[str, Any] | None = None
    http_status: int = 400
    html_status: int | None = None
    reset: bool = False
    lose_reply: bool = False
    struck: int = 0


@dataclass(frozen=True)
class Call:
    """One call as CloudTrail would tell it, and how it ended."""

    at: str
    operation: str
    account: str
    principal: str
    key_arn: str
    outcome: str
    request_id: str
    region: str = ""
    context: dict[str, str] = field(default_factory=dict)
    dry_run: bool = False
    session_arn: str = ""
    session_name: str = ""
    external_id: str = ""
    user_agent: str = ""
    message: str = ""


class Faults:
    """The rules in force."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._ids = itertools.count(1)
        self._random = random.Random(0)  # noqa: S311  # repeatable faults, not secrets
        self._lock = threading.Lock()

    def add(self, settings: dict[str, Any]) -> int:
        """Put a rule in force; return its id."""
        known = {one.name for one in fields(Rule)} - {"id", "struck"}
        with self._lock:
            rule = Rule(next(self._ids), **{name: settings[name] for name in settings if name in known})
            self._rules.append(rule)
            return rule.id

    def to_json(self) -> list[dict[str, Any]]:
        """The rules in force, and how often each struck."""
        with self._lock:
            return [asdict(rule) for rule in self._rules]

    def clear(self) -> None:
        """Lift all rules."""
        with self._lock:
            self._rules.clear()

    def pick(self, operation: str, account: str, key_arn: str) -> Rule | None:
        """The first rule that strikes this call."""
        with self._lock:
            for rule in self._rules:
                wanted = ((rule.operation, operation), (rule.account, account), (rule.key_arn, key_arn))
                if any(want is not None and want != is_ for want, is_ in wanted) or rule.times == 0:
                    continue
                if rule.after > 0:
                    rule.after -= 1
                    continue
                if self._random.random() >= rule.probability:
                    continue
                if rule.times is not None:
                    rule.times -= 1
                rule.struck += 1
                return rule
        return None


class CallLog:
    """The latest calls, oldest first. It holds no plaintext: encryption contexts are public in AWS too."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._calls: deque[Call] = deque(maxlen=_LOG_LENGTH)

    def add(self, **told: Any) -> None:  # noqa: ANN401  # the fields of Call
        """Note a call."""
        self._calls.append(Call(at=self._clock().isoformat(), **told))

    def to_json(self) -> list[dict[str, Any]]:
        """All calls."""
        return [asdict(call) for call in tuple(self._calls)]

    def list(self) -> list[Call]:
        """All calls."""
        return [*self._calls]

    def clear(self) -> None:
        """Forget all calls."""
        self._calls.clear()
