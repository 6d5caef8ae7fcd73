"""Requests, deliveries, deaths, faults, lost messages and moving clocks in any order, against a model.

The services run over a real PostgreSQL; the model is a dictionary that says what each act should lead to.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from byok.core.audit import verify_chain
from byok.core.lifecycle import check_rotation, check_versions
from byok.core.model import RequestOutcome, Rotation, RotationReason, TenantState
from byok.errors import ByokError, KmsIntegrityError, KmsUnavailable
from byok.failpoints import FailPoint, arm, disarm
from byok.services.setbacks import MAX_ATTEMPTS
from byok.store.postgres import PostgresStore
from tests.conftest import empty
from tests.integration.acts import Killed, die
from tests.world import SWEEP, World

CONTEXT = b"users.email:1"
KMS_CALLS = ["GenerateDataKeyWithoutPlaintext", "DescribeKey", "Decrypt"]
# Dying at a point leaves the rotation in this state; None: in the state in which it was.
DEATHS: dict[FailPoint, str | None] = {
    FailPoint.CLAIMED: None,
    FailPoint.KMS_GENERATED: "requested",
    FailPoint.GENERATED: "generated",
    FailPoint.GATE_PASSED: "generated",
    FailPoint.VALIDATED: "validated",
    FailPoint.PROMOTING: "validated",
    FailPoint.PROMOTED: "done",
}
# The state from which a run reaches the point; from a later one it does not come by any more.
REACHED_FROM = {
    FailPoint.KMS_GENERATED: ("requested",),
    FailPoint.GENERATED: ("requested",),
    FailPoint.GATE_PASSED: ("requested", "generated"),
    FailPoint.VALIDATED: ("requested", "generated"),
}
OPEN = ("requested", "generated", "validated")


@dataclass
class Modelled:
    """What the model knows of a rotation."""

    state: str
    reason: RotationReason
    claimed_until: datetime | None = None
    attempts: int = 0
    version: int | None = None


@dataclass
class Model:
    """A key, its rotations and its versions, as they should be."""

    rotations: dict[UUID, Modelled] = field(default_factory=dict)
    requests: dict[str, UUID] = field(default_factory=dict)
    versions: dict[int, str] = field(default_factory=dict)
    suspended: bool = False
    kms_disabled: bool = False

    def open_rotation(self) -> UUID | None:
        return next((id_ for id_, one in self.rotations.items() if one.state in OPEN), None)

    def reach(self, rotation: Modelled, state: str) -> None:
        """A rotation came as far as ``state``."""
        if rotation.state == "requested" and state != "requested":
            rotation.version = len(self.versions) + 1
            self.versions[rotation.version] = "pending"
        rotation.state = state
        if state == "done":
            for number, before in self.versions.items():
                if before == "active":
                    compromised = rotation.reason is RotationReason.COMPROMISE
                    self.versions[number] = "compromised" if compromised else "retired"
            assert rotation.version is not None
            self.versions[rotation.version] = "active"

    def fail(self, rotation: Modelled) -> None:
        rotation.state = "failed"
        rotation.claimed_until = None
        if rotation.version is not None:
            self.versions[rotation.version] = "rejected"


class RotationMachine(RuleBasedStateMachine):
    engine: sa.Engine

    @initialize()
    def begin(self) -> None:
        empty(self.engine)
        self.world = World(PostgresStore(self.engine))
        self.world.add_tenant()
        self.world.add_key()
        self.arn = self.world.versions()[0].kms_key_arn
        (initial,) = self.world.show().rotations
        self.model = Model(
            rotations={initial.id: Modelled("done", initial.reason, attempts=1, version=1)},
            requests={"initial": initial.id},
            versions={1: "active"},
        )
        self.tokens: list[bytes] = []

    # --- acts -------------------------------------------------------------------------------------

    @precondition(lambda self: not self.model.suspended)
    @rule(
        name=st.sampled_from("abcdefgh"),
        reason=st.sampled_from([RotationReason.FORCED, RotationReason.COMPROMISE]),
    )
    def request(self, name: str, reason: RotationReason) -> None:
        requested = self.world.services.requests.request(
            "acme", "pii", reason=reason, requested_by="test", idempotency_key=name
        )
        self._expect(name, reason, requested.rotation.id, requested.outcome)

    def _expect(self, name: str, reason: RotationReason, id_: UUID, outcome: RequestOutcome) -> None:
        model, open_id = self.model, self.model.open_rotation()
        if name in model.requests:
            assert (id_, outcome) == (model.requests[name], RequestOutcome.REPEATED)
            return
        if open_id is None:
            assert outcome is RequestOutcome.NEW
            model.rotations[id_] = Modelled("requested", reason)
        else:
            assert (id_, outcome) == (open_id, RequestOutcome.JOINED)
            if reason is RotationReason.COMPROMISE:
                model.rotations[id_].reason = reason
        model.requests[name] = id_

    @precondition(lambda self: self.world.queue.rotations)
    @rule(data=st.data(), keep=st.booleans(), fault=st.sampled_from(["", "outage", "alarm"]))
    def deliver(self, data: st.DataObject, keep: bool, fault: str) -> None:
        """One message, from any place of the queue, perhaps not for the last time."""
        id_ = self._pick(data, keep)
        model, rotation = self.model, self.model.rotations[id_]
        if fault:
            kind = KmsUnavailable if fault == "outage" else KmsIntegrityError
            self.world.kms.fail_next(kind("ordered"))
        raised = self._run(id_)
        self.world.kms.clear_faults()
        if not self._claim(rotation):
            assert raised is None
            return
        rotation.claimed_until = None
        asks_kms = rotation.state in ("requested", "generated")
        if rotation.attempts > MAX_ATTEMPTS or model.suspended:
            model.fail(rotation)
        elif asks_kms and fault == "outage":
            if rotation.attempts >= MAX_ATTEMPTS:
                model.fail(rotation)
        elif asks_kms and fault == "alarm":
            model.fail(rotation)
        elif asks_kms and model.kms_disabled:
            model.suspended = True
            model.fail(rotation)
        else:
            assert raised is None
            model.reach(rotation, "done")

    @precondition(lambda self: self.world.queue.rotations and not self.model.kms_disabled)
    @rule(data=st.data(), point=st.sampled_from(sorted(DEATHS)))
    def deliver_and_die(self, data: st.DataObject, point: FailPoint) -> None:
        """The message was not acknowledged: it will be delivered again."""
        id_ = self._pick(data, keep=True)
        rotation = self.model.rotations[id_]
        arm(point, die)
        raised = self._run(id_)
        disarm()
        if not self._claim(rotation):
            assert raised is None
            return
        if point is not FailPoint.CLAIMED and (rotation.attempts > MAX_ATTEMPTS or self.model.suspended):
            self.model.fail(rotation)
        elif rotation.state in REACHED_FROM.get(point, OPEN):
            assert isinstance(raised, Killed)
            self.model.reach(rotation, DEATHS[point] or rotation.state)
        else:
            self.model.reach(rotation, "done")

    @precondition(
        lambda self: self.world.queue.rotations and not self.model.kms_disabled and not self.model.suspended
    )
    @rule(
        data=st.data(), during=st.sampled_from(["GenerateDataKeyWithoutPlaintext", "DescribeKey", "Decrypt"])
    )
    def be_overtaken(self, data: st.DataObject, during: str) -> None:
        """A worker stalls in a KMS call, its claim lapses, another does the work; then the first goes on."""
        id_ = self._pick(data, keep=False)
        rotation = self.model.rotations[id_]
        overtaken = []

        def overtake() -> None:
            del self.world.kms.hooks[during]
            self.world.clock.advance(seconds=2 * SWEEP.total_seconds())
            overtaken.append(self._run(id_))

        self.world.kms.hooks[during] = overtake
        raised = self._run(id_)
        self.world.kms.hooks.clear()
        assert raised is None or rotation.attempts >= MAX_ATTEMPTS
        if not self._claim(rotation, late=bool(overtaken)):
            return
        if rotation.attempts > MAX_ATTEMPTS:
            self.model.fail(rotation)
            return
        if overtaken:
            rotation.attempts += 1
            if rotation.attempts > MAX_ATTEMPTS:
                self.model.fail(rotation)
                return
        self.model.reach(rotation, "done")

    @precondition(lambda self: self.world.queue.rotations)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        self._pick(data, keep=False)

    @rule(seconds=st.sampled_from([1, 16, 60, 400]))
    def pass_time(self, seconds: int) -> None:
        self.world.clock.advance(seconds=seconds)

    @rule()
    def set_the_clock_back(self) -> None:
        self.world.clock.step(hours=-3)

    @rule()
    def sweep(self) -> None:
        self.world.services.scheduling.sweep()

    @rule()
    def become_due(self) -> None:
        """A month passes, and two Beats tick."""
        self.world.clock.advance(days=31)
        due = self.model.open_rotation() is None and not self.model.suspended
        counts = [self.world.another_process().scheduling.dispatch_due() for _ in range(2)]
        assert counts == [int(due), 0]
        if due:
            rotation = self.world.show().rotations[0]
            self.model.rotations[rotation.id] = Modelled("requested", RotationReason.SCHEDULED)
            self.model.requests[f"due {rotation.id}"] = rotation.id

    @rule()
    def revoke(self) -> None:
        self.world.kms.disable(self.arn)
        self.model.kms_disabled = True

    @rule()
    def give_access_back(self) -> None:
        self.world.kms.enable(self.arn)
        self.model.kms_disabled = False
        assert self.world.services.checkups.probe("acme") is TenantState.ACTIVE
        self.model.suspended = False

    @precondition(lambda self: not self.model.suspended and not self.model.kms_disabled)
    @rule()
    def encrypt(self) -> None:
        cipher = self.world.another_process().vault.cipher("acme", "pii")
        self.tokens.append(cipher.encrypt(b"ada@example.com", context=CONTEXT))

    def _pick(self, data: st.DataObject, keep: bool) -> UUID:
        messages = self.world.queue.rotations
        index = data.draw(st.integers(0, len(messages) - 1))
        work = messages[index][2]
        if not keep:
            del messages[index]
        return work.id

    def _run(self, id_: UUID) -> BaseException | None:
        try:
            self.world.another_process().rotations.run(id_)
        except (ByokError, Killed) as error:
            # Other processes leave a KMS alone that just failed; tests/property/test_lease_schedules.py is
            # about that.
            self.world.cache.failing.clear()
            self.world.cache.claims.clear()
            return error
        return None

    def _claim(self, rotation: Modelled, *, late: bool = False) -> bool:
        """Whether a worker got it; a claim from a clock that was far ahead is void. ``late``: the clock
        was moved on since."""
        now, until = self.world.clock.now(), rotation.claimed_until
        if late:
            now -= 2 * SWEEP
        if rotation.state not in OPEN or (until is not None and now < until <= now + 2 * SWEEP):
            return False
        rotation.claimed_until = now + SWEEP
        rotation.attempts += 1
        return True

    def _rotations(self) -> Sequence[Rotation]:
        with self.world.store.transaction() as tx:
            return tx.rotations.list(self.world.show().key.id, limit=1000)

    # --- what must be -----------------------------------------------------------------------------

    @invariant()
    def everything_is_as_modelled(self) -> None:
        details = self.world.show()
        check_versions(details.versions)
        assert {one.id for one in self._rotations()} == set(self.model.rotations)
        for rotation in self._rotations():
            check_rotation(rotation)
            modelled = self.model.rotations[rotation.id]
            assert (rotation.state.value, rotation.reason) == (modelled.state, modelled.reason)
            assert rotation.attempts == modelled.attempts
        states = {version.number: version.state.value for version in details.versions}
        assert states == self.model.versions
        active = [version for version in details.versions if version.state == "active"]
        assert len(active) == 1
        assert all(check.passed for check in active[0].checks)

    def teardown(self) -> None:
        """Let the sweeper bring everything to its end; then look at everything once more."""
        if not hasattr(self, "world"):
            return
        disarm()
        self.give_access_back()
        for _ in range(2 * MAX_ATTEMPTS):
            self.world.clock.advance(seconds=400)
            self.sweep()
            for _, _, rotation in self.world.queue.rotations:
                self._run(rotation.id)
            self.world.queue.rotations.clear()
        details, rotations = self.world.show(), self._rotations()
        assert [one for one in rotations if one.is_open] == []
        done = [one for one in rotations if one.state == "done"]
        used = [one for one in details.versions if one.activated_at is not None]
        assert len(done) == len(used)  # one version for each rotation that was done, and no more
        cipher = self.world.another_process().vault.cipher("acme", "pii")
        assert all(cipher.decrypt(token, context=CONTEXT) == b"ada@example.com" for token in self.tokens)
        events = self.world.services.registry.audit_log("acme")
        verify_chain(events)
        told = [event.action for event in events]
        assert told.count("version.activated") == len(used)
        assert told.count("rotation.requested") == len(rotations)
        assert told.count("version.generated") == len(details.versions)
        self.world.services.claims.close()


@pytest.mark.timeout(300)
def test_rotations_behave_as_modelled(engine: sa.Engine) -> None:
    machine: Any = type("Machine", (RotationMachine,), {"engine": engine})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
            phases=[Phase.generate],  # shrinking on a real database would take minutes
        ),
    )
