"""Sessions of tenants' roles, and the clients that sign with them."""

import json
import re
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import boto3
from botocore.credentials import Credentials, ReadOnlyCredentials

from byok.core.arns import RoleArn
from byok.core.model import Connection
from byok.core.policies import Right, session_policy
from byok.errors import KmsRequestRejected
from byok.kms.classify import (
    AWS_ERRORS,
    STS_ERROR_CLASSES,
    classify,
    error_code,
    reading_reply,
    to_byok_error,
)
from byok.kms.requests import Requests
from byok.kms.signing import CLIENT_CONFIG, let_mark, signing_with, tenant_session
from byok.ports import Clock

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient
    from mypy_boto3_sts import STSClient

# The least that STS allows. STS sessions can't be revoked, so a short life is part of the bound on
# how long a withdrawn role goes on working.
SESSION_SECONDS = 900
_RENEW_BEFORE_EXPIRY = timedelta(seconds=60)
_MAX_SESSIONS = 20_000  # 2 KiB each


# Whose session, and what it may do beside what we always need.
_SessionKey = tuple[Connection, tuple[Right, ...]]


@dataclass(frozen=True, slots=True)
class AssumedRole:
    """A session of a customer's role."""

    credentials: ReadOnlyCredentials
    expires_at: datetime


