"""``make fuzz``: a million damaged tokens and streams against warm ciphers, in two processes."""

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from multiprocessing.sharedctypes import SynchronizedArray
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from byok.embedded.stack import Stack
from tests.fuzz.processes import Told, make_database, run, set_up

_COLUMNS = (TextColumn("inputs"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())


def main() -> int:
    """0 if nothing happened that must not."""
    arguments = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    arguments.add_argument("--inputs", type=int, default=1_000_000, help="how many, in all")
    arguments.add_argument("--seed", type=int, default=1, help="the same seed makes the same inputs")
    arguments.add_argument("--processes", type=int, default=2)
    options = arguments.parse_args()
    context = multiprocessing.get_context("spawn")
    done: SynchronizedArray[int] = context.Array("q", options.processes)
    share = -(-options.inputs // options.processes)
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder) / "home", durable=False) as stack:
        began = time.monotonic()
        server = stack.environment["BYOK_DATABASE_URL"]
        with ProcessPoolExecutor(options.processes, context, set_up, (done,)) as pool:
            parts = [
                pool.submit(run, place, make_database(server, f"fuzz_{place}"), options.seed + place, share)
                for place in range(options.processes)
            ]
            follow(parts, done, options.inputs)
        seconds = time.monotonic() - began
    told = [part.result() for part in parts]
    report(told, seconds)
    return int(any(one.wrong for one in told))


def follow(parts: Sequence[Future[Told]], done: "SynchronizedArray[int]", count: int) -> None:
    """Show how far they are until all have ended."""
    console = Console(stderr=True)
    with Progress(*_COLUMNS, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=count)
        while wait(parts, timeout=0.5).not_done:
            progress.update(bar, completed=sum(done[:]))


def report(told: Sequence[Told], seconds: float) -> None:
    """The table, and what was wrong."""
    counts: Counter[tuple[str, str]] = Counter()
    for one in told:
        counts.update(one.counts)
    table = Table("read as", "answer", "inputs", title="what became of the inputs")
    for (kind, answer), number in sorted(counts.items()):
        table.add_row(kind, answer, f"{number:,}")
    console, done = Console(), sum(one.done for one in told)
    console.print(table)
    console.print(f"{done:,} inputs in {seconds:.0f} s, {done / seconds:,.0f} a second")
    for one in told:
        if one.wrong is not None:
            console.print(f"WRONG: {one.wrong}", style="bold red", soft_wrap=True, markup=False)


if __name__ == "__main__":
    sys.exit(main())
