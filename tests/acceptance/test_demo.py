"""``byok demo`` tells its story to the end, and leaves nothing behind whenever it is stopped."""

import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from byok.settings import child_environment
from tests.watched import Watched

pytestmark = pytest.mark.slow
COMMAND = [
    sys.executable,
    "-c",
    "from byok.cli.main import main; import sys; sys.argv[1:] = ['demo']; main()",
]


@pytest.fixture
def demo() -> Iterator[Watched]:
    with tempfile.TemporaryDirectory() as folder:  # the demo makes its own folder within
        watched = Watched(COMMAND, folder, child_environment({"TMPDIR": folder, "COLUMNS": "100"}))
        yield watched
        watched.close()


def test_the_demo_tells_the_whole_story_within_a_minute_and_stops_everything(demo: Watched) -> None:
    started = time.monotonic()
    assert demo.process.stdout is not None
    told = demo.process.stdout.read().decode()
    assert demo.process.wait(10) == 0, told
    assert time.monotonic() - started < 60
    story = [
        "acme: KMS key, role with external id; verified",
        "globex/pii: version 1 generated, validated and active",
        "acme: 1,000 e-mail addresses encrypted",
        "globex: 1,000 e-mail addresses encrypted",
        "made version 2",
        "Beat found it due; a worker made version 2",
        "acme: 1,000 values of version 1 and a new one of version 2",
        "globex: 1,000 values of version 1 and a new one of version 2",
        "scheduled",
        "globex opens acme's ciphertext: the ciphertext does not open",
        "acme's KMS key is disabled: encryption and decryption stop",
        "evidence: DisabledException",
        "acme's KMS key is enabled: access comes back by itself",
        "everything stopped",
    ]
    place = 0
    for sentence in story:
        found = told.find(sentence, place)
        assert found >= 0, f"{sentence!r} is not told, or not in its place"
        place = found
    demo.assert_nothing_left(within_seconds=1)
    assert list(Path(demo.folder).glob("byok-demo-*")) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("seconds", [1, 3, 6])
def test_no_process_is_left_whenever_the_demo_is_stopped(
    demo: Watched, seconds: int, number: signal.Signals
) -> None:
    time.sleep(seconds + random.random())
    demo.process.send_signal(number)
    demo.process.wait(40)
    demo.assert_nothing_left(within_seconds=20)
