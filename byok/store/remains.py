"""What is left of a tenant in all tables: wrapped keys, open work, and what is nobody's business any more."""

from collections.abc import Mapping, Sequence
from uuid import UUID

import sqlalchemy as sa

from byok.core.model import Key
from byok.core.reencryption import Campaign
from byok.store import schema
from byok.store.campaign_rows import to_campaign

_tenants, _keys, _versions, _rotations = (
    schema.tenants, schema.keys, schema.key_versions, schema.rotations
)  # fmt: skip
_targets, _campaigns = schema.reencryption_targets, schema.reencryption_campaigns
_requests, _messages = schema.rotation_requests, schema.webhook_messages
_second_wrappings = schema.kms_key_move_wrappings

# Every column that holds a wrapped key, with the column that names its key. No tenant counts as gone while
# one of them holds something: a further kind of record has its row here, and is emptied by a shredder of its
# own (`byok.services.shredding`).
_WRAPPED_KEYS: tuple[tuple[sa.Column[bytes], sa.Column[UUID]], ...] = (
    (_versions.c.encrypted_key, _versions.c.key_id),
    (_second_wrappings.c.encrypted_key, _second_wrappings.c.key_id),
)


class RemainsTable:
    """Implements `byok.ports.Remains`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def count_wrapped_keys(self, tenant_id: UUID) -> int:
        return sum(
            self._connection.execute(
                sa.select(sa.func.count())
                .select_from(_keys.join(key_id.table, key_id == _keys.c.id))
                .where(_keys.c.tenant_id == tenant_id, wrapped_key.is_not(None))
            ).scalar_one()
            for wrapped_key, key_id in _WRAPPED_KEYS
        )

    def list_keys(self, tenant_id: UUID, limit: int) -> Sequence[UUID]:
        some = _keys_left(tenant_id).order_by(_keys.c.id).limit(limit)
        return [row.id for row in self._connection.execute(some)]

    def is_left(self, key: Key) -> bool:
        of_key = _keys_left(key.tenant_id).where(_keys.c.id == key.id)
        return self._connection.execute(of_key).one_or_none() is not None

    def count_keys(self, tenant_id: UUID) -> int:
        left = _keys_left(tenant_id).subquery()
        return self._connection.execute(sa.select(sa.func.count()).select_from(left)).scalar_one()

    def lock_open_campaigns(self, key_id: UUID) -> Sequence[Campaign]:
        query = (
            sa.select(_campaigns)
            .join(_targets, _targets.c.id == _campaigns.c.target_id)
            .where(_targets.c.key_id == key_id, schema.OPEN_CAMPAIGN)
            .order_by(_campaigns.c.id)
            .with_for_update(of=_campaigns)
        )
        return [to_campaign(row) for row in self._connection.execute(query)]

    def retire_key(self, key_id: UUID) -> None:
        self._connection.execute(
            _keys.update()
            .where(_keys.c.id == key_id)
            .values(index_version_number=None, other_index_version_number=None, next_rotation_at=None)
        )

    def forget(self, tenant_id: UUID) -> Mapping[str, int]:
        of_tenant = sa.select(_keys.c.id).where(_keys.c.tenant_id == tenant_id)
        targets = sa.select(_targets.c.id).where(_targets.c.key_id.in_(of_tenant))
        statements = {
            "webhook_urls": _tenants.update()
            .where(_tenants.c.id == tenant_id, _tenants.c.webhook_url.is_not(None))
            .values(webhook_url=None),
            "webhook_messages": _messages.delete().where(_messages.c.tenant_id == tenant_id),
            "idempotency_keys": _requests.delete().where(_requests.c.key_id.in_(of_tenant)),
            "campaigns": _campaigns.update()
            .where(_campaigns.c.target_id.in_(targets))
            .values(cursor=None, unreadable_rows=[]),
        }
        return {what: self._connection.execute(statement).rowcount for what, statement in statements.items()}


def _keys_left(tenant_id: UUID) -> sa.Select[tuple[UUID]]:
    holds = [
        sa.exists().where(key_id == _keys.c.id, wrapped_key.is_not(None))
        for wrapped_key, key_id in _WRAPPED_KEYS
    ]
    works = sa.exists().where(_rotations.c.key_id == _keys.c.id, schema.OPEN_ROTATION)
    has_table = sa.exists().where(_targets.c.key_id == _keys.c.id, _targets.c.unregistered_at.is_(None))
    return sa.select(_keys.c.id).where(_keys.c.tenant_id == tenant_id, sa.or_(*holds, works, has_table))
