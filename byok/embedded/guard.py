"""The guard process: it outlives a supervisor that was killed, and stops what that one had started.

Run as ``python -I -S guard.py`` with a pipe for standard input. Lines: ``+ PID SIGNAL`` takes a process
group into care, ``- PID`` lets it go. At the end of the pipe every group left gets its signal, and
SIGKILL after 15 seconds.
"""

import contextlib
import os
import signal
import sys
import time

_PATIENCE_SECONDS = 15.0


def _is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123  # -S and a fast start: no pathlib
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return not os.path.isdir("/proc/self")  # noqa: PTH112  # as above


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(pid, number)


def _stop_all(in_care: dict[int, int]) -> None:
    for pid, number in in_care.items():
        _signal_group(pid, number)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline and any(_is_alive(pid) for pid in in_care):
        time.sleep(0.05)
    for pid in in_care:
        _signal_group(pid, signal.SIGKILL)


def main() -> None:
    """Read lines until the supervisor is gone."""
    # What stops the supervisor must not stop its guard.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    in_care: dict[int, int] = {}
    for line in sys.stdin:
        words = line.split()
        if words[0] == "+":
            in_care[int(words[1])] = int(words[2])
        else:
            in_care.pop(int(words[1]), None)
    _stop_all(in_care)


if __name__ == "__main__":
    main()
