"""What a check found."""

from dataclasses import dataclass

from byok.core.findings import Verdict


@dataclass(frozen=True, slots=True)
class Result:
    """A check's name, how it ended, what was seen, and what to do unless it passed."""

    name: str
    verdict: Verdict
    seen: str
    remedy: str = ""


def passed(name: str, seen: str) -> Result:
    """All is as it must be."""
    return Result(name, Verdict.PASSED, seen)


def note(name: str, seen: str, remedy: str = "") -> Result:
    """Nothing wrong, or nothing known; worth a look."""
    return Result(name, Verdict.NOTE, seen, remedy)


def warning(name: str, seen: str, remedy: str) -> Result:
    """It works, and will hurt one day."""
    return Result(name, Verdict.WARNING, seen, remedy)


def failed(name: str, seen: str, remedy: str) -> Result:
    """It does not work, or is not safe."""
    return Result(name, Verdict.FAILED, seen, remedy)
