"""The HTTP side: a WSGI application in front of moto's, and its control plane under ``/_sim/``."""

import io
import json
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs
from uuid import uuid4

from moto.kms.models import Key
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from byok.simulator import cloudtrail, sts
from byok.simulator.errors import AwsError
from byok.simulator.faults import CallLog, Faults, Rule
from byok.simulator.identity import Identities, Principal, find_role
from byok.simulator.keys import KeyStore
from byok.simulator.kms import MUTATING, Kms
from byok.simulator.propagation import Propagation
from byok.simulator.state import StateFile

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)  # noqa: TID251  # the simulator is a program of its own: this is its one clock


class Simulator:
    """The WSGI application."""

    def __init__(self, state_file: Path, clock: Callable[[], datetime] = utc_now) -> None:
        self._clock_offset = timedelta(0)
        self._moto = DomainDispatcherApplication(create_backend_app)

        def now() -> datetime:
            return clock() + self._clock_offset

        self._identities = Identities(now)
        self._propagation = Propagation(now)
        self._kms = Kms(KeyStore(), self._propagation, now)
        self._faults = Faults()
        self._log = CallLog(now)
        self._state = StateFile(state_file, self._kms.keys)
        self._state.load()
        self._controls: dict[str, Callable[[dict[str, Any]], Any]] = {
            "GET health": lambda _: {"status": "ok"},
            "POST faults": lambda rule: {"id": self._faults.add(rule)},
            "GET faults": lambda _: self._faults.to_json(),
            "DELETE faults": lambda _: self._faults.clear(),
            "GET calls": self._find_calls,
            "DELETE calls": lambda _: self._log.clear(),
            "GET cloudtrail": lambda asked: {
                "Records": cloudtrail.records(self._log.list(), asked["account"])
            },
            "POST clock": self._advance_clock,
            "DELETE clock": self._set_clock_right,
            "POST propagation": self._delay_propagation,
            "POST key-state": self._put_key_in_state,
            "POST key-material": self._import_material,
        }

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if environ["PATH_INFO"].startswith("/_sim/"):
            return self._control(environ, body, start_response)
        request_id = str(uuid4())
        try:
            access_key_id, region, service = _scope(environ)
        except ValueError:
            error = AwsError("MissingAuthenticationToken", "Missing Authentication Token", status=403)
            return _json_error(start_response, error, request_id)
        if service == "kms":
            return self._answer_kms(environ, body, start_response, access_key_id, region, request_id)
        if service == "sts":
            return self._answer_sts(environ, body, start_response, access_key_id, region, request_id)
        return self._answer_others(environ, body, start_response, access_key_id, service, request_id)

    # --- KMS --------------------------------------------------------------------------------------

    def _answer_kms(
        self,
        environ: Environ,
        body: bytes,
        start_response: StartResponse,
        access_key_id: str,
        region: str,
        request_id: str,
    ) -> Iterable[bytes]:
        operation = environ.get("HTTP_X_AMZ_TARGET", "").split(".")[-1]
        parameters = json.loads(body or b"{}")
        told: dict[str, Any] = {
            "operation": operation,
            "account": "",
            "principal": "",
            "key_arn": str(parameters.get("KeyId", "")),
            "request_id": request_id,
            "context": parameters.get("EncryptionContext", {}),
            "dry_run": bool(parameters.get("DryRun")),
            "region": region,
            "user_agent": environ.get("HTTP_USER_AGENT", ""),
        }
        try:
            principal = self._identities.resolve(access_key_id)
            told |= {
                "account": principal.account,
                "principal": principal.arn,
                "session_arn": principal.session_arn,
            }
            rule = self._faults.pick(operation, _key_account(told), told["key_arn"])
            broken = _strike(rule, environ, start_response, request_id)
            if broken is not None:
                self._log.add(outcome=(rule and rule.code) or cloudtrail.NOT_SEEN, **told)
                return broken
            reply, key = _altered(rule, lambda: self._kms.handle(operation, parameters, principal, region))
        except AwsError as error:
            self._log.add(outcome=error.code, message=error.message, **told)
            return _json_error(start_response, error, request_id)
        told["key_arn"] = told["key_arn"] if key is None else key.arn
        self._log.add(outcome="ok", **told)
        if rule is not None and rule.lose_reply:
            return _broken_off(environ)
        if reply is None:
            account = principal.account if key is None else key.account_id
            body = json.dumps(parameters).encode()
            return self._forward(environ, body, _with_id(start_response, request_id), account, operation)
        if operation in MUTATING:
            self._state.save()
        return _respond(
            start_response, 200, json.dumps(reply).encode(), "application/x-amz-json-1.1", request_id
        )

    # --- STS and IAM ------------------------------------------------------------------------------

    def _answer_sts(
        self,
        environ: Environ,
        body: bytes,
        start_response: StartResponse,
        access_key_id: str,
        region: str,
        request_id: str,
    ) -> Iterable[bytes]:
        form = sts.parse_form(body)
        action = form.get("Action", "")
        told: dict[str, Any] = {
            "operation": action,
            "account": "",
            "principal": "",
            "key_arn": form.get("RoleArn", ""),
            "request_id": request_id,
            "region": region,
            "session_name": form.get("RoleSessionName", ""),
            "external_id": form.get("ExternalId", ""),
            "user_agent": environ.get("HTTP_USER_AGENT", ""),
        }
        try:
            principal = _as_sts(lambda: self._identities.resolve(access_key_id))
            told |= {
                "account": principal.account,
                "principal": principal.arn,
                "session_arn": principal.session_arn,
            }
            rule = self._faults.pick(action, _key_account(told), told["key_arn"])
            broken = _strike(rule, environ, start_response, request_id, xml=True)
            if broken is not None:
                self._log.add(outcome=(rule and rule.code) or cloudtrail.NOT_SEEN, **told)
                return broken
            if rule is not None and rule.reply_account is not None:
                principal = replace(principal, account=rule.reply_account)
            xml = sts.call(self._identities, self._propagation, principal, form, request_id)
        except AwsError as error:
            self._log.add(outcome=error.code, message=error.message, **told)
            reply = sts.error_xml(error, request_id)
            return _respond(start_response, error.status, reply, "text/xml", request_id)
        self._log.add(outcome="ok", **told)
        if rule is not None and rule.lose_reply:
            return _broken_off(environ)
        return _respond(start_response, 200, xml, "text/xml", request_id)

    def _answer_others(
        self,
        environ: Environ,
        body: bytes,
        start_response: StartResponse,
        access_key_id: str,
        service: str,
        request_id: str,
    ) -> Iterable[bytes]:
        try:
            principal = _as_sts(lambda: self._identities.resolve(access_key_id))
            if not principal.is_admin:
                raise AwsError("AccessDenied", "only administrators may use this service here", status=403)
        except AwsError as error:
            reply = sts.error_xml(error, request_id)
            return _respond(start_response, error.status, reply, "text/xml", request_id)
        role_name = sts.parse_form(body).get("RoleName")
        if service == "iam" and role_name is not None:
            arn = f"arn:aws:iam::{principal.account}:role/{role_name}"
            self._propagation.will_change_role(arn, find_role(arn))
        return self._forward(environ, body, start_response, principal.account, "Iam")

    def _forward(
        self, environ: Environ, body: bytes, start_response: StartResponse, account: str, operation: str
    ) -> Iterable[bytes]:
        """Let moto answer, in the account's name."""
        environ["HTTP_X_MOTO_ACCOUNT_ID"] = account
        environ["wsgi.input"] = io.BytesIO(body)
        environ["CONTENT_LENGTH"] = str(len(body))
        application = self._moto.get_application(environ)
        reply = list(application(environ, start_response))
        if operation in MUTATING or operation == "Iam":
            self._state.save()
        return reply

    # --- control plane ----------------------------------------------------------------------------

    def _control(self, environ: Environ, body: bytes, start_response: StartResponse) -> Iterable[bytes]:
        """Answer ``METHOD /_sim/PATH``; docs/simulator.md lists them."""
        asked = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO'].removeprefix('/_sim/')}"
        query = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
        handler = self._controls.get(asked)
        if handler is None:
            return _respond(start_response, 404, b"{}", "application/json", "-")
        answer = handler(json.loads(body) if body else query)
        return _respond(
            start_response,
            200,
            json.dumps({} if answer is None else answer).encode(),
            "application/json",
            "-",
        )

    def _find_calls(self, wanted: dict[str, Any]) -> list[dict[str, Any]]:
        calls = self._log.to_json()
        return [call for call in calls if all(call.get(name) == value for name, value in wanted.items())]

    def _advance_clock(self, order: dict[str, Any]) -> None:
        self._clock_offset += timedelta(seconds=order["seconds"])

    def _set_clock_right(self, _: dict[str, Any]) -> None:
        self._clock_offset = timedelta(0)

    def _delay_propagation(self, order: dict[str, Any]) -> None:
        self._propagation.delay_seconds = order["seconds"]

    def _put_key_in_state(self, order: dict[str, Any]) -> None:
        """What no call of ours brings about: PendingImport, Unavailable, Creating …"""
        key = self._named_key(order)
        key.key_state, key.key_manager = order["state"], order["manager"]

    def _import_material(self, order: dict[str, Any]) -> None:
        expires_at = order["expires_at"]
        self._kms.keys.import_material(
            self._named_key(order), expires_at and datetime.fromisoformat(expires_at)
        )
        self._state.save()

    def _named_key(self, order: dict[str, Any]) -> Key:
        parts = order["key_arn"].split(":")
        return self._kms.keys.find(order["key_arn"], parts[4], parts[3])


