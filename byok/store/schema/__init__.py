"""The tables. The database refuses by itself whatever the lifecycle refuses; every constraint is named."""

from byok.store.schema.audit import audit_events, audit_heads, signed_checkpoints
from byok.store.schema.base import Timestamp, metadata
from byok.store.schema.campaigns import OPEN_CAMPAIGN, reencryption_campaigns, reencryption_targets
from byok.store.schema.fleet import acknowledgements, member_name, members, stops, ticks
from byok.store.schema.keys import (
    FAILED_ROTATION,
    NOT_ACTIVE,
    NOT_SHARED,
    OPEN_ROTATION,
    PROBED,
    key_versions,
    keys,
    rotation_requests,
    rotations,
    tenants,
    version_usage,
)
from byok.store.schema.lookout import OPEN_FINDING, audit_checkpoints, findings, webhook_messages
from byok.store.schema.moves import OPEN_MOVE, WORKING_MOVE, kms_key_move_wrappings, kms_key_moves
from byok.store.schema.offboarding import NOT_CANCELLED, UNFINISHED, offboardings
from byok.store.schema.request_log import kms_requests
from byok.store.schema.resealing import RUNNING_RESEAL, reseals

__all__ = [
    "FAILED_ROTATION",
    "NOT_ACTIVE",
    "NOT_CANCELLED",
    "NOT_SHARED",
    "OPEN_CAMPAIGN",
    "OPEN_FINDING",
    "OPEN_MOVE",
    "OPEN_ROTATION",
    "PROBED",
    "RUNNING_RESEAL",
    "UNFINISHED",
    "WORKING_MOVE",
    "Timestamp",
    "acknowledgements",
    "audit_checkpoints",
    "audit_events",
    "audit_heads",
    "findings",
    "key_versions",
    "keys",
    "kms_key_move_wrappings",
    "kms_key_moves",
    "kms_requests",
    "member_name",
    "members",
    "metadata",
    "offboardings",
    "reencryption_campaigns",
    "reencryption_targets",
    "reseals",
    "rotation_requests",
    "rotations",
    "signed_checkpoints",
    "stops",
    "tenants",
    "ticks",
    "version_usage",
    "webhook_messages",
]
