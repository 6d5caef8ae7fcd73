"""All checks, one after the other; a server that is away fails its own and no other's."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from byok.doctor.aws import check_aws
from byok.doctor.database import check_database
from byok.doctor.fleet import check_fleet
from byok.doctor.flower import check_flower
from byok.doctor.master_keys import check_master_keys, check_rings
from byok.doctor.redis import check_broker, check_cache, check_separation
from byok.doctor.result import Result, failed, note
from byok.doctor.settings import check_settings
from byok.errors import ByokError, Unavailable
from byok.wiring import Runtime

Check = Callable[[Runtime], Iterator[Result]]

CHECKS: Mapping[str, Check] = {
    "settings": check_settings,
    "postgresql": check_database,
    "records": check_master_keys,
    "rings": check_rings,
    "broker": check_broker,
    "cache": check_cache,
    "separation": check_separation,
    "fleet": check_fleet,
    "flower": check_flower,
    "aws": check_aws,
}


def examine(runtime: Runtime) -> Sequence[Result]:
    """Run all checks. Nothing is changed, and no customer's KMS is asked."""
    results: list[Result] = []
    away: set[type[ByokError]] = set()
    for name, check in CHECKS.items():
        try:
            # One at a time: what was found before a server failed counts.
            for result in check(runtime):
                results.append(result)  # noqa: PERF402  # as above
        except Unavailable as error:
            if type(error) in away:
                results.append(note(name, f"not looked at: {error.message}"))
            else:
                results.append(_failure(name, error))
            away.add(type(error))
        except ByokError as error:
            results.append(_failure(name, error))
    return results


def _failure(name: str, error: ByokError) -> Result:
    return failed(name, error.message, error.remedy or "docs/runbook.md")
