"""Starts, watches and stops processes; none outlives it, however it ends."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from byok.errors import StackUnavailable

# A child waits at this gate until the guard knows it, so that there is no moment in which a killed
# supervisor could leave it behind: at the end of the pipe it gives up.
_GATE = 'read -r _ || exit 1; exec "$@" </dev/null'


_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(eq=False)
class Child:
    """A started process and how to stop it."""

    name: str
    process: "subprocess.Popen[bytes]"
    log_file: Path
    stop_signal: signal.Signals
    stop_timeout_seconds: float

    def log_tail(self, lines: int = 5) -> str:
        """The last lines that it wrote."""
        return " | ".join(self.log_file.read_text(errors="replace").splitlines()[-lines:])


class Supervisor:
    """Children in order of their start, stopped in reverse."""

    def __init__(self, log_folder: Path) -> None:
        self._log_folder = log_folder
        self.children: list[Child] = []
        guard = Path(__file__).with_name("guard.py")
        self._guard = subprocess.Popen(  # noqa: S603  # our own file
            [sys.executable, "-I", "-S", str(guard)], stdin=subprocess.PIPE, start_new_session=True
        )

    def spawn(
        self,
        name: str,
        argv: Sequence[str],
        environment: Mapping[str, str],
        *,
        stop_signal: signal.Signals = signal.SIGTERM,
        emergency_signal: signal.Signals | None = None,
        stop_timeout_seconds: float = 20.0,
        popen_arguments: dict[str, Any] | None = None,
    ) -> Child:
        """Start a process in a session of its own, its output in LOGS/NAME.log.

        ``emergency_signal`` is what the guard sends if the supervisor itself dies.
        """
        log_file = self._log_folder / f"{name}.log"
        gate_out, gate_in = os.pipe()
        with log_file.open("wb") as log:
            process = subprocess.Popen(  # noqa: S603  # argv comes from this package and the CLI
                ["/bin/sh", "-c", _GATE, "sh", *argv],
                env=dict(environment),
                stdin=gate_out,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **(popen_arguments or {}),
            )
        os.close(gate_out)
        self._tell_guard(f"+ {process.pid} {int(emergency_signal or stop_signal)}")
        os.write(gate_in, b"\n")
        os.close(gate_in)
        child = Child(name, process, log_file, stop_signal, stop_timeout_seconds)
        self.children.append(child)
        return child

    def run(self, name: str, argv: Sequence[str], environment: Mapping[str, str], **options: Any) -> None:  # noqa: ANN401  # as spawn
        """Start a process and wait for its end.

        Raises:
            StackUnavailable: it failed.
        """
        child = self.spawn(name, argv, environment, **options)
        status = child.process.wait()
        self._forget(child)
        if status != 0:
            raise StackUnavailable(f"{name} failed: {child.log_tail()}", remedy=f"see {child.log_file}")

    def wait_until(self, child: Child, ready: Callable[[], bool], timeout_seconds: float = 30.0) -> None:
        """Wait until ``ready()``.

        Raises:
            StackUnavailable: the child ended, or took too long.
        """
        deadline = time.monotonic() + timeout_seconds
        while not ready():
            if child.process.poll() is not None:
                raise StackUnavailable(
                    f"{child.name} ended at its start: {child.log_tail()}", remedy=f"see {child.log_file}"
                )
            if time.monotonic() > deadline:
                raise StackUnavailable(
                    f"{child.name} was not ready after {timeout_seconds:.0f} s: {child.log_tail()}",
                    remedy=f"see {child.log_file}",
                )
            time.sleep(0.02)

    def wait_for_line(self, child: Child, pattern: str, timeout_seconds: float = 30.0) -> None:
        """Wait until the child's log has a line with ``pattern``; raises as `wait_until`."""
        wanted = re.compile(pattern)
        self.wait_until(
            child,
            lambda: wanted.search(child.log_file.read_text(errors="replace")) is not None,
            timeout_seconds,
        )

    def ended_child(self) -> Child | None:
        """A child that ended without being asked to."""
        return next((child for child in self.children if child.process.poll() is not None), None)

    def stop(self, children: Sequence[Child] | None = None) -> None:
        """Stop children, the latest first. Ctrl-C meanwhile kills the one that keeps us waiting."""
        for child in reversed(self.children if children is None else children):
            self._stop_one(child)
            self._forget(child)

    def close(self) -> None:
        """Stop everything, and the guard."""
        self.stop(list(self.children))
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait()

    def _stop_one(self, child: Child) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.process.pid, child.stop_signal)
        with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            child.process.wait(child.stop_timeout_seconds)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.process.pid, signal.SIGKILL)  # and whatever it left behind in its group
        child.process.wait()

    def _forget(self, child: Child) -> None:
        self.children.remove(child)
        self._tell_guard(f"- {child.process.pid}")

    def _tell_guard(self, line: str) -> None:
        assert self._guard.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._guard.stdin.write(f"{line}\n".encode())
            self._guard.stdin.flush()


@contextlib.contextmanager
def stop_signals() -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt in the main thread.

    SIGINT too: a shell starts background jobs with it ignored, and Python leaves that as it is.
    """

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, interrupt) for number in _STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