def _scope(environ: Environ) -> tuple[str, str, str]:
    """Access key id, region and service of a request signed with Signature Version 4."""
    credential = environ.get("HTTP_AUTHORIZATION", "").partition("Credential=")[2].split(",")[0]
    access_key_id, _, region, service, _ = credential.split("/")
    return access_key_id, region, service


def _key_account(told: dict[str, Any]) -> str:
    """The account that owns what is called: faults are ordered for a customer, whoever calls."""
    parts = str(told["key_arn"]).split(":")
    return parts[4] if len(parts) > 5 else str(told["account"])


def _as_sts(resolve: Callable[[], Principal]) -> Principal:
    """STS and IAM have another code for an unknown access key than KMS."""
    try:
        return resolve()
    except AwsError as error:
        codes = {
            "UnrecognizedClientException": "InvalidClientTokenId",
            "ExpiredTokenException": "ExpiredToken",
        }
        raise AwsError(codes[error.code], error.message, status=403) from None


def _strike(
    rule: Rule | None,
    environ: Environ,
    start_response: StartResponse,
    request_id: str,
    *,
    xml: bool = False,
) -> Iterable[bytes] | None:
    if rule is None:
        return None
    if rule.delay_seconds:
        time.sleep(rule.delay_seconds)
    if rule.reset:
        return _broken_off(environ)
    if rule.html_status is not None:
        page = b"<html><body>Bad Gateway</body></html>"
        return _respond(start_response, rule.html_status, page, "text/html", request_id)
    if rule.code is not None:
        error = AwsError(rule.code, rule.message, rule.http_status)
        if xml:
            reply = sts.error_xml(error, request_id)
            return _respond(start_response, rule.http_status, reply, "text/xml", request_id)
        return _json_error(start_response, error, request_id)
    return None


