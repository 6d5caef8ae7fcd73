"""Where a worker's CPU goes: py-spy looks 250 times a second at who holds the interpreter lock.

A sample belongs to the deepest frame that is of a known package, so that what `json` does for botocore is
botocore's. The shares are of the samples; multiplied by the CPU that the process used they add up to it. The
CPU that is used without the lock (TLS, libpq, the kernel) is so dealt out in proportion.
"""

import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import byok

PARTS = ("botocore", "SQL", "Celery", "crypto", "byok", "other")
TITLES = {
    "botocore": "botocore, urllib3",
    "SQL": "SQLAlchemy, psycopg",
    "Celery": "Celery, kombu, redis",
    "crypto": "cryptography, byok.crypto",
    "byok": "byok's own code",
    "other": "other",
}
_PACKAGES = {
    **dict.fromkeys(("boto3", "botocore", "urllib3"), "botocore"),
    **dict.fromkeys(("psycopg", "psycopg_binary", "sqlalchemy"), "SQL"),
    **dict.fromkeys(("billiard", "celery", "kombu", "redis", "vine"), "Celery"),
    **dict.fromkeys(("cryptography", "byok.crypto"), "crypto"),
    **dict.fromkeys(("byok", "workers"), "byok"),
    # Logging and metrics are ours to switch off, but no part of a rotation.
    **dict.fromkeys(("structlog", "prometheus_client", "tenacity"), "other"),
}
_OURS = str(Path(byok.__file__).parents[1]) + "/"
_FRAME = re.compile(r"\((?P<file>[^()]+):\d+\)$")
_SAMPLES_PER_SECOND = 250


class NoSampler(Exception):
    """py-spy is not there, or may not look; the message says which."""


class Sampler:
    """Samples a process between construction and `stop`."""

    def __init__(self, pid: int) -> None:
        program = shutil.which("py-spy") or shutil.which("py-spy", path=str(Path(sys.executable).parent))
        if program is None:
            raise NoSampler("py-spy is not installed: pip install 'byok[bench]'")
        self._folder = tempfile.TemporaryDirectory()
        self._file = Path(self._folder.name) / "samples"
        argv = [program, "record", "--pid", str(pid), "--gil", "--nonblocking", "--full-filenames"]
        argv += ["--format", "raw", "--rate", str(_SAMPLES_PER_SECOND), "--output", str(self._file)]
        self._process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def stop(self) -> str:
        """The samples, in py-spy's raw format.

        Raises:
            NoSampler.
        """
        self._process.send_signal(signal.SIGINT)
        _, said = self._process.communicate(timeout=30)
        with self._folder:
            if not self._file.exists():
                raise NoSampler(f"py-spy could not look: {said.strip()[-200:]}")
            return self._file.read_text()


def shares(raw: str) -> dict[str, float]:
    """The share of each part in py-spy's raw output: a line is a stack, from the outermost frame inwards."""
    samples: Counter[str] = Counter()
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        samples[_part_of(stack.split(";"))] += int(count)
    total = samples.total() or 1
    return {part: samples[part] / total for part in PARTS}


def _part_of(frames: list[str]) -> str:
    for frame in reversed(frames):
        found = _FRAME.search(frame)
        if found is not None and (part := _part_of_file(found["file"])) is not None:
            return part
    return "other"


def _part_of_file(file: str) -> str | None:
    _, installed, inside = file.rpartition("/site-packages/")
    if not installed:
        inside = file.removeprefix(_OURS)
    package, _, rest = inside.partition("/")
    if package == "byok" and rest.startswith("crypto/"):
        package = "byok.crypto"
    return _PACKAGES.get(package)


def cpu_ms(split: Mapping[str, float], total_ms: float) -> dict[str, float]:
    """The shares as milliseconds of ``total_ms``."""
    return {part: split[part] * total_ms for part in PARTS}