class Sessions:
    """Clients and assumed-role sessions of one process. Safe across threads, not across fork."""

    def __init__(
        self,
        clock: Clock,
        endpoint_url: str | None,
        requests: Requests,
        canary_role: RoleArn | None = None,
        on_assumed: Callable[[], None] = lambda: None,
    ) -> None:
        self._clock = clock
        self._on_assumed = on_assumed
        self._endpoint_url = endpoint_url
        self._requests = requests
        self._canary_role = canary_role
        self._lock = threading.Lock()
        self._own: Credentials | None = None
        self._sessions: OrderedDict[_SessionKey, AssumedRole] = OrderedDict()
        self._assuming: dict[_SessionKey, threading.Lock] = {}
        self._kms_clients: dict[str, KMSClient] = {}
        self._sts_clients: dict[str, STSClient] = {}
        self._caller_clients: dict[str, STSClient] = {}

    def kms_client(self, region: str) -> "KMSClient":
        """The region's KMS client; call it within `acting_as` only."""
        with self._lock:
            if region not in self._kms_clients:
                self._kms_clients[region] = let_mark(
                    tenant_session().client(
                        "kms", region_name=region, endpoint_url=self._endpoint_url, config=CLIENT_CONFIG
                    )
                )
            return self._kms_clients[region]

    def sts_client(self, region: str) -> "STSClient":
        """The region's STS client, under the vendor's own identity."""
        with self._lock:
            if region not in self._sts_clients:
                self._sts_clients[region] = let_mark(
                    boto3.session.Session().client(
                        "sts", region_name=region, endpoint_url=self._endpoint_url, config=CLIENT_CONFIG
                    )
                )
            return self._sts_clients[region]

    @contextmanager
    def acting_as(
        self, connection: Connection, *, fresh: bool = False, beside: Sequence[Right] = ()
    ) -> Iterator[None]:
        """Sign KMS requests inside the block as the tenant's role, or as ourselves in key-policy mode.

        ``beside``: see `session_policy`.
        """
        with signing_with(self._credentials(connection, fresh=fresh, beside=tuple(beside))):
            yield

    def unrestricted(self, connection: Connection) -> ReadOnlyCredentials:
        """A session with all that the customer gave: for finding out how much that is, and nothing else."""
        if connection.role_arn is None:
            return self.own_credentials()
        return self.assume_role(
            connection, external_id=connection.external_id, restricted=False, is_aside=True
        ).credentials

    def forget(self, connection: Connection) -> None:
        """Drop a tenant's session."""
        with self._lock:
            self._sessions.pop((connection, ()), None)

    def _credentials(
        self, connection: Connection, *, fresh: bool, beside: tuple[Right, ...]
    ) -> ReadOnlyCredentials:
        if connection.role_arn is None:
            return self.own_credentials()
        wanted = (connection, beside)
        if not fresh and (session := self._live_session(wanted)):
            return session.credentials
        with self._lock:
            assuming = self._assuming.setdefault(wanted, threading.Lock())
        with assuming:  # one AssumeRole a tenant at a time; those who waited share what it brought
            if not fresh and (session := self._live_session(wanted)):
                return session.credentials
            session = self.assume_role(connection, external_id=connection.external_id, beside=beside)
            self._remember(wanted, session)
            return session.credentials

    def _live_session(self, wanted: _SessionKey) -> AssumedRole | None:
        session = self._sessions.get(wanted)
        if session is None or session.expires_at - _RENEW_BEFORE_EXPIRY <= self._clock.now():
            return None
        return session

    def _remember(self, wanted: _SessionKey, session: AssumedRole) -> None:
        with self._lock:
            self._sessions[wanted] = session
            self._sessions.move_to_end(wanted)
            self._assuming.pop(wanted, None)
            if len(self._sessions) > _MAX_SESSIONS:
                self._sessions.popitem(last=False)

    def own_credentials(self) -> ReadOnlyCredentials:
        """Our own identity's credentials.

        Raises:
            KmsRequestRejected: there are none.
        """
        with self._lock:  # finding them takes 10 ms; from then on they renew themselves
            if self._own is None:
                self._own = boto3.session.Session().get_credentials()
        if self._own is None:
            raise KmsRequestRejected(
                "this process has no AWS credentials",
                remedy="give the workers an IAM role, or AWS_* variables",
            )
        return self._own.get_frozen_credentials()

    def assume_role(
        self,
        connection: Connection,
        *,
        external_id: str | None,
        restricted: bool = True,
        beside: Sequence[Right] = (),
        is_aside: bool = False,
    ) -> AssumedRole:
        """Assume a tenant's role, cut down to what we need by a session policy unless not ``restricted``.

        ``beside``: see `session_policy`. ``is_aside``: see `KmsRequest`.

        Raises:
            KmsAccessRevoked, KmsUnavailable, KmsRequestRejected.
        """
        assert connection.role_arn is not None
        arguments: dict[str, Any] = {
            "RoleArn": str(connection.role_arn),
            "RoleSessionName": session_name(connection.tenant_id),
            "DurationSeconds": SESSION_SECONDS,
        }
        if restricted:
            arguments["Policy"] = json.dumps(session_policy(connection.kms_key_arn, beside))
        if external_id is not None:
            arguments["ExternalId"] = external_id
        try:
            return self._assume(connection, arguments, is_aside=is_aside)
        except AWS_ERRORS as error:
            error_class = classify(error, STS_ERROR_CLASSES)
            if error_code(error) == "AccessDenied":
                self._require_own_identity(connection)
            raise to_byok_error(error, error_class, "AssumeRole", str(connection.role_arn)) from error

    def _assume(self, connection: Connection, arguments: Mapping[str, Any], *, is_aside: bool) -> AssumedRole:
        client, arn = self.sts_client(connection.kms_key_arn.region), arguments["RoleArn"]
        answer = self._requests.send(
            connection, "AssumeRole", arn, lambda: client.assume_role(**arguments), is_aside=is_aside
        )
        with reading_reply("AssumeRole", arn):
            reply = answer["Credentials"]
            credentials = ReadOnlyCredentials(
                reply["AccessKeyId"], reply["SecretAccessKey"], reply["SessionToken"], None
            )
            session = AssumedRole(credentials, reply["Expiration"])
        self._on_assumed()
        return session

    def caller_account(self, connection: Connection, credentials: ReadOnlyCredentials) -> str:
        """The AWS account that these credentials act in, in the region of a tenant's KMS key.

        Raises:
            KmsAccessRevoked, KmsUnavailable, KmsRequestRejected.
        """
        region = connection.kms_key_arn.region
        try:
            with signing_with(credentials), reading_reply("GetCallerIdentity", region):
                return self._requests.send(
                    connection,
                    "GetCallerIdentity",
                    region,
                    self._caller_client(region).get_caller_identity,
                    is_aside=True,
                )["Account"]
        except AWS_ERRORS as error:
            error_class = classify(error, STS_ERROR_CLASSES)
            raise to_byok_error(error, error_class, "GetCallerIdentity", region) from error

    def _caller_client(self, region: str) -> "STSClient":
        with self._lock:
            if region not in self._caller_clients:
                self._caller_clients[region] = let_mark(
                    tenant_session().client(
                        "sts", region_name=region, endpoint_url=self._endpoint_url, config=CLIENT_CONFIG
                    )
                )
            return self._caller_clients[region]

    def _require_own_identity(self, connection: Connection) -> None:
        """Tell a customer's refusal from our own identity that lost sts:AssumeRole: try a role of our own.

        Raises:
            KmsRequestRejected: that one refuses us, too.
        """
        if self._canary_role is None:
            return
        arguments = {
            "RoleArn": str(self._canary_role),
            "RoleSessionName": "byok.canary",
            "DurationSeconds": SESSION_SECONDS,
        }
        try:
            self._assume(connection, arguments, is_aside=True)
        except AWS_ERRORS as error:
            raise KmsRequestRejected(
                f"our own canary role {self._canary_role} refuses us, too: {error_code(error)}",
                aws_code=error_code(error),
                remedy="give the workers' role sts:AssumeRole again; no tenant is suspended for it",
            ) from error


def session_name(tenant_id: UUID) -> str:
    """What the customer's CloudTrail shows as the session: the tenant's id, and the host that asks.

    AWS allows 64 of ``[\\w+=,.@-]``.
    """
    host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())
    return f"byok.{tenant_id}.{host}"[:64]
