"""Credentials of thousands of tenants behind one client a region.

A boto3 client of its own costs 200 KiB a tenant, a session 9 MiB; a set of credentials costs 2 KiB. So
each region has one client whose credentials are looked up, when a request is signed, in a context
variable that `acting_as` sets. With nothing set, signing fails: no call can go out under the wrong name.
"""

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.credentials import ReadOnlyCredentials

from byok.core.model import Connection, RoleArn
from byok.core.policies import session_policy
from byok.errors import KmsRequestRejected
from byok.kms.classify import AWS_ERRORS, STS_ERROR_CLASSES, classify, to_byok_error
from byok.ports import Clock

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient
    from mypy_boto3_sts import STSClient

# The least that STS allows. STS sessions can't be revoked, so a short life is part of the bound on
# how long a withdrawn role goes on working.
SESSION_SECONDS = 900
_RENEW_BEFORE_EXPIRY = timedelta(seconds=60)
_MAX_SESSIONS = 20_000  # 2 KiB each

_CLIENT_CONFIG = Config(
    connect_timeout=2,
    read_timeout=5,
    max_pool_connections=32,
    tcp_keepalive=True,
    # botocore's retry quota is shared by a client's callers: one throttled tenant would use up the
    # retries of all. We retry per tenant, one level up.
    retries={"mode": "standard", "total_max_attempts": 1},
    user_agent_extra="byok",
)

_acting: ContextVar[ReadOnlyCredentials] = ContextVar("byok_tenant_credentials")


class _TenantCredentials:
    """Stands where botocore expects a session's credentials, and resolves to the tenant's at signing."""

    method = "byok-tenant"

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        return _acting.get()

    def get_deferred_property(self, name: str) -> Callable[[], object]:
        return lambda: getattr(_acting.get(), name)


@dataclass(frozen=True, slots=True)
class _Session:
    credentials: ReadOnlyCredentials
    expires_at: datetime


class Sessions:
    """Clients and assumed-role sessions of one process. Safe across threads, not across fork."""

    def __init__(self, clock: Clock, endpoint_url: str | None) -> None:
        self._clock = clock
        self._endpoint_url = endpoint_url
        self._lock = threading.Lock()
        self._sessions: OrderedDict[Connection, _Session] = OrderedDict()
        self._assuming: dict[Connection, threading.Lock] = {}
        self._kms_clients: dict[str, KMSClient] = {}
        self._sts_clients: dict[str, STSClient] = {}

    def kms_client(self, region: str) -> "KMSClient":
        """The region's KMS client; call it within `acting_as` only."""
        with self._lock:
            if region not in self._kms_clients:
                core = botocore.session.Session()
                core._credentials = _TenantCredentials()  # type: ignore[attr-defined]  # there is no public setter
                self._kms_clients[region] = boto3.session.Session(botocore_session=core).client(
                    "kms", region_name=region, endpoint_url=self._endpoint_url, config=_CLIENT_CONFIG
                )
            return self._kms_clients[region]

    def sts_client(self, region: str) -> "STSClient":
        """The region's STS client, under the vendor's own identity."""
        with self._lock:
            if region not in self._sts_clients:
                self._sts_clients[region] = boto3.session.Session().client(
                    "sts", region_name=region, endpoint_url=self._endpoint_url, config=_CLIENT_CONFIG
                )
            return self._sts_clients[region]

    @contextmanager
    def acting_as(self, connection: Connection, *, fresh: bool = False) -> Iterator[None]:
        """Sign KMS requests inside the block as the tenant's role, or as ourselves in key-policy mode."""
        reset = _acting.set(self._credentials(connection, fresh=fresh))
        try:
            yield
        finally:
            _acting.reset(reset)

    def forget(self, connection: Connection) -> None:
        """Drop a tenant's session."""
        with self._lock:
            self._sessions.pop(connection, None)

    def _credentials(self, connection: Connection, *, fresh: bool) -> ReadOnlyCredentials:
        if connection.role_arn is None:
            return self._own_credentials()
        if not fresh and (session := self._live_session(connection)):
            return session.credentials
        with self._lock:
            assuming = self._assuming.setdefault(connection, threading.Lock())
        with assuming:  # one AssumeRole a tenant at a time; those who waited share what it brought
            if not fresh and (session := self._live_session(connection)):
                return session.credentials
            session = self.assume_role(connection, connection.role_arn, external_id=connection.external_id)
            self._remember(connection, session)
            return session.credentials

    def _live_session(self, connection: Connection) -> _Session | None:
        session = self._sessions.get(connection)
        if session is None or session.expires_at - _RENEW_BEFORE_EXPIRY <= self._clock.now():
            return None
        return session

    def _remember(self, connection: Connection, session: _Session) -> None:
        with self._lock:
            self._sessions[connection] = session
            self._sessions.move_to_end(connection)
            self._assuming.pop(connection, None)
            if len(self._sessions) > _MAX_SESSIONS:
                self._sessions.popitem(last=False)

    def _own_credentials(self) -> ReadOnlyCredentials:
        credentials = boto3.session.Session().get_credentials()
        if credentials is None:
            raise KmsRequestRejected(
                "this process has no AWS credentials",
                remedy="give the workers an IAM role, or AWS_* variables",
            )
        return credentials.get_frozen_credentials()

    def assume_role(self, connection: Connection, role_arn: RoleArn, *, external_id: str | None) -> _Session:
        """Assume a role, cut down to what we need by a session policy.

        Raises:
            KmsAccessRevoked, KmsUnavailable, KmsRequestRejected.
        """
        arguments: dict[str, Any] = {
            "RoleArn": str(role_arn),
            "RoleSessionName": "byok",
            "DurationSeconds": SESSION_SECONDS,
            "Policy": json.dumps(session_policy(connection.kms_key_arn)),
        }
        if external_id is not None:
            arguments["ExternalId"] = external_id
        client = self.sts_client(connection.kms_key_arn.region)
        try:
            reply = client.assume_role(**arguments)["Credentials"]
        except AWS_ERRORS as error:
            error_class = classify(error, STS_ERROR_CLASSES)
            raise to_byok_error(error, error_class, "AssumeRole", str(role_arn)) from error
        credentials = ReadOnlyCredentials(
            reply["AccessKeyId"], reply["SecretAccessKey"], reply["SessionToken"], None
        )
        return _Session(credentials, reply["Expiration"])
