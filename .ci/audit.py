"""Asks pip-audit whether a pinned dependency has a published weakness; arguments go to pip-audit.

Exit code 1: one has. Where the advisory service can't be asked, or knows next to none of our dependencies (a
mirror without advisories), that is no good answer and no bad one: it says so, and ends well unless
AUDIT_MUST_ANSWER is set, so that a machine without the service can still be worked on.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PINS = Path(__file__).parent.parent / "constraints.txt"
# More than these few have a page there: what is missing is the service, not the package.
_KNOWN_AT_LEAST = 0.9


@dataclass(frozen=True)
class Judgement:
    """What an audit came to."""

    lines: Sequence[str]
    is_weak: bool
    is_answered: bool


def judge(report: dict[str, Any]) -> Judgement:
    """Read pip-audit's JSON: dependencies with their ``vulns``, or with a ``skip_reason``."""
    dependencies = report["dependencies"]
    weak = [
        f"{one['name']} {one['version']}: {weakness['id']}, fixed in {weakness['fix_versions']}"
        for one in dependencies
        for weakness in one.get("vulns", ())
    ]
    known = sum("skip_reason" not in one for one in dependencies)
    is_answered = known >= _KNOWN_AT_LEAST * len(dependencies)
    told = f"audit: {known} of {len(dependencies)} dependencies are known to the advisory service"
    return Judgement([*weak, told], bool(weak), is_answered)


def main(arguments: Sequence[str]) -> int:
    """Audit the pins; see above for the exit code."""
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--no-deps", "--progress-spinner", "off"]
    try:
        audit = subprocess.run(
            [*command, "--format", "json", "-r", str(_PINS), *arguments],
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        judgement = judge(json.loads(audit.stdout))
    except (subprocess.TimeoutExpired, ValueError):
        judgement = Judgement(["audit: the advisory service does not answer"], False, False)
    print("\n".join(judgement.lines))
    if judgement.is_weak:
        return 1
    if not judgement.is_answered:
        print("audit: NOT AUDITED: no weakness was looked for")
        return 1 if os.environ.get("AUDIT_MUST_ANSWER") else 0
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
