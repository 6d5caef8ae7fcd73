"""The floor of `benchmarks.rotations` runs the very SQL of the worker; else its ratio would mean nothing."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.kms_process import KmsProcess
from benchmarks.rotation_report import Report
from benchmarks.rotation_world import RotationWorld
from benchmarks.rotations import Benchmark
from byok.embedded.stack import Stack

pytestmark = pytest.mark.slow
KEYS, THREADS = 40, 4


@pytest.fixture
def environment_as_it_was() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.timeout(240)
@pytest.mark.usefixtures("environment_as_it_was")
def test_the_floor_repeats_what_the_worker_asked_postgresql(tmp_path: Path) -> None:
    report = Report(KEYS, tenants=10, threads=THREADS, settings={})
    with Stack(tmp_path / "home", durable=False) as stack, RotationWorld(stack, KmsProcess(stack)) as world:
        Benchmark(world, report, tmp_path).run([0.0], rounds=1)
    (measured,) = report.at
    (ours,), (floor,) = measured.rounds, measured.floors
    assert ours.rotations == floor.rotations == KEYS
    assert ours.kms_requests["GenerateDataKeyWithoutPlaintext"] == KEYS
    assert report.traffic is not None
    assert report.floor_traffic is not None
    recorded = sum(count * KEYS for _, count in report.statements)
    assert report.floor_traffic.statements == pytest.approx(recorded, rel=0.01)
    assert report.floor_traffic.statements <= report.traffic.statements
    assert report.floor_traffic.commits == report.transactions
    # Beside its tasks a worker tells that it lives, and looks for stops.
    assert report.floor_traffic.commits <= report.traffic.commits
