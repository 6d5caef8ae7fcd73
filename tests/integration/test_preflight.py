"""The preflight over customers' set-ups that are broken in one way each: it names the right cause.

Every row of the preflight is broken here at least once, so that taking a check away turns a test red.
"""

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import pytest

from byok.core import policies
from byok.core.arns import KmsKeyArn
from byok.core.findings import EXPLANATIONS, Cause, Finding, Verdict
from byok.core.model import Connection, Tenant, TenantState
from byok.core.provisioning import AccessMode
from byok.embedded.stack import Stack
from byok.errors import (
    ConnectionFixed,
    InvalidArn,
    InvalidInput,
    KmsKeyTaken,
    KmsUnavailable,
    LostRace,
    NotReady,
    RoleTaken,
)
from byok.settings import Settings
from byok.simulator import VENDOR_ACCOUNT_ID
from byok.simulator.control import SimulatorControl
from byok.simulator.customer import CustomerAccount
from byok.wiring import Runtime, build
from tests.customers import VENDOR, join, new_account

Statement = dict[str, Any]


@dataclass
class Setup:
    """A customer that has provisioned everything right, before it is broken."""

    runtime: Runtime
    simulator: SimulatorControl
    account: CustomerAccount
    tenant: Tenant
    key: str
    role: str | None

    @property
    def trust(self) -> dict[str, Any]:
        return policies.trust_policy(VENDOR, self.tenant.external_id)

    @property
    def permissions(self) -> dict[str, Any]:
        return policies.role_permissions(self.key, self.tenant.id)

    def change_permissions(self, change: Callable[[list[Statement]], None]) -> None:
        document = json.loads(json.dumps(self.permissions))
        change(document["Statement"])
        self.account.put_role_policy("byok", document)

    def change_condition(self, operator: str | None) -> None:
        trust = json.loads(json.dumps(self.trust))
        condition = trust["Statement"][0]["Condition"]
        value = condition.pop("StringEquals")
        if operator is not None:
            condition[operator] = {"sts:ExternalId": "*"} if "Like" in operator else value
        self.account.update_trust_policy("byok", trust)

    def key_policy(self, *statements: Statement, delegate: bool = True) -> None:
        root = {"AWS": f"arn:aws:iam::{self.account.account_id}:root"}
        own = {"Effect": "Allow", "Principal": root, "Action": "kms:*", "Resource": "*"}
        document = {"Version": "2012-10-17", "Statement": [*([own] if delegate else []), *statements]}
        self.account.put_key_policy(self.key, document)

    def find(self) -> dict[str, Finding]:
        verification = self.runtime.services.onboarding.verify_tenant(
            self.tenant.name, actor="test", kms_key_arn=self.key, role_arn=self.role
        )
        return {finding.check: finding for finding in verification.findings}

    def state(self) -> TenantState:
        return self.runtime.services.registry.show_tenant(self.tenant.name)[0].state


@pytest.fixture
def setup(stack: Stack, runtime: Runtime, simulator: SimulatorControl) -> Setup:
    """Role mode."""
    account = new_account(stack)
    tenant = runtime.services.onboarding.add_tenant("acme", actor="test")
    setup = Setup(runtime, simulator, account, tenant, account.create_key(), None)
    setup.role = account.create_role("byok", setup.trust, setup.permissions)
    return setup


@pytest.fixture
def direct(setup: Setup) -> Setup:
    """Key-policy mode."""
    setup.role = None
    setup.key_policy(*policies.key_policy_statements(VENDOR, setup.tenant.id))
    return setup


def without(action: str) -> Callable[[Setup], None]:
    def drop(statements: list[Statement]) -> None:
        for statement in statements:
            statement["Action"] = [one for one in statement["Action"] if one != action]

    return lambda setup: setup.change_permissions(drop)


def other_tenant(setup: Setup) -> None:
    setup.account.put_role_policy("byok", policies.role_permissions(setup.key, uuid4()))


def via_service(setup: Setup) -> None:
    def add(statements: list[Statement]) -> None:
        statements[0]["Condition"]["StringEquals"]["kms:ViaService"] = "s3.eu-central-1.amazonaws.com"

    setup.change_permissions(add)


def no_context(setup: Setup) -> None:
    setup.change_permissions(lambda statements: statements[0].pop("Condition"))


def everything(setup: Setup) -> None:
    wide = {"Effect": "Allow", "Action": "kms:*", "Resource": setup.key}
    setup.account.put_role_policy("byok", {"Version": "2012-10-17", "Statement": [wide]})


def deny_in_key_policy(setup: Setup) -> None:
    setup.key_policy({"Effect": "Deny", "Principal": "*", "Action": "kms:Decrypt", "Resource": "*"})


def deny_in_role(setup: Setup) -> None:
    deny = {"Effect": "Deny", "Action": "kms:Decrypt", "Resource": "*"}
    setup.change_permissions(lambda statements: statements.append(deny))


