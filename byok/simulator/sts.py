"""AWS STS: AssumeRole under the role's trust policy, and GetCallerIdentity."""

import json
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from byok.simulator.errors import AwsError
from byok.simulator.identity import Identities, Principal, find_role
from byok.simulator.policy import Decision, Question, evaluate
from byok.simulator.propagation import Propagation

_NAMESPACE = "https://sts.amazonaws.com/doc/2011-06-15/"


def parse_form(body: bytes) -> dict[str, str]:
    """The parameters of a query-protocol request."""
    return dict(parse_qsl(body.decode()))


def call(
    identities: Identities,
    propagation: Propagation,
    principal: Principal,
    form: dict[str, str],
    request_id: str,
) -> bytes:
    """Answer an STS request with its XML.

    Raises:
        AwsError.
    """
    match form.get("Action"):
        case "AssumeRole":
            return _reply("AssumeRole", _assume_role(identities, propagation, principal, form), request_id)
        case "GetCallerIdentity":
            arn = escape(principal.session_arn or principal.arn)
            result = f"<UserId>SIM</UserId><Account>{principal.account}</Account><Arn>{arn}</Arn>"
            return _reply("GetCallerIdentity", result, request_id)
        case action:
            raise AwsError("InvalidAction", f"Could not find operation {action}")


def error_xml(error: AwsError, request_id: str) -> bytes:
    """An STS error reply."""
    return (
        f'<ErrorResponse xmlns="{_NAMESPACE}"><Error><Type>Sender</Type><Code>{error.code}</Code>'
        f"<Message>{escape(error.message)}</Message></Error><RequestId>{request_id}</RequestId></ErrorResponse>"
    ).encode()


def _assume_role(
    identities: Identities, propagation: Propagation, principal: Principal, form: dict[str, str]
) -> str:
    role_arn = form["RoleArn"]
    role = find_role(role_arn)
    context = {"aws:principalarn": [principal.arn], "aws:principalaccount": [principal.account]}
    if "ExternalId" in form:
        context["sts:externalid"] = [form["ExternalId"]]
    question = Question(principal.arn, principal.account, "sts:AssumeRole", role_arn, context)
    trust = propagation.role(role_arn, role).trust or {}
    if role is None or evaluate([trust], question) is not Decision.ALLOW:
        raise AwsError(
            "AccessDenied",
            f"User: {principal.arn} is not authorized to perform: sts:AssumeRole on resource: {role_arn}",
            status=403,
        )
    seconds = int(form.get("DurationSeconds", "3600"))
    if not 900 <= seconds <= int(role.max_session_duration or 3600):
        raise AwsError("ValidationError", "The requested DurationSeconds exceeds the MaxSessionDuration")
    policy = json.loads(form["Policy"]) if "Policy" in form else None
    session = identities.open_session(role, policy, seconds, form["RoleSessionName"])
    return (
        f"<Credentials><AccessKeyId>{session.access_key_id}</AccessKeyId>"
        f"<SecretAccessKey>{session.secret_access_key}</SecretAccessKey>"
        f"<SessionToken>{session.session_token}</SessionToken>"
        f"<Expiration>{session.expires_at:%Y-%m-%dT%H:%M:%SZ}</Expiration></Credentials>"
        f"<AssumedRoleUser><AssumedRoleId>{role.id}:{escape(form['RoleSessionName'])}</AssumedRoleId>"
        f"<Arn>{escape(session.principal.session_arn)}</Arn></AssumedRoleUser>"
    )


def _reply(action: str, result: str, request_id: str) -> bytes:
    return (
        f'<{action}Response xmlns="{_NAMESPACE}"><{action}Result>{result}</{action}Result>'
        f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{action}Response>"
    ).encode()
