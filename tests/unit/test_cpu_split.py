"""Whose a sample is, in the split of a worker's CPU."""

from pathlib import Path

import pytest

import byok
from benchmarks.cpu_split import PARTS, cpu_ms, shares

_REPOSITORY = str(Path(byok.__file__).parents[1])
_WORKER = f"run ({_REPOSITORY}/workers/tasks.py:5)"


@pytest.mark.parametrize(
    ("deepest", "part"),
    [
        (["_send (/v/lib/python3.11/site-packages/botocore/endpoint.py:1)"], "botocore"),
        (
            [
                "send (/v/site-packages/botocore/endpoint.py:1)",
                "dumps (/usr/lib/python3.11/json/encoder.py:2)",
            ],
            "botocore",
        ),
        (["execute (/v/site-packages/sqlalchemy/engine/base.py:1)", "<module> (<string>:1)"], "SQL"),
        (["_wait (/v/site-packages/psycopg/waiting.py:1)"], "SQL"),
        (["publish (/v/site-packages/kombu/messaging.py:1)"], "Celery"),
        ([f"seal ({_REPOSITORY}/byok/crypto/keyring.py:1)"], "crypto"),
        ([f"_advance ({_REPOSITORY}/byok/services/rotations.py:1)"], "byok"),
        (["info (/v/site-packages/structlog/_native.py:1)"], "other"),
    ],
)
def test_a_sample_belongs_to_the_deepest_known_package(deepest: list[str], part: str) -> None:
    stack = ";".join([_WORKER, *deepest])
    assert shares(f"{stack} 7\n")[part] == 1


def test_nobodys_frames_are_other_and_the_parts_add_up() -> None:
    lines = ["_bootstrap (/usr/lib/python3.11/threading.py:1) 1", f"{_WORKER} 2"]
    found = shares("\n".join(lines))
    assert found["other"] == pytest.approx(1 / 3)
    assert found["byok"] == pytest.approx(2 / 3)
    assert sum(cpu_ms(found, 12.0).values()) == pytest.approx(12.0)
    assert set(found) == set(PARTS)