def another_key(**settings: Any) -> Callable[[Setup], None]:
    def make(setup: Setup) -> None:
        setup.key = setup.account.kms.create_key(**settings)["KeyMetadata"]["Arn"]
        setup.account.put_role_policy("byok", setup.permissions)

    return make


def no_such_key(setup: Setup) -> None:
    setup.key = f"{setup.key.rpartition('/')[0]}/{uuid4()}"
    setup.account.put_role_policy("byok", setup.permissions)


def aws_managed(setup: Setup) -> None:
    setup.simulator.put_key_in_state(setup.key, "Enabled", manager="AWS")


def nobody(setup: Setup) -> None:
    trust = json.loads(json.dumps(setup.trust))
    trust["Statement"][0]["Principal"] = {"AWS": "arn:aws:iam::999999999999:root"}
    setup.account.update_trust_policy("byok", trust)


BROKEN: dict[str, tuple[Callable[[Setup], object], str, Cause]] = {
    "the role does not exist": (
        lambda s: s.account.delete_role("byok"), "role-can-be-assumed", Cause.ROLE_REFUSES_US,
    ),
    "another external id": (
        lambda s: s.account.update_trust_policy("byok", policies.trust_policy(VENDOR, "another")),
        "role-can-be-assumed", Cause.ROLE_REFUSES_US,
    ),
    "the role trusts somebody else": (nobody, "role-can-be-assumed", Cause.ROLE_REFUSES_US),
    "the region is switched off": (
        lambda s: s.simulator.inject(operation="AssumeRole", code="RegionDisabledException", http_status=403),
        "role-can-be-assumed", Cause.REGION_DISABLED,
    ),
    "no external id asked for": (
        lambda s: s.change_condition(None),
        "role-refuses-missing-external-id", Cause.EXTERNAL_ID_NOT_REQUIRED,
    ),
    "external id only if it is there": (
        lambda s: s.change_condition("StringEqualsIfExists"),
        "role-refuses-missing-external-id", Cause.EXTERNAL_ID_NOT_REQUIRED,
    ),
    "any external id": (
        lambda s: s.change_condition("StringLike"),
        "role-refuses-wrong-external-id", Cause.EXTERNAL_ID_NOT_CHECKED,
    ),
    "no such key": (no_such_key, "kms-key-is-usable", Cause.KEY_NOT_FOUND),
    "disabled": (lambda s: s.account.disable_key(s.key), "kms-key-is-usable", Cause.KEY_DISABLED),
    "about to be deleted": (
        lambda s: s.account.schedule_key_deletion(s.key), "kms-key-is-usable", Cause.KEY_PENDING_DELETION,
    ),
    "imported material gone": (
        lambda s: s.simulator.put_key_in_state(s.key, "PendingImport"),
        "kms-key-is-usable", Cause.KEY_WITHOUT_MATERIAL,
    ),
    "key store disconnected": (
        lambda s: s.simulator.put_key_in_state(s.key, "Unavailable"),
        "kms-key-is-usable", Cause.KEY_NOT_READY,
    ),
    "an RSA key": (
        another_key(KeySpec="RSA_2048", KeyUsage="ENCRYPT_DECRYPT"),
        "kms-key-is-usable", Cause.KEY_OF_WRONG_KIND,
    ),
    "an HMAC key": (
        another_key(KeySpec="HMAC_256", KeyUsage="GENERATE_VERIFY_MAC"),
        "kms-key-is-usable", Cause.KEY_OF_WRONG_KIND,
    ),
    "managed by AWS": (aws_managed, "kms-key-is-usable", Cause.KEY_NOT_CUSTOMER_MANAGED),
    "may not look": (without("kms:DescribeKey"), "kms-key-is-usable", Cause.ACTION_NOT_ALLOWED),
    "may not generate": (
        without("kms:GenerateDataKeyWithoutPlaintext"), "may-generate", Cause.ACTION_NOT_ALLOWED,
    ),
    "may not decrypt": (without("kms:Decrypt"), "may-decrypt", Cause.ACTION_NOT_ALLOWED),
    "the condition names another tenant": (other_tenant, "may-decrypt", Cause.NOT_WITH_OUR_CONTEXT),
    "only via another service": (via_service, "may-generate", Cause.NOT_WITH_OUR_CONTEXT),
    "the key policy leaves nothing to IAM": (
        lambda s: s.key_policy(delegate=False), "kms-key-is-usable", Cause.KEY_POLICY_SILENT,
    ),
    "denied by the key policy": (deny_in_key_policy, "may-decrypt", Cause.DENIED_BY_KEY_POLICY),
    "denied by the role's policy": (deny_in_role, "may-decrypt", Cause.DENIED_BY_ROLE_POLICY),
}  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_set_up_is_refused_with_its_cause_and_a_remedy(setup: Setup, broken: str) -> None:
    break_it, check, cause = BROKEN[broken]
    break_it(setup)
    found = setup.find()[check]
    assert (found.verdict, found.cause) == (Verdict.FAILED, cause)
    assert found.explanation
    assert found.remedy
    assert "{" not in found.explanation + found.remedy
    assert setup.state() is TenantState.PENDING


