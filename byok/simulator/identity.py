"""Who is calling: the vendor's worker role, a customer's administrator, or an assumed role."""

import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from moto.iam.models import Role, iam_backends

from byok.simulator import (
    ADMIN_ACCESS_KEY_PREFIX,
    VENDOR_ACCESS_KEY_ID,
    VENDOR_ACCOUNT_ID,
    VENDOR_ROLE_ARN,
)
from byok.simulator.errors import AwsError

Clock = Callable[[], datetime]


@dataclass(frozen=True)
class Principal:
    """A caller. ``session_policy`` narrows what an assumed role may do; ``arn`` is the role's, as
    ``aws:PrincipalArn`` has it, and ``session_arn`` that of its session, as CloudTrail shows it."""

    account: str
    arn: str
    is_admin: bool = False
    is_vendor: bool = False
    session_policy: dict[str, Any] | None = None
    session_arn: str = ""
    issued_at: datetime | None = None


@dataclass(frozen=True)
class Session:
    """What AssumeRole hands out."""

    access_key_id: str
    secret_access_key: str
    session_token: str
    expires_at: datetime
    principal: Principal
    role_id: str


class Identities:
    """Resolves access keys and keeps sessions of assumed roles, in memory only."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def resolve(self, access_key_id: str) -> Principal:
        """The caller behind an access key.

        Raises:
            AwsError: unknown, expired, or of a role that was deleted.
        """
        if access_key_id == VENDOR_ACCESS_KEY_ID:
            return Principal(VENDOR_ACCOUNT_ID, VENDOR_ROLE_ARN, is_vendor=True)
        if access_key_id.startswith(ADMIN_ACCESS_KEY_PREFIX):
            account = access_key_id.removeprefix(ADMIN_ACCESS_KEY_PREFIX)
            return Principal(account, f"arn:aws:iam::{account}:root", is_admin=True)
        session = self._sessions.get(access_key_id)
        if session is None:
            raise AwsError(
                "UnrecognizedClientException", "The security token included in the request is invalid."
            )
        if session.expires_at <= self._clock():
            raise AwsError("ExpiredTokenException", "The security token included in the request is expired")
        role = find_role(session.principal.arn)
        if role is None or role.id != session.role_id:
            raise AwsError(
                "UnrecognizedClientException", "The security token included in the request is invalid."
            )
        return session.principal

    def open_session(
        self, role: Role, session_policy: dict[str, Any] | None, seconds: int, name: str
    ) -> Session:
        """Hand out credentials of a role."""
        principal = Principal(
            role.account_id,
            role.arn,
            session_policy=session_policy,
            session_arn=f"arn:aws:sts::{role.account_id}:assumed-role/{role.name}/{name}",
            issued_at=self._clock(),
        )
        session = Session(
            access_key_id="ASIA" + secrets.token_hex(8).upper(),
            secret_access_key=secrets.token_urlsafe(30),
            session_token=secrets.token_urlsafe(120),
            expires_at=self._clock() + timedelta(seconds=seconds),
            principal=principal,
            role_id=role.id,
        )
        with self._lock:
            now = self._clock()
            self._sessions = {key: one for key, one in self._sessions.items() if one.expires_at > now}
            self._sessions[session.access_key_id] = session
        return session


def find_role(arn: str) -> Role | None:
    """The role of this ARN, as its account's administrator created it."""
    account = arn.split(":")[4]
    roles = iam_backends[account]["aws"].roles.values()
    return next((role for role in list(roles) if role.arn == arn), None)
