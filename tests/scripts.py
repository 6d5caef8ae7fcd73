"""Scripts in a Python of their own, over the servers of a stack."""

import subprocess
import sys

from byok.embedded.stack import Stack
from byok.settings import child_environment


def run_script(stack: Stack, *arguments: str, timeout_seconds: float = 90.0) -> str:
    """Run Python with these arguments until it ends well; what it printed."""
    ended = subprocess.run(
        [sys.executable, *arguments],
        env=child_environment(stack.environment),
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