def _with_id(start_response: StartResponse, request_id: str) -> StartResponse:
    """Have moto's answer carry the id that the trail has."""

    def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:  # noqa: ANN401  # of WSGI
        others = [one for one in headers if one[0].lower() != "x-amzn-requestid"]
        return start_response(status, [*others, ("x-amzn-RequestId", request_id)], *rest)

    return start


def _broken_off(environ: Environ) -> Iterable[bytes]:
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    return []


def _altered(
    rule: Rule | None, answer: Callable[[], tuple[dict[str, Any] | None, Key | None]]
) -> tuple[dict[str, Any] | None, Key | None]:
    """A KMS answer, with what the rule puts in its place."""
    try:
        reply, key = answer()
    except AwsError:
        if rule is None or rule.reply is None:
            raise
        reply, key = None, None
    if rule is not None and rule.reply is not None:
        reply = (reply or {}) | rule.reply
    if rule is not None and rule.reply_key_id is not None and reply is not None:
        reply["KeyId"] = rule.reply_key_id
    return reply, key


def _json_error(start_response: StartResponse, error: AwsError, request_id: str) -> Iterable[bytes]:
    body = json.dumps({"__type": error.code, "message": error.message}).encode()
    return _respond(start_response, error.status, body, "application/x-amz-json-1.1", request_id)


def _respond(
    start_response: StartResponse, status: int, body: bytes, content_type: str, request_id: str
) -> Iterable[bytes]:
    headers = [
        ("Content-Type", content_type),
        ("Content-Length", str(len(body))),
        ("x-amzn-RequestId", request_id),
    ]
    start_response(f"{status} {'OK' if status == 200 else 'Error'}", headers)
    return [body]


class _QuietHandler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"  # keep-alive, as AWS has it

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002, ANN401  # werkzeug's signature
        """Say nothing: the call log tells more."""


def make_simulator(host: str, port: int, state_file: Path) -> BaseWSGIServer:
    """A server ready for ``serve_forever``.

    Raises:
        ValueError: ``host`` is not a loopback address.
    """
    if host not in _LOOPBACK:
        raise ValueError(f"the simulator listens on loopback only, not on {host}")
    return make_server(host, port, Simulator(state_file), threaded=True, request_handler=_QuietHandler)