def test_what_is_right_passes_every_check(setup: Setup) -> None:
    found = setup.find()
    assert {finding.verdict for finding in found.values()} == {Verdict.PASSED}
    assert list(found) == [
        "arns-fit",
        "role-can-be-assumed",
        "role-refuses-missing-external-id",
        "role-refuses-wrong-external-id",
        "session-is-in-key-account",
        "kms-key-is-usable",
        "may-generate",
        "may-decrypt",
        "foreign-tenant-context-is-refused",
        "missing-context-is-refused",
        "no-unneeded-rights",
        "round-trip",
        "wrong-context-is-refused",
        "rotation-status-is-readable",
        "tags-are-readable",
    ]
    assert setup.state() is TenantState.ACTIVE


EXCESS: dict[str, tuple[Callable[[Setup], None], str, Cause]] = {
    "no context condition": (no_context, "foreign-tenant-context-is-refused", Cause.CONTEXT_NOT_ENFORCED),
    "no context condition at all": (no_context, "missing-context-is-refused", Cause.CONTEXT_NOT_ENFORCED),
    "all rights": (everything, "no-unneeded-rights", Cause.TOO_MANY_RIGHTS),
}


@pytest.mark.parametrize("excess", EXCESS)
def test_too_many_rights_of_a_role_are_a_warning_and_under_a_setting_a_refusal(
    setup: Setup, settings: Settings, excess: str
) -> None:
    widen, check, cause = EXCESS[excess]
    widen(setup)
    strict = build(settings.model_copy(update={"refuse_excess_rights": True}))
    lenient, setup.runtime = setup.runtime, strict
    found = setup.find()[check]
    assert (found.verdict, found.cause) == (Verdict.WARNING, cause)
    assert setup.state() is TenantState.PENDING
    strict.close()
    setup.runtime = lenient
    setup.find()
    assert setup.state() is TenantState.ACTIVE


def test_dry_runs_name_each_unneeded_right_and_do_nothing(setup: Setup) -> None:
    everything(setup)
    assert ", ".join(policies.UNNEEDED_ACTIONS) in setup.find()["no-unneeded-rights"].explanation
    assert setup.account.kms.list_grants(KeyId=setup.key)["Grants"] == []


UNNEEDED = ["kms:Encrypt", "kms:GenerateDataKey", "kms:ReEncrypt*", "kms:CreateGrant"]
_OPERATIONS = {
    "kms:Encrypt": "Encrypt",
    "kms:GenerateDataKey": "GenerateDataKey",
    "kms:ReEncrypt*": "ReEncrypt",
    "kms:CreateGrant": "CreateGrant",
}


@pytest.mark.parametrize("action", UNNEEDED)
def test_each_unneeded_right_is_noticed_by_itself(setup: Setup, action: str) -> None:
    wide = {"Effect": "Allow", "Action": action, "Resource": setup.key}
    setup.change_permissions(lambda statements: statements.append(wide))
    found = setup.find()["no-unneeded-rights"]
    assert (found.verdict, found.cause) == (Verdict.WARNING, Cause.TOO_MANY_RIGHTS)
    assert found.explanation.endswith(f": {action}")


@pytest.mark.parametrize("action", UNNEEDED)
def test_an_unneeded_right_counts_as_refused_only_if_it_is(setup: Setup, action: str) -> None:
    setup.simulator.inject(operation=_OPERATIONS[action], code="LimitExceededException")
    found = setup.find()["no-unneeded-rights"]
    assert found.verdict is Verdict.NOTE
    assert f"{action} could not be tried: LimitExceededException" in found.seen
    assert setup.state() is TenantState.ACTIVE


def test_what_is_too_much_is_told_beside_what_could_not_be_tried(setup: Setup) -> None:
    everything(setup)
    setup.simulator.inject(operation="CreateGrant", code="LimitExceededException")
    found = setup.find()["no-unneeded-rights"]
    assert found.cause is Cause.TOO_MANY_RIGHTS
    assert "kms:CreateGrant could not be tried" in found.seen


def test_without_the_options_there_are_notes_and_it_passes(setup: Setup) -> None:
    for action in ("kms:ListResourceTags", "kms:GetKeyRotationStatus"):
        without(action)(setup)
    setup.change_permissions(lambda statements: statements[1].update(Action=["kms:DescribeKey"]))
    found = setup.find()
    for check in ("tags-are-readable", "rotation-status-is-readable"):
        assert found[check].verdict is Verdict.NOTE
        assert "not followed" in found[check].seen
    assert setup.state() is TenantState.ACTIVE


def test_key_policy_mode_passes_without_a_role(direct: Setup) -> None:
    found = direct.find()
    assert direct.state() is TenantState.ACTIVE, found
    assert found["tags-are-readable"].verdict is Verdict.NOTE
    assert "role-can-be-assumed" not in found


