"""What follows when AWS's record of calls is compared with ours. Pure.

A request that was answered has AWS's id on both sides. One whose answer never came, or whose process died,
has only ours, which AWS may have recorded with the User-Agent: that is taken for the same call within minutes
of when it was sent, once. The id of a request that was answered excuses nothing: whoever copies it is found.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from byok.core.cloudtrail import Seen, Subject, TrailCall
from byok.core.request_log import LoggedRequest

# CloudTrail "typically delivers logs within an average of about 5 minutes", without a promise (CloudTrail
# User Guide, "How CloudTrail works").
DELIVERY_DELAY = timedelta(minutes=15)
# AWS refuses what was signed more than 5 minutes ago, and what comes from ahead of it.
CLOCK_SKEW = timedelta(minutes=5)

# What AWS does itself and records for certain. Of a throttle, a failure on AWS's side or a signature that it
# does not know, nobody promises that CloudTrail has it.
_CARRIED_OUT = frozenset({"", "DryRunOperationException"})
_REFUSED = frozenset({"AccessDenied", "AccessDeniedException"})


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time; both ends belong to it."""

    since: datetime
    until: datetime

    def has(self, at: datetime) -> bool:
        """Whether a moment lies within."""
        return self.since <= at <= self.until

    def with_moment(self, at: datetime) -> "Span":
        """The least that has both."""
        return Span(min(self.since, at), max(self.until, at))


class Coverage:
    """What files of CloudTrail's cover, by account and region.

    Records come late and in no order: the first and last ``delay`` of what was seen may lack some. Where
    ``since`` and ``until`` are told, the files are complete from then to then; of the place that is ``home``
    even if they hold nothing.
    """

    def __init__(
        self,
        home: tuple[str, str],
        delay: timedelta,
        now: datetime,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> None:
        self._home = home
        self._delay = delay
        self._now = now
        self._told = (since, until)
        self.seen: dict[tuple[str, str], Span] = {}

    def add(self, seen: Seen) -> None:
        """Note where and when a record is from."""
        place = (seen.account, seen.region)
        known = self.seen.get(place)
        if known is None:
            self.seen[place] = Span(seen.at, seen.at)
        elif not known.has(seen.at):
            self.seen[place] = known.with_moment(seen.at)

    def complete(self, account: str, region: str) -> Span | None:
        """Within what every call of an account and region must have been recorded; None: nowhere."""
        since, until = self._told
        seen = self.seen.get((account, region))
        if seen is None:
            if since is None or until is None or (account, region) != self._home:
                return None
            seen = Span(since, until)
        begin = since or seen.since + self._delay
        end = min(until or seen.until - self._delay, self._now - self._delay)
        return Span(begin, end) if begin <= end else None

    def told(self) -> Mapping[tuple[str, str], tuple[Span, Span | None]]:
        """For each account and region, from when to when there are records, and what is complete."""
        return {place: (seen, self.complete(*place)) for place, seen in sorted(self.seen.items())}


@dataclass(slots=True)
class Reconciliation:
    """What came of it. ``strangers`` are calls that AWS saw and that are not in our log, ``missing`` requests
    in our log that AWS did not see: the first of each, by time; their numbers are of all.

    ``is_covered``: whether the files are complete for any time at all of the KMS key's account and region.
    ``coverage``: for each account and region, from when to when there are records, and within what every call
    must have one; None where the records span too little for that.
    ``unanswered``: our requests without an answer that AWS knows nothing of either. ``not_expected``: ours
    that these files need not have. ``neighbours``: calls that are in our log for another tenant with the same
    role or KMS key. ``administration``: other calls on the KMS key. ``too_old``: calls from
    before our log begins.
    """

    coverage: Mapping[tuple[str, str], tuple[Span, Span | None]] = field(default_factory=dict)
    is_covered: bool = False
    records: int = 0
    repeated: int = 0
    administration: int = 0
    too_old: int = 0
    logged: int = 0
    agreed: int = 0
    agreed_by_mark: int = 0
    neighbours: int = 0
    unanswered: int = 0
    not_expected: int = 0
    stranger_count: int = 0
    missing_count: int = 0
    strangers: Sequence[TrailCall] = ()
    missing: list[LoggedRequest] = field(default_factory=list)


def may_be(call: TrailCall, request: LoggedRequest) -> bool:
    """Whether a call that carries a request's mark can be that request, which has no answer of AWS's."""
    latest = request.ended_at or request.began_at
    return (
        not request.request_id
        and call.mark == request.id
        and call.operation == request.operation
        and call.region == request.region
        and (request.role_arn is None or call.role_arn == request.role_arn)
        and request.began_at - CLOCK_SKEW <= call.at <= latest + CLOCK_SKEW
    )


def is_of_neighbour(request: LoggedRequest, subject: Subject) -> bool:
    """Whether a request is of another tenant that has the same role or KMS key, or had it before."""
    return request.tenant_id != subject.tenant_id and (
        request.role_arn in subject.roles(request.began_at) or _is_about(request, subject)
    )


def _is_about(request: LoggedRequest, subject: Subject) -> bool:
    keys = map(str, subject.kms_keys(request.began_at))
    return request.subject in (*keys, *subject.roles(request.began_at))


def is_missing(request: LoggedRequest, subject: Subject, coverage: Coverage) -> bool:
    """Whether a request that no record was found of must have one in these files."""
    if not request.request_id or request.code not in _CARRIED_OUT | _REFUSED:
        return False
    for account in _trails(request, subject):
        complete = coverage.complete(account, request.region)
        if complete is not None and complete.has(request.began_at):
            return True
    return False


def _trails(request: LoggedRequest, subject: Subject) -> Sequence[str]:
    """The accounts whose trails must have a request: the caller's, and that of what it is about.

    What was refused stands in the caller's alone (AWS KMS Developer Guide, "Logging AWS KMS API calls with
    AWS CloudTrail"). What is about none of the tenant's own, such as our question who we are, is not
    looked for.
    """
    caller = _account(request.role_arn) if request.role_arn else subject.vendor_account
    if request.role_arn is None and not _is_about(request, subject):
        return ()
    owner = _account(request.subject) if request.code not in _REFUSED else ""
    return [account for account in dict.fromkeys((caller, owner)) if account]


def _account(arn: str) -> str:
    parts = arn.split(":")
    return parts[4] if len(parts) > 5 else ""
