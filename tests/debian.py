"""Programs that some tests need and that no wheel brings: packages of Debian's, which `.ci/run` installs."""

import os
import shutil
from pathlib import Path

import pytest


def program(name: str, package: str) -> Path:
    """The path of a program. Without it the test is skipped, or fails where `.ci/run` has installed it."""
    if found := shutil.which(name):
        return Path(found)
    missing = f"no {name} here: apt-get install {package}"
    if os.environ.get("TESTS_MAY_NOT_SKIP"):
        pytest.fail(missing)
    pytest.skip(missing)