@pytest.mark.parametrize("check", ["foreign-tenant-context-is-refused", "missing-context-is-refused"])
def test_key_policy_mode_must_enforce_the_context(direct: Setup, check: str) -> None:
    """Nothing else keeps another tenant from registering this key."""
    statements = policies.key_policy_statements(VENDOR, direct.tenant.id)
    del statements[0]["Condition"]["StringEquals"], statements[0]["Condition"]["ForAllValues:StringEquals"]
    direct.key_policy(*statements)
    found = direct.find()[check]
    assert (found.verdict, found.cause) == (Verdict.FAILED, Cause.CONTEXT_NOT_ENFORCED)
    assert direct.state() is TenantState.PENDING


@pytest.mark.parametrize("action", ["kms:Decrypt", "kms:GenerateDataKeyWithoutPlaintext"])
@pytest.mark.parametrize("check", ["foreign-tenant-context-is-refused", "missing-context-is-refused"])
def test_each_right_by_itself_must_enforce_the_context(direct: Setup, check: str, action: str) -> None:
    statements = policies.key_policy_statements(VENDOR, direct.tenant.id)
    wide = json.loads(json.dumps(statements[0])) | {"Action": [action]}
    del wide["Condition"]["StringEquals"], wide["Condition"]["ForAllValues:StringEquals"]
    direct.key_policy(*statements, wide)
    found = direct.find()[check]
    assert (found.verdict, found.cause) == (Verdict.FAILED, Cause.CONTEXT_NOT_ENFORCED)
    assert found.seen == f"would succeed: {action}"


def test_a_foreign_context_counts_as_refused_only_if_it_is(direct: Setup) -> None:
    direct.simulator.inject(operation="Decrypt", code="ValidationException", after=1)
    found = direct.find()["foreign-tenant-context-is-refused"]
    assert (found.verdict, found.cause) == (Verdict.FAILED, Cause.REFUSED_BY_AWS)
    assert direct.state() is TenantState.PENDING


def test_remedies_of_key_policy_mode_name_the_vendor_and_the_mode(direct: Setup) -> None:
    deny = {"Effect": "Deny", "Principal": "*", "Action": "kms:Decrypt", "Resource": "*"}
    direct.key_policy(*policies.key_policy_statements(VENDOR, direct.tenant.id), deny)
    assert direct.find()["may-decrypt"].remedy == f"except {VENDOR} from that Deny"
    direct.key_policy()
    found = direct.find()["kms-key-is-usable"]
    assert str(VENDOR) in found.explanation
    assert f"--mode key-policy --kms-key-arn {direct.key}" in found.remedy


def test_remedies_of_role_mode_name_the_role(setup: Setup) -> None:
    deny_in_key_policy(setup)
    assert setup.find()["may-decrypt"].remedy == f"except the role {setup.role} from that Deny"
    setup.key_policy(delegate=False)
    assert "--mode" not in setup.find()["kms-key-is-usable"].remedy


def test_remedies_name_the_tenant_where_it_is_known(setup: Setup) -> None:
    setup.account.delete_role("byok")
    setup.find()
    connection = setup.runtime.services.registry.show_tenant("acme")[0].connection
    assert connection is not None
    (_, found) = setup.runtime.kms.check_connection(connection)
    assert found.remedy.endswith("byok tenant policy acme")


def test_remedies_that_are_commands_name_the_region(setup: Setup) -> None:
    setup.account.disable_key(setup.key)
    key = setup.key.rpartition("/")[2]
    enable = f"aws kms enable-key --region eu-central-1 --key-id {key}"
    assert setup.find()["kms-key-is-usable"].remedy == enable
    setup.account.schedule_key_deletion(setup.key)
    cancel = f"aws kms cancel-key-deletion --region eu-central-1 --key-id {key}"
    assert setup.find()["kms-key-is-usable"].remedy == f"{cancel}, then {enable}"


def test_key_policy_mode_for_another_tenant_names_the_context(direct: Setup) -> None:
    direct.key_policy(*policies.key_policy_statements(VENDOR, uuid4()))
    assert direct.find()["may-generate"].cause is Cause.NOT_WITH_OUR_CONTEXT


def test_the_arns_must_fit(setup: Setup, settings: Settings, runtime: Runtime) -> None:
    setup.role, good = None, setup.key
    account = setup.account.account_id
    for key, cause, update in (
        (good.replace(account, VENDOR_ACCOUNT_ID), Cause.KEY_IN_VENDOR_ACCOUNT, {}),
        (good.replace("arn:aws:", "arn:aws-cn:"), Cause.OTHER_PARTITION, {}),
        (good, Cause.REGION_NOT_SERVED, {"kms_regions": "eu-west-1, us-east-1"}),
    ):
        setup.runtime = build(settings.model_copy(update=update))
        setup.key = key
        (found,) = setup.find().values()
        assert (found.check, found.cause) == ("arns-fit", cause)
        setup.runtime.close()
    with pytest.raises(InvalidArn, match="role account"):
        replace(setup, key=good, role="arn:aws:iam::999999999999:role/byok", runtime=runtime).find()


