"""What must hold after every fault. Read from the tables and the audit log, not from what workers say."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

import sqlalchemy as sa

from byok.core.audit import verify_chain
from byok.core.lifecycle import check_rotation, check_versions
from byok.core.model import OpenWork
from byok.wiring import build
from tests.chaos.fleet import CONTEXT, Fleet

_IN_SQL = {
    "keys without exactly one active version": """
        SELECT count(*) FROM keys k WHERE 1 <> (
          SELECT count(*) FROM key_versions v WHERE v.key_id = k.id AND v.state = 'active')""",
    "keys whose numbers have a gap": """
        SELECT count(*) FROM (SELECT key_id FROM key_versions GROUP BY key_id
          HAVING max(number) <> count(*) OR min(number) <> 1) gaps""",
    "versions that were active without validation": """
        SELECT count(*) FROM key_versions WHERE activated_at IS NOT NULL AND (
          validated_at IS NULL OR fingerprint IS NULL OR canary IS NULL OR validated_at > activated_at)""",
    "pending versions without an open rotation": """
        SELECT count(*) FROM key_versions v JOIN rotations r ON r.id = v.rotation_id
          WHERE v.state = 'pending' AND r.finished_at IS NOT NULL""",
    "rotations that failed without a reason": """
        SELECT count(*) FROM rotations WHERE state = 'failed' AND coalesce(failure, '') = ''""",
}


_CHECKS = {False: 9, True: 7}  # that the gate has, by whether byok started the rotation by itself


@dataclass
class Verdict:
    """What was found. ``lost``: requests that did not end; ``doubled``: versions too many."""

    lost: int = 0
    doubled: int = 0
    failed: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return self.lost == 0 and self.doubled == 0 and not self.problems


def look(fleet: Fleet) -> Verdict:
    """Look at everything."""
    works = fleet.works()
    verdict = Verdict()
    verdict.lost = len(fleet.unrecorded()) + sum(work.rotation.is_open for work in works)
    verdict.failed = sum(work.rotation.state == "failed" for work in works)
    for what, query in _IN_SQL.items():
        if (count := fleet.count(query)) > 0:
            verdict.problems.append(f"{count} {what}")
    _look_at_requests(fleet, verdict)
    _look_at_audit(fleet, works, verdict)
    _look_at_versions(fleet, works, verdict)
    _look_at_tokens(fleet, verdict)
    return verdict


def _look_at_requests(fleet: Fleet, verdict: Verdict) -> None:
    """Each rotation was asked for; each request is answered by the rotation that it was told."""
    unasked = fleet.count(
        "SELECT count(*) FROM rotations r WHERE requested_by <> 'schedule' AND NOT EXISTS"
        " (SELECT 1 FROM rotation_requests q WHERE q.rotation_id = r.id)"
    )
    verdict.doubled += unasked
    with fleet.engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT idempotency_key, rotation_id FROM rotation_requests"))
        answers: dict[str, UUID] = {row.idempotency_key: row.rotation_id for row in rows}
    told = [asked for asked in fleet.ledger if asked.rotation_id is not None]
    others = [asked for asked in told if answers.get(asked.idempotency_key) != asked.rotation_id]
    if others:
        verdict.problems.append(f"{len(others)} requests are answered by another rotation than was told")


def _look_at_audit(fleet: Fleet, works: Sequence[OpenWork], verdict: Verdict) -> None:
    """Each chain is whole, and tells of each act once."""
    told: Counter[tuple[str, str]] = Counter()
    passed: dict[str, int] = {}  # by rotation: how many checks its version had passed before it was used
    for tenant in {name.tenant for name in fleet.keys}:
        events = fleet.runtime.services.registry.audit_log(tenant)
        verify_chain(events)
        for event in events:
            rotation = str(event.details.get("rotation"))
            told[event.action, rotation] += 1
            if event.action == "version.validated":
                passed[rotation] = int(event.details["checks"] or 0)
            routine = event.details.get("reason") == "scheduled" and event.details.get("previous") is not None
            if event.action == "version.activated" and passed.get(rotation) != _CHECKS[routine]:
                verdict.problems.append(f"rotation {rotation} activated a version that had not passed")
    for work in works:
        state, id_ = work.rotation.state, str(work.rotation.id)
        verdict.doubled += max(0, told["version.activated", id_] - 1)
        expected = {
            "rotation.requested": 1,
            "version.generated": int(work.rotation.version_number is not None),
            "version.activated": int(state == "done"),
            "rotation.failed": int(state == "failed"),
        }
        for action, count in expected.items():
            if told[action, id_] != count:
                verdict.problems.append(f"{told[action, id_]} × {action} for {state} rotation {id_}")


def _look_at_versions(fleet: Fleet, works: Sequence[OpenWork], verdict: Verdict) -> None:
    """As many versions were ever active as rotations were done."""
    done: Counter[tuple[str, str]] = Counter()
    for work in works:
        check_rotation(work.rotation)
        done[work.tenant, work.key] += work.rotation.state == "done"
    for name in fleet.keys:
        versions = fleet.runtime.services.registry.show_key(name.tenant, name.key).versions
        check_versions(versions)
        used = sum(version.activated_at is not None for version in versions)
        verdict.doubled += max(0, used - done[name.tenant, name.key])
        if used < done[name.tenant, name.key]:
            verdict.problems.append(f"{name}: {used} versions for {done[name.tenant, name.key]} rotations")


def _look_at_tokens(fleet: Fleet, verdict: Verdict) -> None:
    """Every ciphertext from before opens, in a process that remembers nothing."""
    fresh = build(fleet.runtime.settings)
    try:
        for token in fleet.tokens:
            cipher = fresh.services.vault.cipher(token.of.tenant, token.of.key)
            if cipher.decrypt(token.token, context=CONTEXT) != token.plaintext:
                verdict.problems.append(f"a token of {token.of} opens to something else")
    finally:
        fresh.close()
