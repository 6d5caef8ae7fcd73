"""What the probes make of a sign of life, and what they cost."""

import subprocess
import sys
from pathlib import Path

import pytest

from byok import health
from byok.health import Sign, why_not_live, why_not_ready

NOW = 10_000.0
WELL = Sign(alive_at=NOW - 1, looped_at=NOW - 2, connected=True, store_seen_at=NOW - 3)


def test_a_process_that_is_well_lives_and_is_ready() -> None:
    assert why_not_live(WELL, NOW) is None
    assert why_not_ready(WELL, "worker", NOW) is None


@pytest.mark.parametrize(
    ("sign", "why"),
    [
        (None, "has given no sign"),
        (WELL._replace(alive_at=NOW - 21), "no sign of life for 21 s"),
        (WELL._replace(alive_at=NOW + 1), "before the machine started"),
        (WELL._replace(looped_at=NOW - 61), "main loop has stood still for 61 s"),
    ],
)
def test_what_is_not_live_is_not_ready_either(sign: Sign | None, why: str) -> None:
    assert why in (why_not_live(sign, NOW) or "")
    assert why in (why_not_ready(sign, "worker", NOW) or "")


@pytest.mark.parametrize(
    ("sign", "why"),
    [
        # Without a broker the main loop stands still, as it should.
        (WELL._replace(connected=False, looped_at=NOW - 9000), "no connection to the broker"),
        (WELL._replace(store_seen_at=NOW - 31), "PostgreSQL"),
    ],
)
def test_a_server_that_is_away_is_no_reason_for_a_restart(sign: Sign, why: str) -> None:
    assert why_not_live(sign, NOW) is None
    assert why in (why_not_ready(sign, "worker", NOW) or "")


def test_a_beat_does_without_postgresql() -> None:
    assert why_not_ready(WELL._replace(store_seen_at=0.0), "beat", NOW) is None


def test_what_is_written_is_read_and_what_is_not_ours_is_no_sign(tmp_path: Path) -> None:
    file = health.file_of(tmp_path, "worker")
    assert health.read(file) is None
    health.write(file, WELL)
    assert health.read(file) == WELL
    file.write_text("1.0 2.0\n")
    assert health.read(file) is None


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BYOK_HEALTH_FOLDER", str(tmp_path))
    assert health.main(["live", "beat"]) == 1
    now = health.now_seconds()
    health.write(health.file_of(tmp_path, "beat"), Sign(now, now, False, 0.0))
    assert (health.main(["live", "beat"]), health.main(["ready", "beat"])) == (0, 1)
    assert capsys.readouterr().out.splitlines() == [
        "beat: not live: it has given no sign of life",
        "beat: live",
        "beat: not ready: it has no connection to the broker",
    ]
    monkeypatch.delenv("BYOK_HEALTH_FOLDER")
    assert health.main(["live", "beat"]) == 78


def test_a_probe_imports_the_standard_library_alone_and_little_of_it() -> None:
    """Each costs some 30 ms of CPU now, most of it Python's own start; `byok --help` costs 500."""
    script = "import byok.health, sys; print(*sys.modules)"
    asked = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(asked.stdout.split())
    ours = {name for name in loaded if name.startswith("byok.")}
    assert ours == {"byok.health", "byok.forks"}
    heavy = {"asyncio", "boto3", "celery", "dataclasses", "json", "pydantic", "redis", "rich", "sqlalchemy"}
    assert loaded & heavy == set()
