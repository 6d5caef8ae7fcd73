"""Moves: the state machine, what a move needs of the customer's policies, and what it leaves to remove."""

from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from uuid import UUID

import pytest

from byok.core.arns import KmsKeyArn, RoleArn
from byok.core.findings import Cause, Finding, Verdict
from byok.core.model import Connection
from byok.core.move_rights import is_of_the_errand, provisions, removals
from byok.core.moves import (
    MOVE_LIFECYCLE,
    OPEN_STATES,
    WORKING_STATES,
    KmsKeyMove,
    MoveEvent,
    MoveProgress,
    MoveState,
)
from byok.errors import IllegalTransition
from tests.world import kms_key_arn

TENANT = UUID("01a20c8e-4efd-7194-bf1d-0834216456f8")
VENDOR = RoleArn.parse("arn:aws:iam::111111111111:role/byok-worker")
ROLE = RoleArn.parse("arn:aws:iam::222222222001:role/byok")
OTHER_ROLE = RoleArn.parse("arn:aws:iam::222222222002:role/byok")
OLD = Connection(TENANT, KmsKeyArn.parse(kms_key_arn(1)), "external", ROLE, tenant_name="acme")
SAME_ACCOUNT = KmsKeyArn.parse(kms_key_arn(2).replace("222222222002", "222222222001"))
NEW = replace(OLD, kms_key_arn=SAME_ACCOUNT)
ELSEWHERE = replace(OLD, kms_key_arn=KmsKeyArn.parse(kms_key_arn(2)), role_arn=OTHER_ROLE)


def move(source: Connection = OLD, target: Connection = NEW) -> KmsKeyMove:
    return KmsKeyMove(
        UUID(int=1), MoveState.WRAPPING, source, target, "test", datetime(2026, 1, 1, tzinfo=UTC)
    )


def by_key_policy(connection: Connection) -> Connection:
    return replace(connection, role_arn=None)


def test_the_machine_knows_these_steps_and_no_others() -> None:
    taken = {
        (state, event)
        for state, event in product(MoveState, MoveEvent)
        if (state, event) in MOVE_LIFECYCLE.transitions
    }
    assert {(state.value, event.value) for state, event in taken} == {
        ("wrapping", "hold"),
        ("wrapping", "release"),
        ("wrapping", "commit"),
        ("wrapping", "roll-back"),
        ("held", "release"),
        ("held", "roll-back"),
        ("committed", "finish"),
    }
    with pytest.raises(IllegalTransition):
        MOVE_LIFECYCLE.after(MoveState.COMMITTED, MoveEvent.ROLL_BACK)


def test_what_is_open_can_be_rolled_back_and_what_works_has_a_next_step_by_itself() -> None:
    for state in MoveState:
        can_roll_back = (state, MoveEvent.ROLL_BACK) in MOVE_LIFECYCLE.transitions
        assert can_roll_back == (state in OPEN_STATES)
        leaves = any(one is state for one, _ in MOVE_LIFECYCLE.transitions)
        assert leaves == (state not in KmsKeyMove.ENDED_STATES)
    assert all((state in WORKING_STATES) == (state in ("wrapping", "committed")) for state in MoveState)


@pytest.mark.parametrize(
    ("source", "target", "crossing"),
    [
        (OLD, NEW, False),
        (by_key_policy(OLD), by_key_policy(ELSEWHERE), False),
        (OLD, ELSEWHERE, True),
        (OLD, by_key_policy(NEW), True),
        (OLD, replace(NEW, kms_key_arn=replace(NEW.kms_key_arn, region="eu-west-1")), True),
    ],
)
def test_one_principal_in_one_region_may_re_encrypt(
    source: Connection, target: Connection, crossing: bool
) -> None:
    assert move(source, target).is_crossing is crossing
    errand = {
        statement["Action"]
        for one in provisions(move(source, target), VENDOR)
        for statement in one.statements
        if statement["Sid"] in one.of_the_errand
    }
    assert errand == ({"kms:Encrypt"} if crossing else {"kms:ReEncryptFrom", "kms:ReEncryptTo"})


@pytest.mark.parametrize("vendor", [VENDOR, None])
def test_every_statement_names_the_tenant_and_in_a_key_policy_whom_it_lets_in(
    vendor: RoleArn | None,
) -> None:
    moves = [move(), move(OLD, ELSEWHERE), move(by_key_policy(OLD), by_key_policy(ELSEWHERE))]
    for provision in [one for each in moves for one in provisions(each, vendor)]:
        for statement in provision.statements:
            condition = statement.get("Condition", {})
            if statement["Sid"] != "ByokLook":
                assert condition["StringEquals"]["kms:EncryptionContext:byok-tenant"] == str(TENANT)
            assert provision.is_whole == ("Principal" not in statement) == ("role" in provision.place)
            if not provision.is_whole:
                who = vendor or "arn:aws:iam::VENDOR-ACCOUNT:role/VENDOR-ROLE"
                assert condition["ArnEquals"]["aws:PrincipalArn"] == str(who)


def test_a_role_that_is_kept_keeps_the_old_kms_key_until_the_commit() -> None:
    (provision,) = provisions(move(), VENDOR)
    always = [one for one in provision.statements if one["Sid"] not in provision.of_the_errand]
    assert all(one["Resource"] == [str(OLD.kms_key_arn), str(NEW.kms_key_arn)] for one in always)
    (provision,) = provisions(move(OLD, ELSEWHERE), VENDOR)
    assert all(one["Resource"] == str(ELSEWHERE.kms_key_arn) for one in provision.statements)


def test_what_is_left_to_remove() -> None:
    assert len(removals(move())) == 4
    assert "takes the place of all policies of the role" in removals(move())[-1]
    assert removals(move(OLD, ELSEWHERE)) == [
        f"from the policy of the role {OTHER_ROLE}: the statement ByokMigrationTarget",
        f"the role {ROLE}",
    ]
    in_key_policies = removals(move(by_key_policy(OLD), by_key_policy(ELSEWHERE)))
    assert "ByokUseWithContext and ByokLook, ByokMigrationSource" in in_key_policies[1]
    west = replace(NEW, kms_key_arn=replace(NEW.kms_key_arn, region="eu-west-1"))
    assert str(OLD.kms_key_arn) in removals(move(OLD, west))[1]


def test_only_the_right_that_the_move_needs_is_no_excess() -> None:
    def excess(*actions: str) -> Finding:
        told = f"the role may also do what byok never does: {', '.join(actions)}"
        return Finding("no-unneeded-rights", Verdict.WARNING, "by dry runs", Cause.TOO_MANY_RIGHTS, told)

    crossing = move(OLD, ELSEWHERE)
    assert is_of_the_errand(excess("kms:Encrypt"), crossing)
    assert not is_of_the_errand(excess("kms:Encrypt", "kms:CreateGrant"), crossing)
    assert not is_of_the_errand(excess("kms:Encrypt"), move())
    assert not is_of_the_errand(Finding("x", Verdict.FAILED, "y", Cause.KEY_DISABLED), crossing)


def test_the_old_kms_key_may_go_when_nothing_rests_on_it() -> None:
    assert MoveProgress(True, 0, 0, 7, 3).old_key_may_go
    assert not MoveProgress(False, 0, 0, 0, 0).old_key_may_go  # of a tenant without any version
    assert not MoveProgress(True, 1, 0, 6, 0).old_key_may_go
    assert not MoveProgress(True, 0, 7, 0, 0).old_key_may_go
    assert not MoveProgress(True, 0, 0, 7, 0, others=("globex",)).old_key_may_go
