"""Reads several sources, each by itself and none for long: where one is away, the others are shown."""

import threading
from collections.abc import Callable, Mapping, Sequence

from byok.core.metric_list import REACHABLE, Sample
from byok.errors import ByokError
from byok.logs import get_logger
from byok.ports import Clock
from byok.services.threads import Spawn, spawn

log = get_logger(__name__)

Read = Callable[[], Sequence[Sample]]

# However many ask, a source is read this often at most.
FRESH_SECONDS = 5.0
# Half of what Prometheus waits for a page unless told otherwise (``scrape_timeout``).
PATIENCE_SECONDS = 5.0


class Gathering:
    """Samples of all sources, each named after its server. Thread-safe.

    ``fixed`` are shown beside them, whatever can be reached.
    """

    def __init__(
        self, sources: Mapping[str, Read], fixed: Sequence[Sample], clock: Clock, spawn: Spawn = spawn
    ) -> None:
        self._sources = [_Source(server, read, spawn) for server, read in sources.items()]
        self._fixed = fixed
        self._clock = clock
        self._lock = threading.Lock()
        self._samples: Sequence[Sample] = ()
        self._read_ticks: float | None = None

    def samples(self) -> Sequence[Sample]:
        """All that can be read now, or could a moment ago."""
        with self._lock:
            if self._read_ticks is None or self._clock.ticks() - self._read_ticks >= FRESH_SECONDS:
                self._samples = self._gather()
                self._read_ticks = self._clock.ticks()
            return self._samples

    def _gather(self) -> Sequence[Sample]:
        for source in self._sources:
            source.ask()
        ends_ticks = self._clock.ticks() + PATIENCE_SECONDS
        samples = list(self._fixed)
        for source in self._sources:
            samples += source.answer(ends_ticks - self._clock.ticks())
        return samples


class _Source:
    """A server, asked in a thread of its own, and not again while it has not answered."""

    def __init__(self, server: str, read: Read, spawn: Spawn) -> None:
        self._server = server
        self._read = read
        self._spawn = spawn
        self._is_asked_now = False
        self._answer = _Answer()
        self._answer.is_there.set()

    def ask(self) -> None:
        self._is_asked_now = self._answer.is_there.is_set()
        if self._is_asked_now:
            answer = self._answer = _Answer()
            self._spawn(f"byok-read-{self._server}", lambda: self._run(answer))

    def answer(self, timeout_seconds: float) -> Sequence[Sample]:
        """What it said to the last question; of one that it left unanswered before, there is nothing."""
        came = self._is_asked_now and self._answer.is_there.wait(max(timeout_seconds, 0.0))
        if not came:
            log.warning("source_silent", server=self._server)
        samples = self._answer.samples if came else None
        reachable = Sample(REACHABLE, float(samples is not None), (self._server,))
        return [reachable, *(samples or ())]

    def _run(self, answer: "_Answer") -> None:
        try:
            answer.samples = self._read()
        except ByokError as error:
            log.warning("source_not_read", server=self._server, error=error.message)
        except Exception:
            # The page must come all the same.
            log.exception("source_not_read", server=self._server)
        finally:
            answer.is_there.set()


class _Answer:
    """What a server says, once it does; no samples: it could not be read."""

    def __init__(self) -> None:
        self.is_there = threading.Event()
        self.samples: Sequence[Sample] | None = None
