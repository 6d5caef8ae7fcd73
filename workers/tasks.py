"""The tasks: doors, not rooms. Each takes ids, calls one service, and tells in a word how it ended.

``byok.keys.generate``, ``byok.keys.rotate`` and ``byok.keys.validate`` may also be sent by name from an
application that does not import byok. Their contract is in ``docs/celery.md``: arguments may be added, never
renamed; one that this version does not know is logged and otherwise ignored.
"""

import time
from collections import Counter
from uuid import UUID

from celery import shared_task
from celery.exceptions import Reject

from byok import queue
from byok.core.model import Job, Rotation, RotationReason, RotationState
from byok.errors import ByokError, InvalidInput, StoreUnavailable
from byok.logs import bind, get_logger
from workers.base import ByokTask

log = get_logger(__name__)

_REQUEUE_PAUSE_SECONDS = 2.0


@shared_task(bind=True, name=queue.GENERATE)
def generate(self: ByokTask, tenant: str, key: str, rotation_id: str | None = None, **unknown: object) -> str:
    """Generate, validate and activate the first version of a key."""
    _note_unknown(unknown)
    if rotation_id is None:
        rotation_id = _record(self, tenant, key, RotationReason.INITIAL, "initial", None)
    return _run(self, rotation_id)


@shared_task(bind=True, name=queue.ROTATE)
def rotate(
    self: ByokTask,
    tenant: str,
    key: str,
    reason: str = "forced",
    idempotency_key: str | None = None,
    requested_by: str | None = None,
    rotation_id: str | None = None,
    **unknown: object,
) -> str:
    """Rotate a key: run the recorded rotation, or record the request first where there is none."""
    _note_unknown(unknown)
    if rotation_id is None:
        rotation_id = _record(self, tenant, key, _reason(reason), idempotency_key, requested_by)
    return _run(self, rotation_id)


@shared_task(bind=True, name=queue.ROTATE_MANY)
def rotate_many(self: ByokTask, rotation_ids: list[str], **unknown: object) -> str:
    """Run recorded rotations that nobody waits for."""
    _note_unknown(unknown)
    works = self.services.rotations.run_many([_uuid(text) for text in rotation_ids])
    ends = Counter(_end_of(work.error, work.rotation.state) for work in works)
    return ", ".join(f"{count} {end}" for end, count in sorted(ends.items())) or "nothing to do"


def _end_of(error: Exception | None, state: RotationState) -> str:
    if error is None:
        return state.value
    return error.code if isinstance(error, ByokError) else type(error).__name__


def _record(
    task: ByokTask,
    tenant: str,
    key: str,
    reason: RotationReason,
    idempotency_key: str | None,
    requested_by: str | None,
) -> str:
    """Record a request that came by name. Until that is done the message is all there is of it, so
    without a database it goes back to the queue."""
    try:
        requested = task.services.requests.record(
            tenant,
            key,
            reason=reason,
            requested_by=requested_by or "task",
            # A message that is delivered twice has the same task id, and so asks for the same rotation.
            idempotency_key=idempotency_key or task.request.id,
        )
    except StoreUnavailable as error:
        log.warning("request_goes_back_to_the_queue", error=error.message)
        time.sleep(_REQUEUE_PAUSE_SECONDS)
        raise Reject(error.message, requeue=True) from None
    return str(requested.rotation.id)


def _run(task: ByokTask, rotation_id: str) -> str:
    bind(rotation_id=rotation_id)
    rotation: Rotation | None = task.services.rotations.run(_uuid(rotation_id))
    if rotation is None:
        return "nothing to do"
    return f"{rotation.state}: version {rotation.version_number}"


@shared_task(bind=True, name=queue.VALIDATE)
def validate(self: ByokTask, tenant: str, key: str, **unknown: object) -> str:
    """Validate the active version of a key."""
    _note_unknown(unknown)
    number, checks = self.services.checkups.validate(tenant, key, actor="validation")
    return f"version {number} passed {len(checks)} checks"


@shared_task(bind=True, name=queue.PROBE)
def probe(self: ByokTask, tenant: str) -> str:
    """Prove a tenant's access to its KMS key."""
    return self.services.checkups.probe(tenant).value


