"""Does a worker's memory stay what it is? From 1,000 rotations on to 100,000, with few tenants and many."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from benchmarks.rotation_world import RotationWorld

FIRST = 1_000
# A tenth of the rotations each time, so that no key gets many versions.
ROUNDS = 10
FLEETS = {"few tenants": 10, "many tenants": 5_000}
TOLERANCE = 0.10
console, progress = Console(), Console(stderr=True)


@dataclass(frozen=True)
class Reading:
    """A worker's memory after so many rotations."""

    rotations: int
    rss_mib: float


def run(
    world: RotationWorld, threads: int, settings: Mapping[str, str], rotations: int, *, as_json: bool
) -> None:
    """Measure each fleet with a worker of its own, and print."""
    curves = {
        name: _curve(world, name, tenants, rotations, threads, settings) for name, tenants in FLEETS.items()
    }
    if as_json:
        print(json.dumps({name: [asdict(one) for one in curve] for name, curve in curves.items()}, indent=2))
        return
    table = Table(title="RSS of a worker, MiB", title_justify="left")
    for column in ("after rotations", *(f"{name} ({FLEETS[name]:,})" for name in curves)):
        table.add_column(column, justify="right")
    for readings in zip(*curves.values(), strict=True):
        table.add_row(f"{readings[0].rotations:,}", *(f"{one.rss_mib:.1f}" for one in readings))
    console.print(table)
    for name, curve in curves.items():
        growth = curve[-1].rss_mib / curve[0].rss_mib - 1
        console.print(f"{name}: {growth:+.1%} from the first to the last; target: {TOLERANCE:.0%} at most")


def _curve(
    world: RotationWorld, name: str, tenants: int, rotations: int, threads: int, settings: Mapping[str, str]
) -> list[Reading]:
    world.add_keys(tenants, rotations // ROUNDS)
    world.start_worker(threads, environment=settings)
    done = world.rotate_all(FIRST).rotations
    curve = [Reading(done, world.memory().rss_mib)]
    while done < rotations:
        with progress.status(f"{name}: {done:,} of {rotations:,} rotations …"):
            done += world.rotate_all().rotations
        curve.append(Reading(done, world.memory().rss_mib))
    world.stop_worker()
    return curve
