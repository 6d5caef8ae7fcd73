"""A process with descendants, and what is left of them after its end."""

import os
import subprocess
import threading
import time
from collections.abc import Sequence

import psutil


class Watched:
    """A process started for a test. ``folder``: whatever works in there belongs to it, too."""

    def __init__(self, argv: Sequence[str], folder: str, environment: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.descendants: dict[int, psutil.Process] = {}
        self.process = subprocess.Popen(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=environment,
        )
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        try:
            parent = psutil.Process(self.process.pid)
            while True:
                # A new dictionary each time: others read this one meanwhile.
                seen = {one.pid: one for one in parent.children(recursive=True)}
                self.descendants = self.descendants | seen
                time.sleep(0.005)
        except psutil.NoSuchProcess:
            return

    def wait_for_line(self, part: str) -> None:
        """Read its output up to a line with ``part``."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if part.encode() in line:
                return
        raise AssertionError(f"it ended without saying {part!r}")

    def left(self) -> list[str]:
        """What is still there: descendants that were seen, and processes at work in the folder."""
        found = [one for one in self.descendants.values() if _lives(one)]
        found += [one for one in psutil.process_iter() if _lives(one) and _works_in(one, self.folder)]
        return [f"{one.pid} {command_line(one)}" for one in found]

    def assert_nothing_left(self, within_seconds: float) -> None:
        """Fail, naming them, if processes are left after a while."""
        deadline = time.monotonic() + within_seconds
        while (left := self.left()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert left == []

    def close(self) -> None:
        """End the process itself."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def command_line(process: psutil.Process) -> str:
    """The process's command line, or a question mark."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return "?"


def _works_in(process: psutil.Process, folder: str) -> bool:
    if process.pid == os.getpid():
        return False
    try:
        return folder in command_line(process) or process.cwd().startswith(folder)
    except psutil.Error:
        return False
