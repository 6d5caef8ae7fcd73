"""The tour of README.md, run as it stands there: ``python -m tests.acceptance.tour`` renews its output."""

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from byok.cli import processes
from byok.embedded.stack import Stack
from byok.settings import child_environment
from byok.store import migrate
from byok.store.postgres import create_engine

README = Path(__file__).parents[2] / "README.md"
_BLOCK = re.compile(r"(?<=```console\n)(.*?)(?=```)", re.DOTALL)


@dataclass
class Step:
    """A command of the tour, and what the README says that it prints."""

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


def run(step: Step, folder: Path, environment: dict[str, str]) -> str:
    """What a command prints, in a shell that remembers the variables of the steps before."""
    memory = folder / "memory.sh"
    memory.touch()
    remember = f"status=$?; set | grep -E '^(KEY|ROLE)=' > {memory}; exit $status"
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
    return child_environment(stack.environment | {"PATH": path, "COLUMNS": "96", "NO_COLOR": "1"})


def normalise(text: str) -> str:
    """Without what differs from run to run: ids, digits, who runs it, where, and table borders."""
    text = re.sub(r"cli:\S+", "cli:you", text)
    text = re.sub(r"celery@\S+", "celery@host", text)
    text = re.sub(r"(worker|service|command) \d+@\S+", r"\1 PID@host", text)
    text = re.sub(r"byok-[\w-]{32}", "EXTERNAL-ID", text)
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "UUID", text)
    text = re.sub(r"dev-[0-9a-f]{8}", "MASTER-KEY", text)
    text = re.sub(r"[\u2500-\u257f]", " ", text)
    text = re.sub(r"\d+", "0", text)
    return " ".join(text.split())


def blocks(text: str) -> list[str]:
    """The console blocks of the README."""
    return _BLOCK.findall(text)


def main() -> None:
    """Run the tour on a stack of its own and write what it prints into the README."""
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder) / "home", durable=False) as stack:
        engine = create_engine(stack.environment["BYOK_DATABASE_URL"], 1)
        migrate.upgrade(engine)
        engine.dispose()
        worker = processes.start_worker(stack, stack.environment)
        processes.wait_for_worker(stack, worker)

        def renew(match: re.Match[str]) -> str:
            lines = []
            for step in parse(match[0]):
                printed = run(step, Path(folder), tour_environment(stack)).rstrip("\n")
                lines += [f"$ {step.command}", *([line.rstrip() for line in printed.splitlines()])]
            text = "\n".join(lines) + "\n"
            return re.sub(r"cli:\S+", "cli:you ", text).replace("cli:you  ", "cli:you ")

        README.write_text(_BLOCK.sub(renew, README.read_text()))


if __name__ == "__main__":
    main()
