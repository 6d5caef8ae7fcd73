"""A service process of `benchmarks.kill_switch`: encrypts and decrypts in a loop, and keeps account of it.

    python -m benchmarks.kill_switch_service TENANT KEY REPORT

It knows byok by its public door alone. The report is a JSON file: operations in a row that ended alike
are one run, with the error's code, or null where they succeeded; slow operations are told one by one. It
is written anew whenever a run begins and ten times a second, and, complete, when SIGTERM comes.
"""

import json
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from byok import connect

PAUSE_SECONDS = 0.01
REPORT_SECONDS = 0.1
SLOW_SECONDS = 0.25  # operations that take longer are told one by one
_PLAINTEXT, _CONTEXT = b"ada@example.com", b"users.email:42"
# All processes of a machine share it, and nobody can set it. macOS has no CLOCK_BOOTTIME; its
# CLOCK_MONOTONIC counts from the machine's start, too.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now_seconds() -> float:
    """Seconds since the machine's start."""
    return time.clock_gettime(_CLOCK)


@dataclass
class Run:
    """Operations in a row that ended alike."""

    code: str | None  # None: they succeeded
    first_seconds: float  # when the first one started
    last_seconds: float  # when the last one started
    ended_seconds: float  # when the last one ended
    count: int


class Ledger:
    """What became of each operation, in a file that is always whole."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._runs: list[Run] = []
        self._slow: list[tuple[float, float]] = []
        self._written_seconds = 0.0

    def note(self, started_seconds: float, code: str | None) -> None:
        """Note an operation that ends now."""
        ended_seconds = now_seconds()
        is_new = not self._runs or self._runs[-1].code != code
        if is_new:
            self._runs.append(Run(code, started_seconds, started_seconds, ended_seconds, count=0))
        run = self._runs[-1]
        run.last_seconds, run.ended_seconds = started_seconds, ended_seconds
        run.count += 1
        if ended_seconds - started_seconds > SLOW_SECONDS:
            self._slow.append((started_seconds, ended_seconds))
        if is_new or ended_seconds - self._written_seconds > REPORT_SECONDS:
            self.write(complete=False)

    def write(self, *, complete: bool) -> None:
        """Replace the file."""
        scratch = self._file.with_suffix(".new")
        runs = [asdict(run) for run in self._runs]
        scratch.write_text(json.dumps({"complete": complete, "runs": runs, "slow": self._slow}))
        scratch.replace(self._file)
        self._written_seconds = now_seconds()


def attempt(ledger: Ledger, operation: Callable[[], bytes]) -> bytes | None:
    """Try an operation and note how it ended; return what it gave."""
    started_seconds = now_seconds()
    try:
        result = operation()
    except Exception as error:  # noqa: BLE001  # an error that is none of byok's is a finding as well
        ledger.note(started_seconds, getattr(error, "code", type(error).__name__))
        return None
    ledger.note(started_seconds, None)
    return result


def serve(tenant: str, key: str, ledger: Ledger, is_stopped: Callable[[], bool]) -> None:
    """Encrypt a value, decrypt the first token, until told to stop."""
    cipher = connect().cipher(tenant, key)
    first_token: bytes | None = None
    while not is_stopped():
        token = attempt(ledger, partial(cipher.encrypt, _PLAINTEXT, context=_CONTEXT))
        first_token = first_token or token
        if first_token is not None:
            opened = attempt(ledger, partial(cipher.decrypt, first_token, context=_CONTEXT))
            assert opened in (None, _PLAINTEXT)
        time.sleep(PAUSE_SECONDS)


def main() -> None:
    tenant, key, report = sys.argv[1:]
    ledger, stops = Ledger(Path(report)), []

    def stop(*_: Any) -> None:  # noqa: ANN401  # a signal's number and frame
        stops.append(True)

    signal.signal(signal.SIGTERM, stop)
    serve(tenant, key, ledger, lambda: bool(stops))
    ledger.write(complete=True)


if __name__ == "__main__":
    main()
