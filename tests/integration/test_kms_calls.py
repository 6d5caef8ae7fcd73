"""The capacity model's requests to KMS for each act are those that a customer finds in its CloudTrail."""

from collections import Counter
from datetime import timedelta

import pytest

from byok.core.footprint import ASSUMED_ROLES, CRYPTOGRAPHIC_OPERATIONS, KMS_REQUESTS, Act
from byok.core.model import RotationReason, RotationState
from byok.embedded.stack import Stack
from byok.simulator.control import SimulatorControl
from byok.wiring import Runtime
from tests.customers import Customer, add_key, join


class Trail:
    """What an act adds to the customer's trail."""

    def __init__(self, simulator: SimulatorControl, customer: Customer) -> None:
        self._simulator = simulator
        self._customer = customer
        self._read = self._records()

    def requests(self) -> dict[str, int]:
        """KMS requests since the last time, by operation, refused ones too."""
        seen, self._read = self._read, self._records()
        return dict(self._read - seen)

    def _records(self) -> Counter[str]:
        trail = self._simulator.cloudtrail(self._customer.account.account_id)
        return Counter(
            record["eventName"] for record in trail if record["eventSource"] == "kms.amazonaws.com"
        )


@pytest.fixture
def acme(stack: Stack, runtime: Runtime, simulator: SimulatorControl) -> Customer:
    return join(stack, runtime, "acme")


@pytest.fixture
def trail(simulator: SimulatorControl, acme: Customer) -> Trail:
    return Trail(simulator, acme)


def rotate(runtime: Runtime) -> None:
    requested = runtime.services.requests.record(
        "acme", "pii", reason=RotationReason.SCHEDULED, requested_by="schedule"
    )
    done = runtime.services.rotations.run(requested.rotation.id)
    assert done is not None
    assert done.state is RotationState.DONE


def test_the_first_rotation_of_a_key(runtime: Runtime, trail: Trail) -> None:
    add_key(runtime, "acme")
    assert trail.requests() == KMS_REQUESTS[Act.FIRST_ROTATION]


def test_a_rotation(runtime: Runtime, trail: Trail) -> None:
    add_key(runtime, "acme")
    trail.requests()
    rotate(runtime)
    assert trail.requests() == KMS_REQUESTS[Act.ROTATION]


def test_a_validation_whose_earlier_version_nobody_has_a_lease_on(runtime: Runtime, trail: Trail) -> None:
    add_key(runtime, "acme")
    rotate(runtime)
    _lose_all_leases(runtime)
    trail.requests()
    runtime.services.checkups.validate("acme", "pii", actor="test")
    assert trail.requests() == KMS_REQUESTS[Act.VALIDATION]


def test_a_probe(runtime: Runtime, trail: Trail) -> None:
    add_key(runtime, "acme")
    add_key(runtime, "acme", "cards")
    trail.requests()
    runtime.services.checkups.probe("acme")
    assert trail.requests() == KMS_REQUESTS[Act.PROBE], "of a tenant, however many keys it has"


def test_a_sync(runtime: Runtime, trail: Trail) -> None:
    add_key(runtime, "acme")
    trail.requests()
    runtime.services.follower.sync("acme", actor="test")
    assert trail.requests() == KMS_REQUESTS[Act.SYNC]


def test_a_look_over_a_tenants_side(runtime: Runtime, trail: Trail, simulator: SimulatorControl) -> None:
    trail.requests()
    assumed = len(simulator.calls(operation="AssumeRole"))
    runtime.services.lookout.look("acme", actor="test")
    assert trail.requests() == KMS_REQUESTS[Act.WATCH]
    assert len(simulator.calls(operation="AssumeRole")) - assumed == ASSUMED_ROLES[Act.WATCH]


def test_a_lease_is_one_request_for_all_its_uses(runtime: Runtime, trail: Trail) -> None:
    add_key(runtime, "acme")
    _lose_all_leases(runtime)
    trail.requests()
    for _ in range(3):
        runtime.services.vault.cipher("acme", "pii").encrypt(b"x", context=b"c")
    assert trail.requests() == KMS_REQUESTS[Act.LEASE]


def test_without_caching_each_use_is_a_request(runtime: Runtime, trail: Trail) -> None:
    add_key(runtime, "acme", ttl=timedelta(0))
    trail.requests()
    cipher = runtime.services.vault.cipher("acme", "pii")
    token = cipher.encrypt(b"x", context=b"c")
    cipher.decrypt(token, context=b"c")
    assert trail.requests() == {name: 2 * count for name, count in KMS_REQUESTS[Act.LEASE].items()}


def test_a_probe_renews_the_lease_of_the_tenants_first_key(runtime: Runtime, trail: Trail) -> None:
    """Why the model counts no requests for the leases of those."""
    add_key(runtime, "acme")
    _lose_all_leases(runtime)
    runtime.services.checkups.probe("acme")
    trail.requests()
    runtime.services.vault.cipher("acme", "pii").encrypt(b"x", context=b"c")
    assert trail.requests() == {}


def test_the_operations_of_one_quota_are_among_those_counted() -> None:
    counted = {operation for requests in KMS_REQUESTS.values() for operation in requests}
    assert counted > CRYPTOGRAPHIC_OPERATIONS


def _lose_all_leases(runtime: Runtime) -> None:
    runtime.services.desk.forget()
    runtime.cache.purge(runtime.services.registry.show_tenant("acme")[0].id)
