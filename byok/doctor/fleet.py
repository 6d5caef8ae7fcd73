"""Workers, the queues that they consume, and Beat's ticks."""

from collections.abc import Iterator, Mapping, Sequence

from byok.core.jobs import JobState
from byok.doctor.result import Result, failed, passed, warning
from byok.wiring import Runtime


def check_fleet(runtime: Runtime) -> Iterator[Result]:
    """Ask all workers, then PostgreSQL; raises QueueUnavailable, StoreUnavailable."""
    yield from judge_workers(runtime.queue.workers(), runtime.queue.consumers())
    yield judge_ticks(runtime.services.observer.jobs())


def judge_workers(workers: Sequence[str], consumers: Mapping[str, Sequence[str]]) -> Iterator[Result]:
    """Each queue needs somebody who empties it."""
    if not workers:
        yield failed("workers", "no worker answers", "start one: celery -A workers worker")
        return
    yield passed("workers", ", ".join(workers))
    alone = [queue for queue, names in consumers.items() if not names]
    if alone:
        yield failed(
            "queues",
            f"nobody consumes {', '.join(alone)}: what is there waits for ever",
            "a worker without -Q consumes them all",
        )
    else:
        yield passed("queues", "each is consumed")


def judge_ticks(jobs: Sequence[JobState]) -> Result:
    """Beat's jobs began in time."""
    remedy = "start a Beat (celery -A workers beat --pidfile=); see that a worker consumes maintenance"
    never = [one.job.value for one in jobs if one.began_at is None]
    late = [one.job.value for one in jobs if one.began_at is not None and one.is_late]
    if late:
        return failed("ticks", f"late: {', '.join(late)}", remedy)
    if never:
        return warning("ticks", f"never yet: {', '.join(never)}", remedy)
    return passed("ticks", "all jobs in time")