def test_a_session_in_another_account_is_refused(setup: Setup) -> None:
    setup.simulator.inject(operation="GetCallerIdentity", reply_account="999999999999")
    found = setup.find()["session-is-in-key-account"]
    assert (found.verdict, found.cause) == (Verdict.FAILED, Cause.WRONG_ACCOUNT)


GENERATE = "GenerateDataKeyWithoutPlaintext"
# Three dry runs come before the real ones: our own context, another tenant's, none.
REAL, REAL_WITH_WRONG_CONTEXT = 3, 4


@pytest.mark.parametrize(
    "altered",
    [
        {"KeyId": "arn:aws:kms:eu-central-1:1:key/other"},
        {"Plaintext": base64.b64encode(bytes(16)).decode()},
        {"Plaintext": base64.b64encode(bytes(33)).decode()},
    ],
)
def test_what_answers_with_another_key_is_not_aws_kms(setup: Setup, altered: dict[str, str]) -> None:
    setup.simulator.inject(operation="Decrypt", after=REAL, reply=altered)
    found = setup.find()["round-trip"]
    assert (found.verdict, found.cause) == (Verdict.FAILED, Cause.NOT_AWS_KMS)
    assert setup.state() is TenantState.PENDING


@pytest.mark.parametrize("operation", [GENERATE, "Decrypt"])
def test_dry_runs_that_succeed_are_not_enough(setup: Setup, operation: str) -> None:
    setup.simulator.inject(operation=operation, after=REAL, code="AccessDeniedException")
    found = setup.find()
    assert found[f"may-{'generate' if operation == GENERATE else 'decrypt'}"].verdict is Verdict.PASSED
    assert (found["round-trip"].verdict, found["round-trip"].cause) == (
        Verdict.FAILED,
        Cause.ACTION_NOT_ALLOWED,
    )
    assert "wrong-context-is-refused" not in found
    assert setup.state() is TenantState.PENDING


def test_what_decrypts_under_another_context_is_not_aws_kms(setup: Setup) -> None:
    opened = {"KeyId": setup.key, "Plaintext": base64.b64encode(bytes(32)).decode()}
    setup.simulator.inject(operation="Decrypt", after=REAL_WITH_WRONG_CONTEXT, reply=opened)
    found = setup.find()["wrong-context-is-refused"]
    assert (found.verdict, found.cause) == (Verdict.FAILED, Cause.NOT_AWS_KMS)
    assert setup.state() is TenantState.PENDING


@pytest.mark.parametrize("code", ["RegionDisabledException", "ValidationError", "InvalidClientTokenId"])
@pytest.mark.parametrize(
    ("after", "check"), [(1, "role-refuses-missing-external-id"), (2, "role-refuses-wrong-external-id")]
)
def test_a_role_refuses_an_external_id_only_if_it_does(
    setup: Setup, check: str, after: int, code: str
) -> None:
    setup.simulator.inject(operation="AssumeRole", code=code, http_status=403, after=after, times=1)
    found = setup.find()
    assert (found[check].verdict, found[check].cause) == (Verdict.FAILED, Cause.REFUSED_BY_AWS)
    assert code in found[check].explanation
    assert "round-trip" in found  # the others are tried nevertheless
    assert setup.state() is TenantState.PENDING


BREAKS: dict[str, tuple[dict[str, Any], str, Cause]] = {
    "GetCallerIdentity is denied": (
        {"operation": "GetCallerIdentity", "code": "AccessDenied", "http_status": 403},
        "session-is-in-key-account", Cause.REFUSED_BY_AWS,
    ),
    "GetCallerIdentity is a page": (
        {"operation": "GetCallerIdentity", "html_status": 200},
        "session-is-in-key-account", Cause.NOT_AWS_KMS,
    ),
    "the role is gone before the last session": (
        {"operation": "AssumeRole", "code": "AccessDenied", "http_status": 403, "after": 3},
        "no-unneeded-rights", Cause.REFUSED_BY_AWS,
    ),
    "AssumeRole is a page": (
        {"operation": "AssumeRole", "html_status": 200}, "role-can-be-assumed", Cause.NOT_AWS_KMS,
    ),
    "DescribeKey is a page": (
        {"operation": "DescribeKey", "html_status": 200}, "kms-key-is-usable", Cause.NOT_AWS_KMS,
    ),
    "a description without its half": (
        {"operation": "DescribeKey", "reply": {"KeyMetadata": {"KeyId": "x"}}},
        "kms-key-is-usable", Cause.NOT_AWS_KMS,
    ),
    "Decrypt is a page": (
        {"operation": "Decrypt", "html_status": 200, "after": REAL}, "round-trip", Cause.NOT_AWS_KMS,
    ),
}  # fmt: skip


@pytest.mark.parametrize("broken", BREAKS)
def test_whatever_goes_wrong_is_a_row_and_the_others_are_kept(setup: Setup, broken: str) -> None:
    rule, check, cause = BREAKS[broken]
    setup.simulator.inject(**rule)
    found = setup.find()
    assert found["arns-fit"].verdict is Verdict.PASSED
    assert (found[check].verdict, found[check].cause) == (Verdict.FAILED, cause)
    assert setup.state() is TenantState.PENDING


