"""The messages that customers' endpoints are to get."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa

from byok.core.counts import Count
from byok.core.webhooks import WebhookMessage, pause_after
from byok.ports import WebhookState
from byok.store import schema
from byok.store.counts import count_some

_messages, _tenants = schema.webhook_messages, schema.tenants
_SHOWN_FOR = 1000  # messages of a tenant that are looked at to tell how they fare
_LOOKED_AT = 1000  # first tries that are due, and retries, that a claim chooses among
_PLACES_A_RETRY = 4  # of so many places one is a retry's; who has no use for its places leaves them
_FIRST_TRY, _RETRY = _messages.c.attempts == 0, _messages.c.attempts > 0


class OutboxTable:
    """Implements `byok.ports.Outbox`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def add(self, messages: Sequence[WebhookMessage], at: datetime) -> None:
        for message in messages:
            self._connection.execute(
                _messages.insert().values(
                    id=message.id,
                    tenant_id=message.tenant_id,
                    body=message.body,
                    created_at=at,
                    due_at=at,
                )
            )

    def claim(self, now: datetime, limit: int) -> Sequence[tuple[WebhookMessage, str | None]]:
        chosen = _one_a_tenant(now)
        query = (
            sa.select(_messages, _tenants.c.webhook_url)
            .join(chosen, chosen.c.id == _messages.c.id)
            .join(_tenants, _tenants.c.id == _messages.c.tenant_id)
            .where(_messages.c.due_at <= now)
            .order_by(chosen.c.place)
            .limit(limit)
            .with_for_update(of=_messages, skip_locked=True)
        )
        claimed = []
        for row in self._connection.execute(query).all():
            message = WebhookMessage(row.id, row.tenant_id, row.body, row.attempts + 1)
            self._set(row.id, attempts=message.attempts, due_at=now + pause_after(message.attempts))
            claimed.append((message, row.webhook_url))
        return claimed

    def set_delivered(self, message_id: UUID, at: datetime) -> None:
        self._set(message_id, due_at=None, delivered_at=at, given_up_at=None, failure=None)

    def set_failed(self, message_id: UUID, failure: str, at: datetime, *, give_up: bool) -> None:
        ended: dict[str, object] = {"due_at": None, "given_up_at": at} if give_up else {}
        self._set(message_id, failure=failure, **ended)

    def remove_settled(self, before: datetime, limit: int) -> int:
        removed = 0
        for settled_at in (_messages.c.delivered_at, _messages.c.given_up_at):
            old = sa.select(_messages.c.id).where(settled_at < before).order_by(settled_at).limit(limit)
            removed += self._connection.execute(_messages.delete().where(_messages.c.id.in_(old))).rowcount
        return removed

    def _set(self, message_id: UUID, **values: object) -> None:
        undelivered = sa.and_(_messages.c.id == message_id, _messages.c.delivered_at.is_(None))
        self._connection.execute(_messages.update().where(undelivered).values(**values))

    def oldest_due(self, now: datetime) -> datetime | None:
        # Each along its index; a minimum over both would read all that is due.
        first, retry = (
            sa.select(_messages.c.due_at)
            .where(tried, _messages.c.due_at <= now)
            .order_by(_messages.c.due_at)
            .limit(1)
            .scalar_subquery()
            for tried in (_FIRST_TRY, _RETRY)
        )
        return self._connection.scalar(sa.select(sa.func.least(first, retry)))

    def count_given_up(self, since: datetime) -> Count:
        given_up = sa.select(sa.literal(1)).where(_messages.c.given_up_at >= since)
        return Count.of_seen(count_some(self._connection, given_up))

    def state(self, tenant_id: UUID) -> WebhookState:
        latest = (
            sa.select(_messages)
            .where(_messages.c.tenant_id == tenant_id)
            .order_by(_messages.c.created_at.desc())
            .limit(_SHOWN_FOR)
            .subquery()
        )
        failure = (
            sa.select(latest.c.failure)
            .where(latest.c.failure.is_not(None))
            .order_by(latest.c.created_at.desc())
            .limit(1)
        )
        query = sa.select(
            sa.func.max(latest.c.delivered_at),
            sa.func.count(latest.c.due_at),
            sa.func.count(latest.c.given_up_at),
            failure.scalar_subquery(),
        )
        return WebhookState(*self._connection.execute(query).one())


def _one_a_tenant(now: datetime) -> sa.Subquery:
    """At most one due message of each tenant, in the places in which they are to be tried."""
    due = sa.union_all(
        *(
            sa.select(_messages.c.id, _messages.c.tenant_id, _messages.c.due_at, is_retry.label("is_retry"))
            .where(tried, _messages.c.due_at <= now)
            .order_by(_messages.c.due_at)
            .limit(_LOOKED_AT)
            .subquery()
            .select()
            for tried, is_retry in (
                (_FIRST_TRY, sa.false()),
                (_RETRY, sa.true()),
            )
        )
    ).subquery()
    of_tenant = sa.func.row_number().over(
        partition_by=due.c.tenant_id, order_by=(due.c.is_retry, due.c.due_at)
    )
    ranked = sa.select(due, of_tenant.label("of_tenant")).subquery()
    in_line = sa.func.row_number().over(
        partition_by=ranked.c.is_retry, order_by=(ranked.c.due_at, ranked.c.id)
    )
    # The n-th retry comes right behind so many first tries.
    behind = in_line * (_PLACES_A_RETRY - 1) + sa.literal(0.5)
    return (
        sa.select(ranked.c.id, sa.case((ranked.c.is_retry, behind), else_=in_line).label("place"))
        .where(ranked.c.of_tenant == 1)
        .subquery()
    )
