"""Which credentials sign a request: one client a region for thousands of tenants.

A boto3 client of its own costs 200 KiB a tenant, a session 9 MiB; a set of credentials costs 2 KiB. So
each region has one client whose credentials are looked up, when a request is signed, in a context
variable. With nothing set, signing fails: no call can go out under the wrong name.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from uuid import UUID

import boto3
import botocore.session
from botocore.awsrequest import AWSPreparedRequest
from botocore.config import Config
from botocore.credentials import ReadOnlyCredentials

from byok.core.request_log import user_agent

CLIENT_CONFIG = Config(
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
_mark: ContextVar[UUID] = ContextVar("byok_request_id")


class _TenantCredentials:
    """Stands where botocore expects a session's credentials, and resolves to the tenant's at signing."""

    method = "byok-tenant"

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        return _acting.get()

    def get_deferred_property(self, name: str) -> Callable[[], object]:
        return lambda: getattr(_acting.get(), name)


def tenant_session() -> boto3.session.Session:
    """A session whose clients sign with the credentials that `signing_with` sets."""
    core = botocore.session.Session()
    core._credentials = _TenantCredentials()  # type: ignore[attr-defined]  # there is no public setter
    return boto3.session.Session(botocore_session=core)


@contextmanager
def signing_with(credentials: ReadOnlyCredentials) -> Iterator[None]:
    """Sign KMS requests inside the block with these credentials."""
    reset = _acting.set(credentials)
    try:
        yield
    finally:
        _acting.reset(reset)


@contextmanager
def marked_with(mark: UUID) -> Iterator[None]:
    """Let the request inside the block carry our id of it, in its User-Agent: CloudTrail keeps that even of
    a request whose answer never comes."""
    reset = _mark.set(mark)
    try:
        yield
    finally:
        _mark.reset(reset)


def let_mark(client: Any) -> Any:  # noqa: ANN401  # botocore's clients have no common type
    """Have a client's requests carry what `marked_with` sets; return it."""
    # Last of all: botocore writes the header anew once the request is made. It is not among what is signed
    # (botocore.auth, SIGNED_HEADERS_BLACKLIST).
    client.meta.events.register("before-send", _put_mark)
    return client


def _put_mark(request: AWSPreparedRequest, **_: object) -> None:
    if (mark := _mark.get(None)) is not None:
        of_botocore = request.headers.get("User-Agent", b"")
        text = of_botocore.decode() if isinstance(of_botocore, bytes) else of_botocore
        request.headers["User-Agent"] = user_agent(mark, text)
