"""Several processes that count together: the forked ones of a prefork pool, or of a web server.

prometheus_client does it by files in the folder that PROMETHEUS_MULTIPROC_DIR names, some for each process.
Counts of a process that died stay in its files: what was counted was counted. Only its gauges go.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector


class ProcessFolder(Collector):
    """What all processes that share the folder counted, added up.

    The folder belongs to the processes of one worker or service on one machine: process ids tell whose a
    file is.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._files = MultiProcessCollector(None, str(folder))  # type: ignore[no-untyped-call]  # prometheus_client leaves it untyped

    def clear(self) -> None:
        """Remove what processes left that live no more: to be called before the first one counts.

        Later it would be seen as a counter that went back, and so as new events.
        """
        for file in self._folder.glob("*.db"):
            if not _lives(_process_of(file)):
                file.unlink(missing_ok=True)

    def collect(self) -> Iterator[Metric]:
        """The metrics now. Gauges of processes that died, however they did, are removed first."""
        for file in self._folder.glob("gauge_live*.db"):
            process_id = _process_of(file)
            if not _lives(process_id):
                mark_process_dead(process_id, str(self._folder))  # type: ignore[no-untyped-call]  # untyped, too
        yield from self._files.collect()  # type: ignore[no-untyped-call]  # and so is this


def _process_of(file: Path) -> int:
    return int(file.stem.rpartition("_")[2])


def _lives(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True
