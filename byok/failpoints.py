"""The places at which a process is most inconveniently killed, by name.

A fail point does nothing unless somebody armed it. `byok.wiring` does that for ``BYOK_FAIL_POINT``, which
is refused unless ``BYOK_ENV=test``: the process then kills itself there. Tests in one process arm a point
with an exception.
"""

from collections.abc import Callable
from enum import StrEnum


class FailPoint(StrEnum):
    """Between which two acts. Each is a moment at which something is done and its sequel is not."""

    REQUEST_RECORDED = "request-recorded"  # committed, not published
    DISPATCH_RECORDED = "dispatch-recorded"  # due keys' requests committed, none published
    SWEEP_RECORDED = "sweep-recorded"  # found and put off to the next sweep, none published
    CLAIMED = "claimed"  # the claim is committed, nothing else done
    KMS_GENERATED = "kms-generated"  # KMS made a data key that nobody stored
    GENERATED = "generated"  # version n+1 is committed as pending
    GATE_PASSED = "gate-passed"  # validated, not written down
    VALIDATED = "validated"  # written down
    PROMOTING = "promoting"  # every statement of the promotion made, not committed
    PROMOTED = "promoted"  # committed; cache not warmed, message not acknowledged
    FAILING = "failing"  # every statement of the failure made, not committed
    CAMPAIGN_RECORDED = "campaign-recorded"  # a campaign is committed, not published
    ROWS_REPLACED = "rows-replaced"  # committed in the application's database, the cursor is not moved
    CURSOR_MOVED = "cursor-moved"  # committed, the batch goes on
    BATCH_ENDED = "batch-ended"  # the claim is given back, the next batch not published
    SHREDDING_BEGUN = "shredding-begun"  # the point of no return is committed, nothing is destroyed
    KEY_SHREDDING = "key-shredding"  # every statement of a key's end made, not committed
    KEY_SHREDDED = "key-shredded"  # committed; other keys of the tenant have their wrapped keys
    OFFBOARDING = "offboarding"  # every statement of a tenant's end made, not committed
    OFFBOARDED = "offboarded"  # committed, nothing proven yet
    CERTIFYING = "certifying"  # the certificate is signed and written, not committed
    RESEAL_RECORDED = "reseal-recorded"  # a reseal is committed, not published
    RECORDS_RESEALED = "records-resealed"  # a page has its new seals and the cursor moved, not committed
    FINISHING = "finishing"  # every statement of a campaign's or reseal's end made, not committed
    MOVE_RECORDED = "move-recorded"  # a move to another KMS key is committed, not published
    MOVE_WRAPPING = "move-wrapping"  # KMS wrapped and proved versions, nothing of it is stored
    MOVE_WRAPPED = "move-wrapped"  # second wrappings are committed, the batch goes on
    MOVE_BATCH_ENDED = "move-batch-ended"  # the claim is given back, the next batch not published
    MOVE_COMMITTING = "move-committing"  # every statement of the change-over made, not committed
    MOVE_COMMITTED = "move-committed"  # committed; no process was told
    MOVE_ROTATING = "move-rotating"  # rotations are committed, not published


_armed: dict[FailPoint, Callable[[], None]] = {}


def reached(point: FailPoint) -> None:
    """Say that this point is reached."""
    if action := _armed.get(point):
        action()


def arm(point: FailPoint, action: Callable[[], None]) -> None:
    """Have ``action`` called whenever ``point`` is reached."""
    _armed[point] = action


def disarm() -> None:
    """Make all points harmless again."""
    _armed.clear()
