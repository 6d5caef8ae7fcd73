"""``byok doctor``: print what the checks found."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from byok.cli.output import AsJson, console, print_json, show_verdict
from byok.cli.services import open_runtime
from byok.core.findings import Verdict
from byok.errors import Unavailable

if TYPE_CHECKING:
    from byok.doctor import Result


def doctor(as_json: AsJson = False) -> None:
    """Check settings, master keys, servers, workers and AWS; each finding with its remedy.

    Exits with 6 when a check failed. Changes nothing, and asks no customer's KMS.
    """
    from byok.doctor import examine

    with open_runtime() as runtime:
        results = examine(runtime)
    if as_json:
        print_json(
            [
                {"name": one.name, "verdict": one.verdict, "seen": one.seen, "remedy": one.remedy or None}
                for one in results
            ]
        )
    else:
        console.print(_summary(results))
        console.print(_listed(results))
    if any(one.verdict is Verdict.FAILED for one in results):
        raise Unavailable("something is not as it must be", remedy="see what failed above")


def _summary(results: "Sequence[Result]") -> str:
    counts = Counter(one.verdict for one in results)
    told = (f"{counts[verdict]} {show_verdict(verdict)}" for verdict in reversed(Verdict) if counts[verdict])
    return f"[bold]doctor:[/] {', '.join(told)}\n"


def _listed(results: "Sequence[Result]") -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    # The gravest first; of these the first is more likely the cause.
    gravest_first = list(reversed(Verdict))
    for one in sorted(results, key=lambda one: gravest_first.index(one.verdict)):
        grid.add_row(show_verdict(one.verdict), one.name, escape(one.seen))
        if one.remedy:
            grid.add_row("", "", f"[yellow]→[/] {escape(one.remedy)}")
    return grid
