"""Orders faults from a running simulator, and reads its log of calls."""

import json
from datetime import datetime
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen


class SimulatorControl:
    """The control plane of the simulator at ``endpoint_url``."""

    def __init__(self, endpoint_url: str) -> None:
        self._base = f"{endpoint_url}/_sim/"

    def healthy(self) -> bool:
        """Whether it answers."""
        try:
            return bool(self._ask("GET", "health")["status"] == "ok")
        except (URLError, ConnectionError, TimeoutError):
            return False

    def inject(self, **rule: str | float | bool | dict[str, Any] | None) -> int:
        """Put a fault rule in force (see `byok.simulator.faults.Rule`); return its id."""
        return int(self._ask("POST", "faults", rule)["id"])

    def throttle(self, **matching: str | float) -> int:
        """Refuse calls with ThrottlingException."""
        return self.inject(code="ThrottlingException", **matching)

    def internal_error(self, **matching: str | float) -> int:
        """Fail calls with KMSInternalException, HTTP 500."""
        return self.inject(code="KMSInternalException", http_status=500, **matching)

    def bad_gateway(self, **matching: str | float) -> int:
        """Answer with a gateway's HTML page, HTTP 502."""
        return self.inject(html_status=502, **matching)

    def hang(self, seconds: float, **matching: str | float) -> int:
        """Let calls wait."""
        return self.inject(delay_seconds=seconds, **matching)

    def reset(self, **matching: str | float) -> int:
        """Break the connection."""
        return self.inject(reset=True, **matching)

    def lose_reply(self, **matching: str | float) -> int:
        """Do what is asked, and break the connection before the answer is out."""
        return self.inject(lose_reply=True, **matching)

    def struck(self) -> int:
        """How often the rules in force have struck."""
        return sum(int(rule["struck"]) for rule in self._ask("GET", "faults"))

    def clear_faults(self) -> None:
        """Lift all rules."""
        self._ask("DELETE", "faults")

    def advance_clock(self, seconds: float) -> None:
        """Let the simulator's time jump ahead: sessions expire, changes propagate."""
        self._ask("POST", "clock", {"seconds": seconds})

    def set_clock_right(self) -> None:
        """Let the simulator's time be everybody's again: a trail is compared by its times."""
        self._ask("DELETE", "clock")

    def delay_propagation(self, seconds: float) -> None:
        """From now on changes of roles and key policies are seen after ``seconds`` only; 0: at once."""
        self._ask("POST", "propagation", {"seconds": seconds})

    def put_key_in_state(self, key_arn: str, state: str, manager: str = "CUSTOMER") -> None:
        """Give a key a state or manager that no call brings about, such as PendingImport or AWS."""
        self._ask("POST", "key-state", {"key_arn": key_arn, "state": state, "manager": manager})

    def import_material(self, key_arn: str, expires_at: datetime | None = None) -> None:
        """Make a key's material imported, with a day on which it expires or none."""
        until = None if expires_at is None else expires_at.isoformat()
        self._ask("POST", "key-material", {"key_arn": key_arn, "expires_at": until})

    def cloudtrail(self, account: str) -> list[dict[str, Any]]:
        """An account's trail: the records that its owner reads in AWS CloudTrail, oldest first."""
        trail: list[dict[str, Any]] = self._ask("GET", f"cloudtrail?{urlencode({'account': account})}")[
            "Records"
        ]
        return trail

    def calls(self, **matching: str) -> list[dict[str, Any]]:
        """The calls so far, oldest first, whose fields equal ``matching`` (see `faults.Call`)."""
        found: list[dict[str, Any]] = self._ask("GET", f"calls?{urlencode(matching)}")
        return found

    def forget_calls(self) -> None:
        """Empty the log."""
        self._ask("DELETE", "calls")

    def _ask(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401  # JSON
        data = None if body is None else json.dumps(body).encode()
        request = Request(self._base + path, method=method, data=data)  # noqa: S310  # http, on loopback
        with urlopen(request, timeout=10) as reply:  # noqa: S310  # as above
            return json.load(reply)
