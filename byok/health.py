"""The sign of life of a worker or a Beat, and ``byok-health``, which reads it.

A probe runs every few seconds beside each process, so it must cost next to nothing: it imports the standard
library alone and asks no server. The process itself writes down what it sees, every 2 s, into
``BYOK_HEALTH_FOLDER``; the probe compares times. They are of a clock that nobody can set and that all
processes of a machine share.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import NamedTuple

WRITTEN_EVERY_SECONDS = 2.0
PINGED_EVERY_SECONDS = 5.0
# Ten signs missed: the process is frozen, or gone.
SILENT_AFTER_SECONDS = 20.0
# A connected loop comes round each few seconds. What it waits for has timeouts of 5 s, a handful at most.
STALLED_AFTER_SECONDS = 60.0
# PostgreSQL has not answered for so long: a fail-over takes less.
UNSEEN_AFTER_SECONDS = 30.0

ROLES = ("worker", "beat")

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_NOT_SET_UP = 78  # as for all wrong settings


class Sign(NamedTuple):
    """What a process last wrote down; times in seconds of `now_seconds`.

    ``looped_at`` is when its main loop last came round, ``connected`` whether it has its broker, and
    ``store_seen_at`` when PostgreSQL last answered it; 0 for a Beat, which does without.
    """

    alive_at: float
    looped_at: float
    connected: bool
    store_seen_at: float


def now_seconds() -> float:
    """Seconds since the machine started."""
    return time.clock_gettime(_CLOCK)


def file_of(folder: Path, role: str) -> Path:
    """Where a process of this role writes."""
    return folder / f"byok-{role}"


def write(file: Path, sign: Sign) -> None:
    """Replace the file as a whole.

    Raises:
        OSError.
    """
    beside = file.with_suffix(".new")
    beside.write_text(" ".join(str(float(value)) for value in sign) + "\n")
    beside.replace(file)


def read(file: Path) -> Sign | None:
    """What is written there; None where there is nothing, or something else."""
    try:
        alive_at, looped_at, connected, store_seen_at = map(float, file.read_text().split())
    except (OSError, ValueError):
        return None
    return Sign(alive_at, looped_at, bool(connected), store_seen_at)


def why_not_live(sign: Sign | None, now: float, silent_after: float = SILENT_AFTER_SECONDS) -> str | None:
    """Why a process is to be restarted; None: it lives. A server that is away is no reason."""
    if sign is None:
        return "it has given no sign of life"
    if sign.alive_at > now:
        return "its sign of life is from before the machine started"
    if now - sign.alive_at > silent_after:
        return f"no sign of life for {now - sign.alive_at:.0f} s"
    if sign.connected and now - sign.looped_at > max(silent_after, STALLED_AFTER_SECONDS):
        return f"its main loop has stood still for {now - sign.looped_at:.0f} s"
    return None


def why_not_ready(
    sign: Sign | None, role: str, now: float, silent_after: float = SILENT_AFTER_SECONDS
) -> str | None:
    """Why a process does no work now; None: it does."""
    dead = why_not_live(sign, now, silent_after)
    if dead is not None or sign is None:
        return dead
    if not sign.connected:
        return "it has no connection to the broker"
    if role == "worker" and now - sign.store_seen_at > UNSEEN_AFTER_SECONDS:
        return "PostgreSQL does not answer it"
    return None


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="byok-health",
        description="Whether the worker or the Beat beside this command is alive, or ready: exit status 0.",
        epilog="Example: byok-health live worker",
    )
    parser.add_argument("question", choices=("live", "ready"))
    parser.add_argument("role", choices=ROLES)
    parser.add_argument(
        "--within",
        type=float,
        default=SILENT_AFTER_SECONDS,
        metavar="SECONDS",
        help="how old its last sign of life may be (default: %(default)s)",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parsed = _parse(arguments)
    folder = os.environ.get("BYOK_HEALTH_FOLDER")
    if not folder:
        sys.stderr.write("byok-health: BYOK_HEALTH_FOLDER is not set, here and for the process\n")
        return _NOT_SET_UP
    sign, now = read(file_of(Path(folder), parsed.role)), now_seconds()
    if parsed.question == "live":
        why_not = why_not_live(sign, now, parsed.within)
    else:
        why_not = why_not_ready(sign, parsed.role, now, parsed.within)
    sys.stdout.write(
        f"{parsed.role}: {parsed.question if why_not is None else f'not {parsed.question}: {why_not}'}\n"
    )
    return 0 if why_not is None else 1


if __name__ == "__main__":
    sys.exit(main())
