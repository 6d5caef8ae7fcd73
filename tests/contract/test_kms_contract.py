"""What every KMS must do: the fake of the service tests, and the AWS adapter over the simulator.

The stub of the benchmarks knows neither accounts nor states: it must do the rest.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from uuid import UUID, uuid4

import pytest

from benchmarks.kms_process import KmsProcess
from byok.core import policies
from byok.core.arns import KmsKeyArn, RoleArn
from byok.core.encryption_context import version_context
from byok.core.findings import Cause, failed
from byok.core.model import Connection
from byok.crypto.hazmat import SecretBytes
from byok.embedded.stack import Stack
from byok.errors import KmsAccessRevoked, KmsIntegrityError
from byok.kms.aws import AwsKms
from byok.kms.bulkhead import Bulkhead
from byok.ports import Kms
from byok.simulator.customer import CustomerAccount
from byok.wiring import Runtime
from tests.customers import join
from tests.fakes import CountingMetrics, FakeClock, FakeKms, MemorySpool
from tests.world import kms_key_arn

KEY = uuid4()


@dataclass
class Case:
    kms: Kms
    connection: Connection
    account: CustomerAccount | FakeKms | None
    tenant_id: UUID

    def context(self, number: int = 1) -> dict[str, str]:
        return version_context(self.tenant_id, KEY, number)

    def disable(self) -> None:
        assert self.account is not None
        if isinstance(self.account, FakeKms):
            self.account.disable(self.connection.kms_key_arn)
        else:
            self.account.disable_key(str(self.connection.kms_key_arn))

    def enable(self) -> None:
        assert self.account is not None
        if isinstance(self.account, FakeKms):
            self.account.enable(self.connection.kms_key_arn)
        else:
            self.account.enable_key(str(self.connection.kms_key_arn))


@pytest.fixture(params=["fake", "aws", "stub"])
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    with make_case(request.param, request) as made:
        yield made


@pytest.fixture(params=["fake", "aws"])
def case_with_states(request: pytest.FixtureRequest) -> Iterator[Case]:
    with make_case(request.param, request) as made:
        yield made


@contextmanager
def make_case(kind: str, request: pytest.FixtureRequest) -> Iterator[Case]:
    connection = Connection(uuid4(), KmsKeyArn.parse(kms_key_arn()), "external-id", tenant_name="acme")
    if kind == "fake":
        fake = FakeKms()
        yield Case(fake, connection, fake, connection.tenant_id)
        return
    stack: Stack = request.getfixturevalue("stack")
    if kind == "stub":
        request.getfixturevalue("environment")  # the vendor's credentials
        role = RoleArn.parse(f"arn:aws:iam::{connection.kms_key_arn.account}:role/byok")
        with KmsProcess(stack) as stub:
            kms = AwsKms(FakeClock(), Bulkhead(), CountingMetrics(), MemorySpool(), endpoint_url=stub.url)
            yield Case(kms, replace(connection, role_arn=role), None, connection.tenant_id)
        return
    runtime: Runtime = request.getfixturevalue("runtime")
    customer = join(stack, runtime, "acme")
    assert customer.tenant.connection is not None
    yield Case(runtime.kms, customer.tenant.connection, customer.account, customer.tenant.id)


def test_a_data_key_unwraps_to_the_same_32_bytes_each_time(case: Case) -> None:
    wrapped = case.kms.generate_data_key(case.connection, case.context())
    first = case.kms.decrypt(case.connection, wrapped.ciphertext, case.context())
    again = case.kms.decrypt(case.connection, wrapped.ciphertext, case.context(), fresh_session=True)
    assert len(first.secret) == 32
    assert first.secret == again.secret
    assert wrapped.request_id
    assert first.request_id not in ("", again.request_id)


def test_two_data_keys_differ(case: Case) -> None:
    one, two = (
        case.kms.decrypt(
            case.connection,
            case.kms.generate_data_key(case.connection, case.context()).ciphertext,
            case.context(),
        )
        for _ in range(2)
    )
    assert one.secret != two.secret


def test_another_context_is_an_integrity_error(case: Case) -> None:
    wrapped = case.kms.generate_data_key(case.connection, case.context(1))
    with pytest.raises(KmsIntegrityError):
        case.kms.decrypt(case.connection, wrapped.ciphertext, case.context(2))
    assert case.kms.refuses_context(case.connection, wrapped.ciphertext, case.context(2))
    assert not case.kms.refuses_context(case.connection, wrapped.ciphertext, case.context(1))


@pytest.mark.parametrize("place", [0, 5, 40, -1])
def test_a_flipped_bit_is_an_integrity_error(case: Case, place: int) -> None:
    blob = bytearray(case.kms.generate_data_key(case.connection, case.context()).ciphertext)
    blob[place] ^= 1
    with pytest.raises(KmsIntegrityError):
        case.kms.decrypt(case.connection, bytes(blob), case.context())


def test_a_disabled_key_is_a_revocation_with_evidence_and_comes_back(case_with_states: Case) -> None:
    case = case_with_states
    wrapped = case.kms.generate_data_key(case.connection, case.context())
    case.disable()
    for call in (
        lambda: case.kms.decrypt(case.connection, wrapped.ciphertext, case.context()),
        lambda: case.kms.generate_data_key(case.connection, case.context()),
    ):
        with pytest.raises(KmsAccessRevoked) as caught:
            call()
        assert caught.value.aws_code == "DisabledException"
        assert caught.value.request_id
    case.enable()
    case.kms.decrypt(case.connection, wrapped.ciphertext, case.context())


def test_describe_works_in_every_state_and_proves_nothing(case_with_states: Case) -> None:
    assert case_with_states.kms.describe_key(case_with_states.connection).state == "Enabled"
    case_with_states.disable()
    described = case_with_states.kms.describe_key(case_with_states.connection)
    assert described.state == "Disabled"
    assert described.arn == str(case_with_states.connection.kms_key_arn)


def test_check_connection_passes_and_fails_with_the_key(case_with_states: Case) -> None:
    assert not failed(case_with_states.kms.check_connection(case_with_states.connection))
    case_with_states.disable()
    (finding,) = failed(case_with_states.kms.check_connection(case_with_states.connection))
    assert (finding.check, finding.cause) == ("kms-key-is-usable", Cause.KEY_DISABLED)


def test_describe_names_an_enabled_symmetric_key(case: Case) -> None:
    described = case.kms.describe_key(case.connection)
    assert described.arn == str(case.connection.kms_key_arn)
    assert (described.state, described.spec, described.usage, described.manager) == (
        "Enabled", "SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT", "CUSTOMER",
    )  # fmt: skip


@dataclass
class Errand:
    """A role with two KMS keys, and the rights of both errands."""

    kms: Kms
    source: Connection
    target: Connection
    context: dict[str, str]


@pytest.fixture(params=["fake", "aws"])
def errand(request: pytest.FixtureRequest) -> Errand:
    if request.param == "fake":
        old = Connection(uuid4(), KmsKeyArn.parse(kms_key_arn()), "external-id", tenant_name="acme")
        moved = replace(old, kms_key_arn=KmsKeyArn.parse(kms_key_arn(2)))
        return Errand(FakeKms(), old, moved, version_context(old.tenant_id, KEY, 1))
    runtime: Runtime = request.getfixturevalue("runtime")
    customer = join(request.getfixturevalue("stack"), runtime, "acme")
    source, new = customer.tenant.connection, customer.account.create_key()
    assert source is not None
    tenant_id = customer.tenant.id
    both = policies.role_permissions([customer.kms_key, new], tenant_id)
    both["Statement"] += [
        policies.migration_source_statement(customer.kms_key, tenant_id),
        policies.migration_target_statement(new, tenant_id),
        policies.export_statement(customer.kms_key, b"byok export"),
    ]
    customer.account.put_role_policy("byok", both)
    target = replace(source, kms_key_arn=KmsKeyArn.parse(new))
    return Errand(runtime.kms, source, target, version_context(tenant_id, KEY, 1))


def test_re_encrypted_data_keys_unwrap_under_the_other_kms_key_to_the_same_secret(errand: Errand) -> None:
    wrapped = errand.kms.generate_data_key(errand.source, errand.context)
    moved = errand.kms.re_encrypt(errand.source, errand.target, wrapped.ciphertext, errand.context)
    before = errand.kms.decrypt(errand.source, wrapped.ciphertext, errand.context)
    after = errand.kms.decrypt(errand.target, moved.ciphertext, errand.context)
    assert before.secret == after.secret
    assert moved.request_id
    with pytest.raises(KmsIntegrityError):
        errand.kms.decrypt(errand.source, moved.ciphertext, errand.context)


def test_what_is_encrypted_for_an_export_unwraps_under_its_context_alone(errand: Errand) -> None:
    context = {"associatedData": b"byok export".hex()}
    wrapped = errand.kms.encrypt(errand.source, SecretBytes(bytes(range(32))), context)
    assert wrapped.ciphertext
    with pytest.raises((KmsIntegrityError, KmsAccessRevoked)):
        errand.kms.decrypt(errand.source, wrapped.ciphertext, errand.context)


def test_without_the_rights_of_an_errand_aws_refuses_it(stack: Stack, runtime: Runtime) -> None:
    customer = join(stack, runtime, "acme")
    source = customer.tenant.connection
    assert source is not None
    target = replace(source, kms_key_arn=KmsKeyArn.parse(customer.account.create_key()))
    context = version_context(customer.tenant.id, KEY, 1)
    wrapped = runtime.kms.generate_data_key(source, context)
    with pytest.raises(KmsAccessRevoked):
        runtime.kms.re_encrypt(source, target, wrapped.ciphertext, context)
    with pytest.raises(KmsAccessRevoked):
        runtime.kms.encrypt(source, SecretBytes(bytes(32)), context)
