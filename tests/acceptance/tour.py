"""Pages whose commands are run as they stand there: ``python -m tests.acceptance.tour`` renews the output."""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from byok.cli import processes
from byok.core.model import Job
from byok.embedded.stack import Stack
from byok.settings import child_environment
from byok.store import migrate
from byok.store.postgres import create_engine

_ROOT = Path(__file__).parents[2]
_DOCS = _ROOT / "docs"
PAGES = (_ROOT / "README.md", _DOCS / "operations.md", _DOCS / "export.md", _DOCS / "evidence.md")
_PACE = {
    # Every job is to have ticked before the first command: so a page begins sooner.
    "BYOK_DISPATCH_INTERVAL_SECONDS": "5",
    # What the customer does is noticed by the command that follows, and by no probe in between.
    "BYOK_PROBE_INTERVAL_SECONDS": "3600",
}
_REMEMBERED = "KEY|NEW_KEY|ROLE|BOUND_TO|PUBLIC_KEY"
_BLOCK = re.compile(r"(?<=```console\n)(.*?)(?=```)", re.DOTALL)
# What a page has its reader save: its first line says the file's name.
_SCRIPT = re.compile(r"^```python\n(# (\w+\.py): .*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass
class Step:
    """A command, and what the page says that it prints."""

    command: str
    output: str


def parse(block: str) -> list[Step]:
    """Commands begin with ``$``; one that ends in a backslash goes on in the next line."""
    steps: list[Step] = []
    going_on = False
    for line in block.splitlines():
        if going_on:
            steps[-1].command += "\n" + line
        elif line.startswith("$ "):
            steps.append(Step(line[2:], ""))
        else:
            steps[-1].output += line + "\n"
            continue
        going_on = line.endswith("\\")
    return steps


def run(step: Step, folder: Path, environment: dict[str, str], engine: sa.Engine) -> str:
    """What a command prints, in a shell that remembers the variables of the steps before."""
    if "disable-key" in step.command:
        wait_for_probes(engine)
    memory = folder / "memory.sh"
    memory.touch()
    remember = f"status=$?; set | grep -E '^({_REMEMBERED})=' > {memory}; exit $status"
    script = f". {memory}; {step.command}\n{remember}"
    ended = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return ended.stdout.decode()


def tour_environment(stack: Stack) -> dict[str, str]:
    """A reader's shell: the stack's variables, and ``byok`` and ``python`` on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return child_environment(stack.environment | _PACE | {"PATH": path, "COLUMNS": "96", "NO_COLOR": "1"})


def wait_for_probes(engine: sa.Engine) -> None:
    """Wait until no probe is due: a tenant's first follows its verification, and would notice what its
    customer does before the command that is to."""
    due = sa.text("SELECT count(*) FROM tenants WHERE next_probe_at <= clock_timestamp()")
    for _ in range(100):
        with engine.connect() as connection:
            if not connection.execute(due).scalar_one():
                break
        time.sleep(0.2)
    time.sleep(0.3)  # one that was just published is made


@contextmanager
def fleet(stack: Stack, engine: sa.Engine) -> Iterator[None]:
    """What `byok up` starts, as far as pages look at it: a worker and a Beat whose jobs have all ticked."""
    environment = stack.environment | _PACE
    started = [processes.start_worker(stack, environment), processes.start_beat(stack, environment)]
    try:
        processes.wait_for_worker(stack, started[0])
        stack.supervisor.wait_until(started[1], lambda: _have_all_ticked(engine), timeout_seconds=90)
        yield
    finally:
        stack.supervisor.stop(started)


def _have_all_ticked(engine: sa.Engine) -> bool:
    with engine.connect() as connection:
        ended = sa.text("SELECT count(*) FROM ticks WHERE ended_at IS NOT NULL")
        ticked: int = connection.execute(ended).scalar_one()
        return ticked == len(Job)


def normalise(text: str) -> str:
    """Without what differs from run to run: ids, digits, who runs it, where, and table borders."""
    text = re.sub(r"cli:\S+", "cli:you", text)
    text = re.sub(r"worker@\S+", "worker@host", text)
    text = re.sub(r"(worker|service|command) \d+@\S+", r"\1 PID@host", text)
    text = re.sub(r"(from +\S+ Boto3).*", r"\1", text)
    text = re.sub(r"byok-[\w-]{32}", "EXTERNAL-ID", text)
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "UUID", text)
    text = re.sub(r"dev-[0-9a-f]{8}", "MASTER-KEY", text)
    text = re.sub(r"[\u2500-\u257f]", " ", text)
    text = re.sub(r"\d+", "0", text)
    return " ".join(text.split())


def save_scripts(text: str, folder: Path) -> None:
    """Save the scripts that a page has its reader save, beside the documentation of the checkout."""
    (folder / "docs").symlink_to(_DOCS)
    for script, name in _SCRIPT.findall(text):
        (folder / name).write_text(script)


def blocks(text: str) -> list[str]:
    """The console blocks of a page."""
    return _BLOCK.findall(text)


def main() -> None:
    """Run each page, or those whose name is said, on a stack of its own and write what it prints into it."""
    for page in [one for one in PAGES if not sys.argv[1:] or one.name in sys.argv[1:]]:
        with tempfile.TemporaryDirectory() as folder, Stack(Path(folder) / "home", durable=False) as stack:
            engine = create_engine(stack.environment["BYOK_DATABASE_URL"], 1)
            migrate.upgrade(engine)
            with fleet(stack, engine):
                _renew(page, Path(folder), tour_environment(stack), engine)
            engine.dispose()


def _renew(page: Path, folder: Path, environment: dict[str, str], engine: sa.Engine) -> None:
    def renew(match: re.Match[str]) -> str:
        lines = []
        for step in parse(match[0]):
            printed = run(step, folder, environment, engine).strip("\n")
            lines += [f"$ {step.command}", *([line.rstrip() for line in printed.splitlines()])]
        text = "\n".join(lines) + "\n"
        return (
            re.sub(r"cli:\S+", "cli:you ", text)
            .replace("cli:you  ", "cli:you ")
            .replace("cli:you \n", "cli:you\n")
        )

    text = page.read_text()
    save_scripts(text, folder)
    page.write_text(_BLOCK.sub(renew, text))


if __name__ == "__main__":
    main()
