"""The tasks: doors, not rooms. Each takes ids, calls one service, and tells in a word how it ended.

``byok.keys.rotate`` and ``byok.keys.validate`` may also be sent by name from an application that does
not import byok (``docs/celery.md``).
"""

from uuid import UUID

from celery import shared_task

from byok import queue
from byok.core.model import Rotation, RotationReason
from workers.base import ByokTask


@shared_task(bind=True, name=queue.GENERATE)
def generate(self: ByokTask, *, tenant: str, key: str, rotation_id: str | None = None) -> str:
    """Generate, validate and activate the first version of a key."""
    return _rotate(self, tenant, key, rotation_id, RotationReason.INITIAL, idempotency_key="initial")


@shared_task(bind=True, name=queue.ROTATE)
def rotate(
    self: ByokTask,
    *,
    tenant: str,
    key: str,
    rotation_id: str | None = None,
    reason: str = "forced",
    idempotency_key: str | None = None,
) -> str:
    """Rotate a key: run the recorded rotation, or record the request first where there is none."""
    return _rotate(self, tenant, key, rotation_id, RotationReason(reason), idempotency_key)


def _rotate(
    task: ByokTask,
    tenant: str,
    key: str,
    rotation_id: str | None,
    reason: RotationReason,
    idempotency_key: str | None,
) -> str:
    rotations = task.services.rotations
    if rotation_id is None:
        # A message that is delivered twice has the same task id, and so asks for the same rotation.
        rotation = rotations.record(
            tenant,
            key,
            reason=reason,
            requested_by="task",
            idempotency_key=idempotency_key or task.request.id,
        ).rotation
        return _outcome(rotations.run(rotation.id))
    return _outcome(rotations.run(UUID(rotation_id)))


def _outcome(rotation: Rotation | None) -> str:
    if rotation is None:
        return "nothing to do"
    return f"{rotation.state}: version {rotation.version_number}"


@shared_task(bind=True, name=queue.VALIDATE)
def validate(self: ByokTask, *, tenant: str, key: str) -> str:
    """Validate the active version of a key."""
    number, checks = self.services.checkups.validate(tenant, key, actor="validation")
    return f"version {number} passed {len(checks)} checks"


@shared_task(bind=True, name=queue.PROBE)
def probe(self: ByokTask, *, tenant: str) -> str:
    """Prove a tenant's access to its KMS key."""
    return self.services.checkups.probe(tenant).value


@shared_task(bind=True, name=queue.DISPATCH_DUE)
def dispatch_due(self: ByokTask) -> str:
    """Request a rotation of every key that is due."""
    return f"{self.services.scheduling.dispatch_due()} requested"


@shared_task(bind=True, name=queue.SWEEP)
def sweep(self: ByokTask) -> str:
    """Publish again what got lost."""
    return f"{self.services.scheduling.sweep()} published"


@shared_task(bind=True, name=queue.PUBLISH_PROBES)
def publish_probes(self: ByokTask) -> str:
    """Publish a probe for each tenant."""
    return f"{self.services.scheduling.publish_probes()} published"


@shared_task(bind=True, name=queue.PUBLISH_VALIDATIONS)
def publish_validations(self: ByokTask) -> str:
    """Publish a validation for each key."""
    return f"{self.services.scheduling.publish_validations()} published"
