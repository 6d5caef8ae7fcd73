"""Evaluation of IAM policies. Pure.

A model of the "Policy evaluation logic" of the IAM User Guide, for the elements that key policies, role
policies, trust policies and session policies of this field use. Where it does not know an operator,
an Allow does not apply and a Deny does: it fails closed.
"""

import fnmatch
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

Document = Mapping[str, Any]


class Decision(Enum):
    """What the statements of a policy say together."""

    ALLOW = "allow"
    DENY = "deny"
    SILENT = "silent"


@dataclass(frozen=True)
class Question:
    """One request to be judged. ``context`` maps condition keys, in lower case, to their values."""

    principal_arn: str
    principal_account: str
    action: str
    resource: str
    context: Mapping[str, list[str]] = field(default_factory=dict)


def evaluate(policies: Iterable[Document], question: Question) -> Decision:
    """An explicit deny wins over any allow."""
    decision = Decision.SILENT
    for policy in policies:
        for statement in _as_list(policy.get("Statement", [])):
            if not _applies(statement, question):
                continue
            if statement.get("Effect") == "Deny":
                return Decision.DENY
            decision = Decision.ALLOW
    return decision


def allows_by_name(policy: Document, question: Question) -> bool:
    """Whether the policy of a resource lets the caller itself in, or everybody, and not only its account.

    Naming an account leaves the decision to the account's IAM. Naming the role decides by itself, for a
    role of the resource's own account. ``NotPrincipal`` names nobody.
    """
    return any(
        statement.get("Effect") == "Allow"
        and _names_caller(statement, question)
        and _applies(statement, question)
        for statement in _as_list(policy.get("Statement", []))
    )


def _names_caller(statement: Document, question: Question) -> bool:
    return not {"*", question.principal_arn}.isdisjoint(_named(statement.get("Principal")))


def _applies(statement: Document, question: Question) -> bool:
    return (
        _principal_matches(statement, question)
        and _matches_one_of(statement, "Action", question.action, fold_case=True)
        and _matches_one_of(statement, "Resource", question.resource)
        and _conditions_hold(statement, question)
    )


def _matches_one_of(statement: Document, element: str, value: str, *, fold_case: bool = False) -> bool:
    """``Action`` or ``NotAction``; ``Resource``, ``NotResource`` or neither, as in a trust policy."""
    if f"Not{element}" in statement:
        return not _matches_any(statement[f"Not{element}"], value, fold_case=fold_case)
    default = "*" if element == "Resource" else []
    return _matches_any(statement.get(element, default), value, fold_case=fold_case)


def _principal_matches(statement: Document, question: Question) -> bool:
    if "NotPrincipal" in statement:
        return not _principal_matches({"Principal": statement["NotPrincipal"]}, question)
    principal = statement.get("Principal")
    if principal is None:  # a role or session policy: it speaks of its own bearer
        return True
    account = question.principal_account
    wanted = {"*", account, f"arn:aws:iam::{account}:root", question.principal_arn}
    return any(name in wanted for name in _named(principal))


def _named(principal: Any) -> list[Any]:  # noqa: ANN401  # text or a mapping
    if principal == "*":
        return ["*"]
    return _as_list(principal.get("AWS", [])) if isinstance(principal, Mapping) else []


def _conditions_hold(statement: Document, question: Question) -> bool:
    for operator, pairs in statement.get("Condition", {}).items():
        for key, expected in pairs.items():
            values = question.context.get(key.lower(), [])
            if not _holds(operator, values, _as_list(expected), denies=statement.get("Effect") == "Deny"):
                return False
    return True


def _holds(operator: str, values: list[str], expected: list[Any], *, denies: bool) -> bool:
    quantifier, _, name = operator.rpartition(":")
    if name.endswith("IfExists"):
        name = name.removesuffix("IfExists")
        if not values:
            return True
    wanted = [str(one).lower() if isinstance(one, bool) else str(one) for one in expected]
    if name == "Null":
        return (not values) == (wanted[0].lower() == "true")
    compare = _OPERATORS.get(name)
    if compare is None:
        return denies
    negated = "Not" in name
    if quantifier == "ForAllValues":
        return all(_one_holds(compare, value, wanted, negated) for value in values)
    if not values:
        return negated
    if quantifier == "ForAnyValue":
        return any(_one_holds(compare, value, wanted, negated) for value in values)
    return _one_holds(compare, values[0], wanted, negated)


def _one_holds(compare: Any, value: str, wanted: list[str], negated: bool) -> bool:  # noqa: ANN401  # a predicate
    found = any(compare(value, one) for one in wanted)
    return not found if negated else found


def _equals(value: str, wanted: str) -> bool:
    return value == wanted


def _equals_ignoring_case(value: str, wanted: str) -> bool:
    return value.lower() == wanted.lower()


def _like(value: str, wanted: str) -> bool:
    return fnmatch.fnmatchcase(value, wanted.replace("[", "[[]"))


def _before(value: str, wanted: str) -> bool:
    return datetime.fromisoformat(value) < datetime.fromisoformat(wanted)


_OPERATORS: dict[str, Callable[[str, str], bool]] = {
    "StringEquals": _equals,
    "StringNotEquals": _equals,
    "StringEqualsIgnoreCase": _equals_ignoring_case,
    "StringLike": _like,
    "StringNotLike": _like,
    "ArnEquals": _like,
    "ArnLike": _like,
    "ArnNotEquals": _like,
    "ArnNotLike": _like,
    "Bool": _equals_ignoring_case,
    "DateLessThan": _before,
    "DateGreaterThan": lambda value, wanted: _before(wanted, value),
}


def _matches_any(patterns: Any, value: str, *, fold_case: bool = False) -> bool:  # noqa: ANN401  # text or list
    if fold_case:
        return any(_like(value.lower(), str(pattern).lower()) for pattern in _as_list(patterns))
    return any(_like(value, str(pattern)) for pattern in _as_list(patterns))


def _as_list(value: Any) -> list[Any]:  # noqa: ANN401  # JSON gives one or many
    return value if isinstance(value, list) else [value]