def test_without_credentials_of_our_own_key_policy_mode_says_so(
    direct: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    direct.runtime.kms.forget()
    found = direct.find()
    assert list(found) == ["arns-fit", "kms-key-is-usable"]
    assert "no AWS credentials" in found["kms-key-is-usable"].seen


def test_our_own_lost_identity_is_not_blamed_on_the_customer(
    setup: Setup, settings: Settings, stack: Stack
) -> None:
    canary = CustomerAccount(stack.simulator.url, VENDOR_ACCOUNT_ID).create_role(
        f"canary-{uuid4().hex[:8]}", policies.trust_policy(VENDOR, "nobody-has-it"), setup.permissions
    )
    setup.runtime = build(settings.model_copy(update={"canary_role_arn": canary}))
    setup.account.delete_role("byok")
    found = setup.find()["role-can-be-assumed"]
    assert found.cause is Cause.OUR_IDENTITY
    assert canary in found.seen
    setup.runtime.close()


def test_an_outage_says_nothing(setup: Setup) -> None:
    setup.simulator.throttle(operation="DescribeKey")
    with pytest.raises(KmsUnavailable):
        setup.find()
    assert setup.state() is TenantState.PENDING


def test_two_tenants_share_a_key_or_a_role_only_if_somebody_says_so(stack: Stack, runtime: Runtime) -> None:
    first = join(stack, runtime, "acme")
    runtime.services.onboarding.add_tenant("acme-staging", actor="test")
    verify = runtime.services.onboarding.verify_tenant
    with pytest.raises(KmsKeyTaken, match="another tenant"):
        verify("acme-staging", actor="test", kms_key_arn=first.kms_key)
    other = first.account.create_key()
    with pytest.raises(RoleTaken):
        verify("acme-staging", actor="test", kms_key_arn=other, role_arn=first.role)
    shared = verify("acme-staging", actor="test", kms_key_arn=first.kms_key, role_arn=first.role, shared=True)
    assert shared.tenant.connection is not None
    assert not shared.passed  # the role asks for the other's external id
    said = [
        event for event in runtime.services.registry.audit_log("acme-staging") if event.details.get("shared")
    ]
    assert said[-1].details["shared"] == "true"
    runtime.services.onboarding.add_tenant("globex", actor="test")
    with pytest.raises(KmsKeyTaken):
        verify("globex", actor="test", kms_key_arn=first.kms_key)


def test_every_cause_is_explained_and_shown_by_a_test() -> None:
    assert set(EXPLANATIONS) == set(Cause)
    shown = {cause for _, _, cause in [*BROKEN.values(), *EXCESS.values()]}
    elsewhere = {
        Cause.KEY_IN_VENDOR_ACCOUNT,
        Cause.OTHER_PARTITION,
        Cause.REGION_NOT_SERVED,
        Cause.WRONG_ACCOUNT,
        Cause.NOT_AWS_KMS,
        Cause.OUR_IDENTITY,
        Cause.DENIED_BY_ORGANISATION,
        Cause.REFUSED_BY_AWS,
        Cause.DENIED_BY_BOUNDARY,
        Cause.OUR_POLICY,
    }
    assert shown | elsewhere == set(Cause)


# AWS's words, and whose policy refuses in role mode and in key-policy mode.
WORDS = {
    "with an explicit deny in a resource-based policy": (
        Cause.DENIED_BY_KEY_POLICY, Cause.DENIED_BY_KEY_POLICY,
    ),
    "with an explicit deny in an identity-based policy": (Cause.DENIED_BY_ROLE_POLICY, Cause.OUR_POLICY),
    "with an explicit deny in a service control policy": (Cause.DENIED_BY_ORGANISATION, Cause.OUR_POLICY),
    "with an explicit deny in a resource control policy": (
        Cause.DENIED_BY_ORGANISATION, Cause.DENIED_BY_ORGANISATION,
    ),
    "with an explicit deny in a permissions boundary": (Cause.DENIED_BY_BOUNDARY, Cause.OUR_POLICY),
    "with an explicit deny in a session policy": (Cause.OUR_POLICY, Cause.OUR_POLICY),
    "with an explicit deny in a VPC endpoint policy": (Cause.OUR_POLICY, Cause.OUR_POLICY),
    "because no resource-based policy allows the ACTION action": (
        Cause.KEY_POLICY_SILENT, Cause.KEY_POLICY_SILENT,
    ),
    "because no identity-based policy allows the ACTION action": (Cause.ACTION_NOT_ALLOWED, Cause.OUR_POLICY),
    "because no service control policy allows the ACTION action": (
        Cause.DENIED_BY_ORGANISATION, Cause.OUR_POLICY,
    ),
    "because no permissions boundary allows the ACTION action": (Cause.DENIED_BY_BOUNDARY, Cause.OUR_POLICY),
    "because no session policy allows the ACTION action": (Cause.OUR_POLICY, Cause.OUR_POLICY),
    "because no VPC endpoint policy allows the ACTION action": (Cause.OUR_POLICY, Cause.OUR_POLICY),
}  # fmt: skip


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize("mode", ["role", "key-policy"])
def test_aws_words_tell_whose_policy_refuses(setup: Setup, words: str, mode: str) -> None:
    if mode == "key-policy":
        setup.role = None
    message = f"User: x is not authorized to perform: kms:DescribeKey on resource: y {words}"
    setup.simulator.inject(operation="DescribeKey", code="AccessDeniedException", message=message)
    found = setup.find()["kms-key-is-usable"]
    assert found.cause is WORDS[words][mode != "role"]
    assert "{" not in found.explanation + found.remedy
    assert ("nothing to do for the customer" in found.remedy) is (found.cause is Cause.OUR_POLICY)


def test_a_boundary_is_not_taken_for_a_missing_statement(setup: Setup) -> None:
    message = "because no permissions boundary allows the action"
    for operation in (GENERATE, "Decrypt"):
        setup.simulator.inject(operation=operation, code="AccessDeniedException", message=message)
    assert setup.find()["may-decrypt"].cause is Cause.DENIED_BY_BOUNDARY


def test_any_other_refusal_tells_aws_code(setup: Setup) -> None:
    setup.simulator.inject(operation="DescribeKey", code="InvalidArnException")
    found = setup.find()["kms-key-is-usable"]
    assert found.cause is Cause.REFUSED_BY_AWS
    assert "InvalidArnException" in found.explanation


def test_a_change_that_has_not_propagated_may_pass_later(setup: Setup) -> None:
    setup.account.delete_role("byok")
    setup.simulator.delay_propagation(60)
    try:
        setup.account.create_role("byok", setup.trust, setup.permissions)
        verify = setup.runtime.services.onboarding.verify_tenant
        early = verify("acme", actor="test", kms_key_arn=setup.key, role_arn=setup.role)
        assert not early.passed
        assert early.may_pass_later
        setup.simulator.advance_clock(61)
        assert verify("acme", actor="test").passed
    finally:
        setup.simulator.delay_propagation(0)


ANOTHER_KEY = "arn:aws:kms:eu-central-1:999999999999:key/00000000-0000-4000-8000-000000000009"


@pytest.fixture
def overtake(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Let something happen while the next verify waits for AWS's last answer."""
    check = runtime.kms.check_connection

    def overtake_with(act: Callable[[], object]) -> None:
        def check_and_be_overtaken(connection: Connection) -> Sequence[Finding]:
            found = check(connection)
            monkeypatch.setattr(runtime.kms, "check_connection", check)
            act()
            return found

        monkeypatch.setattr(runtime.kms, "check_connection", check_and_be_overtaken)

    return overtake_with


def test_what_becomes_active_is_what_was_checked(
    setup: Setup, runtime: Runtime, overtake: Callable[[Callable[[], object]], None]
) -> None:
    """While one verify waits for AWS, another gives the tenant another KMS key, which passes nothing."""
    verify = runtime.services.onboarding.verify_tenant
    others = []
    overtake(
        lambda: others.append(
            verify("acme", actor="other", kms_key_arn=ANOTHER_KEY, mode=AccessMode.KEY_POLICY)
        )
    )
    with pytest.raises(LostRace, match="not what was checked") as lost:
        verify("acme", actor="test", kms_key_arn=setup.key, role_arn=setup.role)
    assert [other.passed for other in others] == [False]
    assert lost.value.remedy is not None
    assert "byok tenant verify acme" in lost.value.remedy
    assert setup.state() is TenantState.PENDING
    assert verify("acme", actor="test", kms_key_arn=setup.key, role_arn=setup.role).passed


def test_another_role_alone_is_not_what_was_checked(
    setup: Setup, runtime: Runtime, overtake: Callable[[Callable[[], object]], None]
) -> None:
    verify = runtime.services.onboarding.verify_tenant
    overtake(lambda: verify("acme", actor="other", kms_key_arn=setup.key, mode=AccessMode.KEY_POLICY))
    with pytest.raises(LostRace):
        verify("acme", actor="test", kms_key_arn=setup.key, role_arn=setup.role)
    assert setup.state() is TenantState.PENDING


def test_a_tenant_that_became_active_meanwhile_keeps_its_key(setup: Setup, runtime: Runtime) -> None:
    """One has read "pending"; before it writes, another verify makes the tenant active."""
    pending = runtime.services.registry.show_tenant("acme")[0]
    setup.find()
    other = Connection(
        pending.id, KmsKeyArn.parse(ANOTHER_KEY), pending.external_id, tenant_name=pending.name
    )
    with pytest.raises(LostRace) as lost, runtime.store.transaction() as tx:
        tx.tenants.set_connection(pending, other, shared=False)
    assert lost.value.remedy is not None
    found = runtime.services.registry.show_tenant("acme")[0]
    assert found.connection is not None
    assert (found.state, str(found.connection.kms_key_arn)) == (TenantState.ACTIVE, setup.key)


def test_a_pending_tenants_mistyped_role_is_corrected_alone(setup: Setup, runtime: Runtime) -> None:
    verify = runtime.services.onboarding.verify_tenant
    assert setup.role is not None
    wrong = setup.role.replace("role/byok", "role/bjok")
    assert not verify("acme", actor="test", kms_key_arn=setup.key, role_arn=wrong).passed
    tenant = verify("acme", actor="test", role_arn=setup.role).tenant
    assert tenant.connection is not None
    assert str(tenant.connection.kms_key_arn) == setup.key
    assert (str(tenant.connection.role_arn), tenant.state) == (setup.role, TenantState.ACTIVE)


def test_a_pending_tenants_mistyped_key_is_corrected_alone(setup: Setup, runtime: Runtime) -> None:
    verify = runtime.services.onboarding.verify_tenant
    wrong = f"{setup.key.rpartition('/')[0]}/{uuid4()}"
    assert not verify("acme", actor="test", kms_key_arn=wrong, role_arn=setup.role).passed
    tenant = verify("acme", actor="test", kms_key_arn=setup.key).tenant
    assert tenant.connection is not None
    assert str(tenant.connection.kms_key_arn) == setup.key
    assert (str(tenant.connection.role_arn), tenant.state) == (setup.role, TenantState.ACTIVE)


def test_a_pending_tenant_leaves_its_role_only_if_somebody_says_so(setup: Setup, runtime: Runtime) -> None:
    verify = runtime.services.onboarding.verify_tenant
    setup.account.delete_role("byok")
    assert setup.find()["role-can-be-assumed"].verdict is not Verdict.PASSED
    setup.key_policy(*policies.key_policy_statements(VENDOR, setup.tenant.id))
    assert not verify("acme", actor="test", kms_key_arn=setup.key).passed
    verified = verify("acme", actor="test", mode=AccessMode.KEY_POLICY)
    assert verified.passed
    assert verified.tenant.connection is not None
    assert verified.tenant.connection.role_arn is None


def test_a_mode_that_does_not_fit_the_arns_is_refused(setup: Setup, runtime: Runtime) -> None:
    verify = runtime.services.onboarding.verify_tenant
    with pytest.raises(InvalidInput, match="no role"):
        verify("acme", actor="test", kms_key_arn=setup.key, role_arn=setup.role, mode=AccessMode.KEY_POLICY)
    with pytest.raises(NotReady, match="no role yet"):
        verify("acme", actor="test", kms_key_arn=setup.key, mode=AccessMode.ROLE)
    with pytest.raises(NotReady, match="no KMS key yet"):
        verify("acme", actor="test", role_arn=setup.role)
    assert runtime.services.registry.show_tenant("acme")[0].connection is None
    setup.find()
    with pytest.raises(ConnectionFixed):
        verify("acme", actor="test", mode=AccessMode.KEY_POLICY)
    assert verify("acme", actor="test", mode=AccessMode.ROLE).passed


def name_the_role(setup: Setup, *, with_condition: bool) -> None:
    """A key policy that leaves nothing to IAM and names the role, with or without the context condition."""
    assert setup.role is not None
    statements = policies.role_key_policy_statements(setup.role, setup.tenant.id)
    if not with_condition:
        statements = [{name: one[name] for name in one if name != "Condition"} for one in statements]
    setup.key_policy(*statements, delegate=False)


@pytest.mark.parametrize("with_condition", [True, False])
def test_a_key_policy_that_names_the_role_must_ask_for_the_context_itself(
    setup: Setup, with_condition: bool
) -> None:
    """It lets the role in by itself: the condition in the role's own policy is not asked any more."""
    name_the_role(setup, with_condition=with_condition)
    found = setup.find()
    for check in ("foreign-tenant-context-is-refused", "missing-context-is-refused"):
        cause = None if with_condition else Cause.CONTEXT_NOT_ENFORCED
        assert found[check].cause is cause
        assert found[check].verdict is (Verdict.PASSED if with_condition else Verdict.WARNING)
    assert found["round-trip"].verdict is Verdict.PASSED


def test_checks_name_no_tenant_but_its_own_and_the_one_that_is_nobodys(setup: Setup) -> None:
    """What the customer's guide says to leave out of an alarm is all that there is to leave out."""
    setup.simulator.forget_calls()
    setup.find()
    calls = [call for call in setup.simulator.calls(key_arn=setup.key) if call["context"]]
    named = {call["context"].get("byok-tenant") for call in calls}
    assert named == {str(setup.tenant.id), str(policies.FOREIGN_TENANT_ID)}
    foreign = [call for call in calls if call["context"].get("byok-tenant") != str(setup.tenant.id)]
    assert {call["outcome"] for call in foreign} == {"AccessDeniedException"}
    assert {call["context"]["byok-purpose"] for call in foreign} == {"probe"}