@shared_task(bind=True, name=queue.SYNC_ROTATION)
def sync_rotation(self: ByokTask, tenant: str, **unknown: object) -> str:
    """Follow what a tenant's KMS key says of rotation."""
    _note_unknown(unknown)
    synced = self.services.follower.sync(tenant, actor="sync")
    return f"{len(synced.keys)} keys, {len(synced.rotated)} rotations requested"


@shared_task(bind=True, name=queue.WATCH)
def watch(self: ByokTask, tenant: str, **unknown: object) -> str:
    """Look over a tenant's side for what was changed there."""
    _note_unknown(unknown)
    looked = self.services.lookout.look(tenant, actor="watch")
    told = f"{len(looked.changes)} changes, {len(looked.open)} open"
    return told if looked.unreached is None else f"no answer: {told}"


@shared_task(bind=True, name=queue.REENCRYPT)
def reencrypt(self: ByokTask, campaign_id: str, batch: int | None = None, **unknown: object) -> str:
    """Run a campaign's next batch."""
    _note_unknown(unknown)
    campaign = self.services.reencryption.run(_uuid(campaign_id), batch)
    if campaign is None:
        return "nothing to do"
    # Not where it is: that is a primary key of the application's, and may be somebody's name.
    return f"{campaign.state}: {campaign.phase}, pass {campaign.pass_number}"


@shared_task(bind=True, name=queue.RESEAL)
def reseal(self: ByokTask, reseal_id: str, batch: int | None = None, **unknown: object) -> str:
    """Run a reseal's next batch."""
    _note_unknown(unknown)
    run = self.services.resealing.run(_uuid(reseal_id), batch)
    return "nothing to do" if run is None else f"{run.state}: pass {run.pass_number}"


@shared_task(bind=True, name=queue.MOVE)
def move_kms_key(self: ByokTask, move_id: str, batch: int | None = None, **unknown: object) -> str:
    """Run the next batch of a tenant's move to another KMS key."""
    _note_unknown(unknown)
    move = self.services.moving.run(_uuid(move_id), batch)
    if move is None:
        return "nothing to do"
    return move.state.value if move.wait is None else f"{move.state}, waits: {move.wait.cause}"


@shared_task(bind=True, name=queue.DISPATCH_DUE)
def dispatch_due(self: ByokTask) -> str:
    """Request a rotation of every key that is due."""
    return _tick(self, Job.DISPATCH_DUE)


@shared_task(bind=True, name=queue.SWEEP)
def sweep(self: ByokTask) -> str:
    """Set going again what got lost."""
    return _tick(self, Job.SWEEP)


@shared_task(bind=True, name=queue.PUBLISH_PROBES)
def publish_probes(self: ByokTask) -> str:
    """Publish a probe for each tenant whose time has come."""
    return _tick(self, Job.PROBE)


@shared_task(bind=True, name=queue.PUBLISH_VALIDATIONS)
def publish_validations(self: ByokTask) -> str:
    """Publish a validation for each key whose time has come."""
    return _tick(self, Job.VALIDATE)


@shared_task(bind=True, name=queue.PUBLISH_SYNCS)
def publish_syncs(self: ByokTask) -> str:
    """Publish a sync for each tenant whose time has come."""
    return _tick(self, Job.SYNC_ROTATION)


@shared_task(bind=True, name=queue.PUBLISH_WATCHES)
def publish_watches(self: ByokTask) -> str:
    """Publish a look over the side of each tenant whose time has come."""
    return _tick(self, Job.WATCH)


@shared_task(bind=True, name=queue.POST_WEBHOOKS)
def post_webhooks(self: ByokTask) -> str:
    """Post what customers' endpoints are to be told."""
    return _tick(self, Job.WEBHOOKS)


def _tick(task: ByokTask, job: Job) -> str:
    count = task.services.scheduling.tick(job)
    return "not due" if count is None else f"{job}: {count}"


def _reason(text: str) -> RotationReason:
    try:
        return RotationReason(text)
    except ValueError:
        known = ", ".join(RotationReason)
        raise InvalidInput(f"{text!r} is not a reason for a rotation", remedy=f"use one of {known}") from None


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise InvalidInput(f"{text!r} is not the id of a rotation, a campaign, a reseal or a move") from None


def _note_unknown(unknown: dict[str, object]) -> None:
    if unknown:
        # Names only: what somebody else put there may be anything.
        log.warning("unknown_arguments", names=sorted(unknown), hint="sent by a newer version?")
