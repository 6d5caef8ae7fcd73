"""``byok up``: the embedded stack with worker, Beat, Flower and exporter, until Ctrl-C."""

import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

from rich.panel import Panel

from byok.cli.output import console
from byok.errors import StackUnavailable

if TYPE_CHECKING:
    from byok.embedded.stack import Stack

_COLOURS = {"worker": "cyan", "beat": "magenta", "flower": "yellow", "exporter": "green"}


def up() -> None:
    """Run servers, worker, Beat, Flower and exporter until Ctrl-C. Data stays in .byok/ (BYOK_HOME)."""
    # Imported on use: a production install has no servers to embed.
    from byok.cli import processes
    from byok.embedded.stack import Stack
    from byok.embedded.supervisor import stop_signals
    from byok.settings import inherited_environment, load_stack_settings

    console.print("[yellow]development stack: its KMS is a simulator and its keys protect nothing[/]")
    with stop_signals(), Stack(load_stack_settings().home, on_step=_step) as stack:
        _migrate(stack.environment)
        environment = stack.environment | inherited_environment()
        worker_port = stack.home.port("metrics")
        worker = processes.start_worker(stack, environment | {"BYOK_METRICS_PORT": str(worker_port)})
        beat = processes.start_beat(stack, environment)
        flower, flower_url = processes.start_flower(stack, environment)
        exporter, metrics_url = processes.start_exporter(stack, environment)
        processes.wait_for_worker(stack, worker)
        processes.wait_for_flower(stack, flower)
        processes.wait_for_exporter(stack, exporter)
        _step("worker, Beat, Flower and exporter")
        console.print(
            Panel(
                f"Flower      {flower_url}  (user byok, password {stack.home.secret('flower')})\n"
                f"metrics     {metrics_url} of the fleet\n"
                f"            http://127.0.0.1:{worker_port}/metrics of the worker\n"
                f"in another terminal:  source {Path(sys.prefix, 'bin', 'activate')}\n"
                f"                      source {stack.home.env_file}\n"
                f"then:                 byok status\n"
                f"logs        {stack.home.log_folder}",
                title="byok is up; Ctrl-C stops it",
            )
        )
        try:
            _follow({child.name: child.log_file for child in (worker, beat, flower, exporter)}, stack)
        except KeyboardInterrupt:
            console.print("stopping …")
    console.print("stopped; the data is kept")


def _step(what: str) -> None:
    console.print(f"  [green]✓[/] {what}")


def _migrate(environment: dict[str, str]) -> None:
    from byok.store import migrate
    from byok.store.postgres import create_engine

    engine = create_engine(environment["BYOK_DATABASE_URL"], 1)
    migrate.upgrade(engine)
    engine.dispose()
    _step("database schema")


def _follow(log_files: dict[str, Path], stack: "Stack") -> None:
    """Print what the processes write, until one of them ends."""
    files = {name: path.open(errors="replace") for name, path in log_files.items()}
    while (ended := stack.supervisor.ended_child()) is None:
        for name, file in files.items():
            _print_new_lines(name, file)
        time.sleep(0.2)
    raise StackUnavailable(f"{ended.name} ended: {ended.log_tail()}", remedy=f"see {ended.log_file}")


def _print_new_lines(name: str, file: IO[str]) -> None:
    for line in file:
        console.print(f"[{_COLOURS[name]}]{name:>8}[/] │ ", end="")
        console.print(line.rstrip("\n"), markup=False, soft_wrap=True)
