"""What is logged of each request to KMS and STS, and how a line of the spool says it. Pure.

Ids, ARNs, an operation and times: nothing of what was encrypted, and no credentials.
"""

import json
import re
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

# How a request names itself in its User-Agent, which CloudTrail records. In front of what botocore says of
# itself: CloudTrail cuts the end off what is longer than a kilobyte.
_MARK = re.compile(r"\bbyok-id/([0-9a-f]{32})\b")


_MAX_TEXT = 256  # characters of an id or a code; AWS's are of 60


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One attempt. Written before it is sent, and again when it has ended.

    ``id`` is ours, and goes out in the User-Agent. ``subject`` is the ARN that it was about, or a region.
    ``role_arn``: in whose session it was sent; None for our own identity. ``ended_at`` is None until it has
    ended, and for ever if its process died. ``request_id`` is AWS's; empty without a reply. ``code`` is AWS's
    error code, or what went wrong instead; empty where it went well.
    """

    id: UUID
    tenant_id: UUID
    operation: str
    subject: str
    role_arn: str | None
    region: str
    began_at: datetime
    ended_at: datetime | None = None
    request_id: str = ""
    code: str = ""

    def ended(self, at: datetime, request_id: str, code: str) -> "LoggedRequest":
        """The same once it has ended. What answered may be anybody: its texts become what a row can hold."""
        return replace(self, ended_at=at, request_id=_plain(request_id), code=_plain(code))


def _plain(text: str) -> str:
    return "".join(one for one in text[:_MAX_TEXT] if one.isprintable())


def user_agent(mark: UUID, of_botocore: str) -> str:
    """The User-Agent of the request with this id."""
    return f"byok-id/{mark.hex} {of_botocore}"


def mark_in(user_agent: str) -> UUID | None:
    """Our id in a User-Agent, if it has one."""
    match = _MARK.search(user_agent)
    return None if match is None else UUID(match[1])


def to_line(request: LoggedRequest) -> bytes:
    """One line of the spool, with its end."""
    ended_at = None if request.ended_at is None else request.ended_at.isoformat()
    told = [
        request.id.hex,
        request.tenant_id.hex,
        request.operation,
        request.subject,
        request.role_arn,
        request.region,
        request.began_at.isoformat(),
        ended_at,
        request.request_id,
        request.code,
    ]
    return json.dumps(told, separators=(",", ":")).encode() + b"\n"


def parse_line(line: bytes) -> LoggedRequest:
    """Read a line.

    Raises:
        ValueError: it is none, or cut short.
    """
    if not line.endswith(b"\n"):
        raise ValueError("cut short")
    try:
        mark, tenant_id, operation, subject, role_arn, region, began_at, ended_at, request_id, code = (
            json.loads(line)
        )
        texts = (operation, subject, role_arn or "", region, request_id, code)
        if not all(isinstance(text, str) and text.isprintable() for text in texts):
            raise ValueError("with what is no text")
        return LoggedRequest(
            UUID(mark),
            UUID(tenant_id),
            operation,
            subject,
            role_arn,
            region,
            datetime.fromisoformat(began_at),
            None if ended_at is None else datetime.fromisoformat(ended_at),
            request_id,
            code,
        )
    except (TypeError, AttributeError) as error:
        raise ValueError("not what a request is logged as") from error


def merged(requests: list[LoggedRequest]) -> list[LoggedRequest]:
    """One entry for each request, its end where that is known, by id."""
    latest: dict[UUID, LoggedRequest] = {}
    for request in requests:
        if request.id not in latest or request.ended_at is not None:
            latest[request.id] = request
    return [latest[mark] for mark in sorted(latest)]
