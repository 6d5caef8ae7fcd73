"""Compares AWS's record of calls with our log of requests, call by call, in bounded memory."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from byok.core import cloudtrail
from byok.core.cloudtrail import Former, Subject
from byok.core.moves import KmsKeyMove
from byok.core.policies import MAX_SESSION_SECONDS
from byok.core.reconciliation import (
    DELIVERY_DELAY,
    Coverage,
    Reconciliation,
    is_missing,
    is_of_neighbour,
)
from byok.core.request_log import LoggedRequest
from byok.errors import ConfigurationError, InvalidInput, NotReady
from byok.ports import Clock, Store
from byok.services.request_log import RequestMover
from byok.services.trail_shelf import TrailShelf, open_shelf

_PAGE = 1000
_LISTED = 1000  # of each kind; where there are more, the number says so
# A request is recorded when it arrives, which is while it lasts by our clock, or minutes beside it by AWS's.
_MARGIN = timedelta(minutes=30)
# Calls are looked up by when they were: PostgreSQL reads so much of the log at once, of all tenants.
_AT_ONCE = timedelta(hours=6)
_LONGEST_SESSION = timedelta(seconds=MAX_SESSION_SECONDS)
_SECOND = timedelta(seconds=1)  # AWS's times are cut to it

Record = Mapping[str, Any]


class Reconciler:
    """Compares a tenant's calls."""

    def __init__(self, store: Store, mover: RequestMover, clock: Clock) -> None:
        self._store = store
        self._mover = mover
        self._clock = clock

    def compare(
        self,
        tenant_name: str,
        records: Iterable[Record],
        *,
        vendor_account: str | None,
        since: datetime | None = None,
        until: datetime | None = None,
        delay: timedelta = DELIVERY_DELAY,
    ) -> Reconciliation:
        """Compare records of CloudTrail with the log of a tenant's requests.

        Raises:
            UnknownTenant, StoreUnavailable.
            NotReady: the tenant has no connection yet.
            ConfigurationError: it takes our own account to tell our calls, and that is not known.
            InvalidInput: the records say nothing of the tenant's account and region.
        """
        self._mover.move_all()  # what processes of this host, living or dead, wrote down belongs to the log
        now = self._clock.now()
        with self._store.transaction() as tx:
            tenant = tx.tenants.get(tenant_name)
            moves = tx.moves.list(tenant.id)
            log_begins_at = tx.request_log.first_began_at() or now  # it is empty before it begins
        if tenant.connection is None:
            raise NotReady(f"tenant {tenant_name!r} has no KMS key yet: nothing was asked of any")
        connection = tenant.connection
        if connection.role_arn is None and vendor_account is None:
            raise ConfigurationError(
                "BYOK_VENDOR_ROLE_ARN is not set: in key-policy mode it tells which calls are ours",
                remedy="set it to the IAM role that the workers run under",
            )
        subject = Subject(
            tenant.id, connection.kms_key_arn, connection.role_arn, vendor_account, _formers(moves)
        )
        home = (connection.kms_key_arn.account, connection.kms_key_arn.region)
        coverage = Coverage(home, delay, now, since, until)
        result = Reconciliation()
        with open_shelf() as shelf:
            _fill(shelf, result, coverage, records, subject, log_begins_at)
            _require_coverage(coverage, subject, home)
            result.coverage = coverage.told()
            result.is_covered = coverage.complete(*home) is not None
            for request in self._logged(subject, coverage, since, until):
                _judge(shelf, result, coverage, subject, request)
            self._excuse_neighbours(shelf, result, subject)
            result.stranger_count = shelf.count_strangers()
            result.strangers = shelf.strangers(_LISTED)
        return result

    def _logged(
        self, subject: Subject, coverage: Coverage, since: datetime | None, until: datetime | None
    ) -> Iterator[LoggedRequest]:
        moments = [at for span in coverage.seen.values() for at in (span.since, span.until)]
        moments += [at for at in (since, until) if at is not None]
        begin, end = min(moments) - _MARGIN, max(moments) + _MARGIN
        last: LoggedRequest | None = None
        while True:
            with self._store.transaction() as tx:
                page = tx.request_log.page(subject.tenant_id, begin, end, last, _PAGE)
            yield from page
            if len(page) < _PAGE:
                return
            last = page[-1]

    def _excuse_neighbours(self, shelf: TrailShelf, result: Reconciliation, subject: Subject) -> None:
        """Tenants may share a role or a KMS key, and a customer may come back as a new tenant."""
        for calls in shelf.stranger_pages(_PAGE, _AT_ONCE):
            moments = [call.at for call in calls]
            with self._store.transaction() as tx:
                requests = tx.request_log.find(
                    [call.call_id for call in calls],
                    [call.mark for call in calls if call.mark is not None],
                    min(moments) - _MARGIN,
                    max(moments) + _MARGIN,
                )
            for request in requests:
                if is_of_neighbour(request, subject):
                    agrees = shelf.agrees if request.request_id else shelf.agrees_by_mark
                    result.neighbours += agrees(request)


def _formers(moves: Sequence[KmsKeyMove]) -> Sequence[Former]:
    """The connections of a tenant's moves that it left, or may yet go to."""
    left = [(move.source if move.committed_at else move.target, move.finished_at) for move in moves]
    return [
        Former(one.kms_key_arn, one.role_arn, None if at is None else at + _LONGEST_SESSION)
        for one, at in left
    ]


def _require_coverage(coverage: Coverage, subject: Subject, home: tuple[str, str]) -> None:
    region = home[1]
    accounts = {home[0], subject.vendor_account or home[0]}
    if not any((account, region) in coverage.seen for account in accounts) and not coverage.complete(*home):
        raise InvalidInput(
            f"the files hold no record of account {' or '.join(sorted(accounts))} in {region}",
            remedy="give that account's CloudTrail of that region; if it should be empty, say --since and "
            "--until",
        )


def _fill(
    shelf: TrailShelf,
    result: Reconciliation,
    coverage: Coverage,
    records: Iterable[Record],
    subject: Subject,
    log_begins_at: datetime,
) -> None:
    for record in records:
        result.records += 1
        seen = cloudtrail.seen_in(record)
        coverage.add(seen)
        concern = cloudtrail.concern_of(record, subject)
        if concern is None:
            result.administration += cloudtrail.is_about_kms_key(record, subject)
        elif seen.at < log_begins_at - _SECOND:
            result.too_old += 1
        elif not shelf.put(cloudtrail.call_of(record, concern)):
            result.repeated += 1


def _judge(
    shelf: TrailShelf, result: Reconciliation, coverage: Coverage, subject: Subject, request: LoggedRequest
) -> None:
    result.logged += 1
    if request.request_id:
        if shelf.agrees(request):
            result.agreed += 1
        elif is_missing(request, subject, coverage):
            result.missing_count += 1
            if len(result.missing) < _LISTED:
                result.missing.append(request)
        else:
            result.not_expected += 1
    elif shelf.agrees_by_mark(request):
        result.agreed_by_mark += 1
    else:
        result.unanswered += 1
