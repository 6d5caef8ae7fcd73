"""What each step of rotations writes: for many in one transaction, after KMS was asked for each alone."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from byok.core.audit import AuditEntry
from byok.core.lifecycle import check_versions, next_rotation_time
from byok.core.model import (
    KeyVersion,
    Rotation,
    RotationEvent,
    RotationReason,
    Tenant,
    VersionEvent,
    VersionState,
)
from byok.failpoints import FailPoint, reached
from byok.ports import Clock, Random, Transaction
from byok.services.suspension import require_active
from byok.services.work import Work


class Steps:
    """The steps. Each returns the rotations as they are then, without those another worker is ahead with."""

    def __init__(self, clock: Clock, random: Random) -> None:
        self._clock = clock
        self._random = random

    def generated(self, tx: Transaction, works: Sequence[Work]) -> Sequence[Rotation]:
        """Insert the pending versions that KMS made data keys for, but of tenants that moved to another KMS
        key meanwhile."""
        now = self._clock.now()
        # Held: a move is committed either before, and seen here, or after, and finds these versions.
        tenants = tx.tenants.hold_all({work.tenant.id for work in works})
        works = [work for work in works if is_unmoved(work, tenants)]
        numbered = [replace(work.rotation, version_number=_pending(work).number) for work in works]
        generated = tx.rotations.transition(numbered, RotationEvent.GENERATE, now)
        ours = _of(works, generated)
        if ours:
            tx.versions.add([_pending(work) for work in ours])
            tx.audit.append_all(
                [
                    _entry(work, "version.generated", now, request_id=_pending(work).kms_request_id)
                    for work in ours
                ]
            )
        return generated

    def validated(self, tx: Transaction, works: Sequence[Work]) -> Sequence[Rotation]:
        """Note that the pending versions passed their gates."""
        now = self._clock.now()
        advanced = tx.rotations.transition([work.rotation for work in works], RotationEvent.VALIDATE, now)
        ours = _of(works, advanced)
        if ours:
            tx.versions.set_validated([_pending(work) for work in ours], now)
            tx.audit.append_all(
                [_entry(work, "version.validated", now, checks=len(_pending(work).checks)) for work in ours]
            )
        return advanced

    def promoted(self, tx: Transaction, works: Sequence[Work]) -> Sequence[Rotation]:
        """Make the pending versions active in the place of those that are.

        Raises:
            TenantNotActive: one of the tenants was stopped meanwhile.
        """
        now = self._clock.now()
        keys = tx.keys.lock_all({work.key.id for work in works})
        tenants = tx.tenants.get_all({work.tenant.id for work in works})
        for work in works:
            require_active(tenants[work.tenant.id])
            work.key = keys[work.key.id]
        # First of all, since a reason may have become graver: a compromise joined it.
        done = tx.rotations.transition([work.rotation for work in works], RotationEvent.PROMOTE, now)
        ours = _of(works, done)
        if ours:
            self._activate(tx, ours, {rotation.id: rotation.reason for rotation in done}, now)
            reached(FailPoint.PROMOTING)
        return done

    def _activate(
        self, tx: Transaction, works: Sequence[Work], reasons: Mapping[UUID, RotationReason], now: datetime
    ) -> None:
        """Retire each key's active version for its new one, and say when it is due next."""
        entries, due = [], {}
        compromised: list[KeyVersion] = []
        retired: list[KeyVersion] = []
        activated = []
        versions = tx.versions.list_since_active([work.key.id for work in works])
        for work in works:
            reason, (first, *_) = reasons[work.rotation.id], versions[work.key.id]
            check_versions(versions[work.key.id], first=first.number)
            previous = first if first.state is VersionState.ACTIVE else None
            if previous is not None:
                (compromised if reason is RotationReason.COMPROMISE else retired).append(previous)
            activated.append(made_by(work.rotation, versions[work.key.id]))
            due[work.key.id] = next_rotation_time(now, work.key.rotation_period, self._random.fraction())
            number = None if previous is None else previous.number
            entries.append(_entry(work, "version.activated", now, reason=reason.value, previous=number))
        # These first: at most one is active.
        tx.versions.transition(compromised, VersionEvent.COMPROMISE, now)
        tx.versions.transition(retired, VersionEvent.RETIRE, now)
        tx.versions.transition(activated, VersionEvent.ACTIVATE, now)
        tx.keys.set_next_rotations(due)
        tx.audit.append_all(entries)


def _pending(work: Work) -> KeyVersion:
    assert work.pending is not None
    return work.pending


def made_by(rotation: Rotation, versions: Sequence[KeyVersion]) -> KeyVersion:
    """The version that a rotation makes."""
    return next(one for one in versions if one.number == rotation.version_number)


def is_unmoved(work: Work, tenants: Mapping[UUID, Tenant]) -> bool:
    """Whether the tenant of a rotation has the connection still that it had at the beginning."""
    return tenants[work.tenant.id].connection == work.tenant.connection


def _of(works: Sequence[Work], rotations: Sequence[Rotation]) -> Sequence[Work]:
    ids = {rotation.id for rotation in rotations}
    return [work for work in works if work.rotation.id in ids]


def _entry(work: Work, action: str, at: datetime, **details: str | int | None) -> AuditEntry:
    """What the audit log is told. The version is the one that the rotation makes."""
    pending = work.pending
    number = work.rotation.version_number if pending is None else pending.number
    told: dict[str, str | int | None] = {
        "key": work.key.name,
        "version": number,
        "rotation": str(work.rotation.id),
    }
    return AuditEntry(work.tenant.id, at, "rotation", action, told | details)
