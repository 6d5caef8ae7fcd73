"""The log of every request to KMS and STS: where a request goes in, and where the log is kept."""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from byok.core.model import Connection
from byok.core.request_log import LoggedRequest


class RequestLog(Protocol):
    """Where each request is written down, before it is sent and once it has ended. Thread-safe."""

    def begin(self, connection: Connection, operation: str, subject: str) -> LoggedRequest:
        """Write down that a request is about to be sent. What is written outlives this process, however it
        ends.

        Raises:
            KmsBackingOff: it can't be written: the request must not be sent.
        """

    def end(self, request: LoggedRequest, request_id: str, code: str) -> None:
        """Write down how it ended. Never fails: that it was sent is on record."""


class RequestSpool(Protocol):
    """What this host's processes wrote down and PostgreSQL does not have yet."""

    def seal(self) -> None:
        """Let what this process wrote so far be read by `sealed`; what it writes next goes elsewhere."""

    def sealed(self) -> Iterator[Sequence[LoggedRequest]]:
        """What was sealed, and what processes left that are dead, in batches, oldest first. A batch is
        forgotten when the next one is asked for.

        Raises:
            ConfigurationError: it can't be forgotten.
        """

    def unsealed(self) -> Iterator[Sequence[LoggedRequest]]:
        """What living processes wrote and did not seal yet, in batches. It stays where it is."""

    def backlog_bytes(self) -> int:
        """How much waits, of all processes."""


class RequestLogTable(Protocol):
    """The kms_requests table."""

    def add(self, requests: Sequence[LoggedRequest]) -> None:
        """Add what is new, and the ends of what was there without. The same twice changes nothing."""

    def page(
        self,
        tenant_id: UUID,
        since: datetime,
        until: datetime,
        after: LoggedRequest | None,
        limit: int,
    ) -> Sequence[LoggedRequest]:
        """A tenant's requests that began in ``[since, until)``, in the order in which they did, from behind
        ``after``."""

    def find(
        self, request_ids: Collection[str], ids: Collection[UUID], since: datetime, until: datetime
    ) -> Sequence[LoggedRequest]:
        """Requests of any tenant with one of AWS's ids, or of ours, that began in ``[since, until)``."""

    def first_began_at(self) -> datetime | None:
        """When the oldest of all began."""

    def remove_before(self, before: datetime, limit: int) -> int:
        """Remove some that began before; how many it were."""
