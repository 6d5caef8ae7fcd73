"""Which credentials sign a request: one client a region for thousands of tenants.

A boto3 client of its own costs 200 KiB a tenant, a session 9 MiB; a set of credentials costs 2 KiB. So
each region has one client whose credentials are looked up, when a request is signed, in a context
variable. With nothing set, signing fails: no call can go out under the wrong name.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import boto3
import botocore.session
from botocore.config import Config
from botocore.credentials import ReadOnlyCredentials

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
