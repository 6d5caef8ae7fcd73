"""What tests of rotations do over and over: ask, let time pass, let a worker die."""

from byok.core.model import (
    RotationReason,
)
from tests.world import SWEEP, World

FORCED = RotationReason.FORCED


class Killed(BaseException):
    """What a SIGKILL is to the process: no handler of ours runs."""


def die() -> None:
    raise Killed


def request(world: World, idempotency_key: str | None = None, reason: RotationReason = FORCED) -> str:
    requested = world.services.requests.request(
        "acme", "pii", reason=reason, requested_by="test", idempotency_key=idempotency_key
    )
    return str(requested.rotation.id)


def pass_time(world: World, sweeps: float) -> None:
    world.clock.advance(seconds=SWEEP.total_seconds() * sweeps)
