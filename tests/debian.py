"""Programs that some tests need and that no wheel brings: packages of Debian's, which `.ci/run` installs."""

import os
import shutil

import pytest


def is_missing(program: str) -> bool:
    """Whether a test is to be skipped for want of a program. Where `.ci/run` has installed them none is: a
    test that can't start its program fails there."""
    return shutil.which(program) is None and "TESTS_MAY_NOT_SKIP" not in os.environ


def needs(program: str, package: str) -> pytest.MarkDecorator:
    """Skip a test where a program is missing."""
    return pytest.mark.skipif(is_missing(program), reason=f"no {program} here: apt-get install {package}")
