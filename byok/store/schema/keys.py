"""Tenants, their keys, the versions of these, rotations, uses. Every constraint is named."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

from byok.store.schema.base import Timestamp, metadata

# Whoever left gives its KMS key and role free.
NOT_SHARED = text("NOT shares_connection AND state <> 'offboarded'")
PROBED = text("state IN ('active', 'suspended')")
NOT_ACTIVE = text("state <> 'active'")
OPEN_ROTATION = text("state IN ('requested', 'generated', 'validated')")
FAILED_ROTATION = text("state = 'failed'")

tenants = Table(
    "tenants",
    metadata,
    Column("id", UUID, primary_key=True, comment="opaque; stands in the KMS encryption context"),
    Column("name", Text, nullable=False, unique=True, comment="slug that people use"),
    Column("state", Text, nullable=False),
    Column("generation", Integer, nullable=False, comment="grows with every change of state"),
    Column("external_id", Text, nullable=False, unique=True, comment="made by us; sent with AssumeRole"),
    Column("kms_key_arn", Text, comment="the customer's KMS key"),
    Column("role_arn", Text, comment="the customer's role; NULL in key-policy mode"),
    Column(
        "shares_connection",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="somebody said that another tenant may have this KMS key or role, too",
    ),
    Column("created_at", Timestamp, nullable=False),
    Column("verified_at", Timestamp, comment="last time that the connection passed its checks"),
    Column("suspended_at", Timestamp),
    Column("suspended_kind", Text, comment="who stopped it: that decides how it comes back"),
    Column("suspended_reason", Text),
    Column("suspended_aws_code", Text, comment="evidence: AWS's error code"),
    Column("suspended_request_id", Text, comment="evidence: id of the refused KMS request"),
    Column("rotation_tag_days", Integer, comment="the customer's wish: tag byok:rotation-days"),
    Column("kms_key_rotation_days", Integer, comment="AWS's own rotation of the KMS key, if enabled"),
    Column("kms_key_material_id", Text, comment="the KMS key's material in use, where KMS tells it"),
    Column("synced_at", Timestamp, comment="when the three above were read"),
    Column(
        "next_probe_at",
        Timestamp,
        nullable=False,
        server_default=text("now()"),
        comment="when its access is to be proven next",
    ),
    Column(
        "outage_wait_seconds",
        Integer,
        nullable=False,
        server_default=text("0"),
        comment="how long a call waits for a KMS that can't be reached, once no lease is left",
    ),
    Column(
        "next_sync_at",
        Timestamp,
        nullable=False,
        server_default=text("now() + random() * interval '12 hours'"),
        comment="when to read next what its KMS key says of rotation",
    ),
    Column("kms_key_rotation_on_at", Timestamp, comment="when AWS's own rotation was last seen on"),
    Column(
        "next_watch_at",
        Timestamp,
        nullable=False,
        server_default=text("now() + random() * interval '1 day'"),
        comment="when to look over the customer's side next",
    ),
    Column("looked_at", Timestamp, comment="when the last look began that got an answer"),
    Column("webhook_url", Text, comment="where the customer is told of findings; NULL: nowhere"),
    CheckConstraint("state IN ('pending', 'active', 'suspended', 'offboarded')", name="state"),
    CheckConstraint(
        "state NOT IN ('active', 'suspended') OR (kms_key_arn IS NOT NULL AND verified_at IS NOT NULL)",
        name="verified_before_use",
    ),
    CheckConstraint("(state = 'suspended') = (suspended_at IS NOT NULL)", name="suspended_at"),
    CheckConstraint("(suspended_at IS NULL) = (suspended_reason IS NULL)", name="suspended_reason"),
    CheckConstraint("(suspended_at IS NULL) = (suspended_kind IS NULL)", name="suspended_with_kind"),
    CheckConstraint("suspended_kind IN ('revoked', 'locked', 'drill', 'leaving')", name="suspended_kind"),
    CheckConstraint("outage_wait_seconds BETWEEN 0 AND 300", name="outage_wait"),
    CheckConstraint("role_arn IS NULL OR kms_key_arn IS NOT NULL", name="role_with_key"),
    CheckConstraint("rotation_tag_days BETWEEN 1 AND 3650", name="rotation_tag_days"),
    Index("uq_tenants_kms_key_arn", "kms_key_arn", unique=True, postgresql_where=NOT_SHARED),
    Index("uq_tenants_role_arn", "role_arn", unique=True, postgresql_where=NOT_SHARED),
    Index("ix_tenants_next_probe_at", "next_probe_at", postgresql_where=PROBED),
    Index("ix_tenants_next_sync_at", "next_sync_at"),
    Index("ix_tenants_next_watch_at", "next_watch_at"),
    Index("ix_tenants_looked_at", "looked_at", postgresql_where=PROBED),
    Index("ix_tenants_not_active", "state", "suspended_at", postgresql_where=NOT_ACTIVE),
)

keys = Table(
    "keys",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("tenant_id", UUID, ForeignKey("tenants.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("rotation_period_seconds", BigInteger, nullable=False, comment="the period in force"),
    Column("rotation_setting_seconds", BigInteger, comment="what the vendor set; NULL: nothing"),
    Column("rotation_source", Text, nullable=False, comment="who decided the period in force"),
    Column("lease_ttl_seconds", Integer, nullable=False, comment="0: no caching"),
    Column("created_at", Timestamp, nullable=False),
    Column("next_rotation_at", Timestamp, comment="NULL until the first version is active"),
    # What blind indexes rest on must decrypt: each refers to a version together with that.
    Column("index_version_number", Integer, comment="new blind indexes are under it; NULL: not searchable"),
    Column("other_index_version_number", Integer, comment="looked for as well, during a rebuild"),
    Column("index_decrypts", Boolean, Computed("true", persisted=True)),
    ForeignKeyConstraint(
        ["id", "index_version_number", "index_decrypts"],
        ["key_versions.key_id", "key_versions.number", "key_versions.decrypts"],
        name="fk_keys_index_version",
        use_alter=True,
    ),
    ForeignKeyConstraint(
        ["id", "other_index_version_number", "index_decrypts"],
        ["key_versions.key_id", "key_versions.number", "key_versions.decrypts"],
        name="fk_keys_other_index_version",
        use_alter=True,
    ),
    CheckConstraint(
        "other_index_version_number IS NULL OR index_version_number IS NOT NULL", name="other_index_version"
    ),
    CheckConstraint("other_index_version_number <> index_version_number", name="index_versions_differ"),
    CheckConstraint(
        "decryption_floor <= LEAST(index_version_number, other_index_version_number)",
        name="index_above_floor",
    ),
    Column(
        "decryption_floor",
        Integer,
        nullable=False,
        server_default=text("1"),
        comment="versions below it decrypt no more",
    ),
    Column("decryption_floor_set_at", Timestamp, comment="NULL: never"),
    Column(
        "next_validation_at",
        Timestamp,
        nullable=False,
        server_default=text("now() + random() * interval '1 day'"),
        comment="when its active version is to be validated next",
    ),
    UniqueConstraint("tenant_id", "name"),
    CheckConstraint("rotation_period_seconds BETWEEN 3600 AND 315360000", name="rotation_period"),
    CheckConstraint("rotation_setting_seconds BETWEEN 3600 AND 315360000", name="rotation_setting"),
    CheckConstraint("rotation_source IN ('tag', 'kms-key', 'setting', 'default')", name="rotation_source"),
    CheckConstraint("lease_ttl_seconds BETWEEN 0 AND 86400", name="lease_ttl"),
    CheckConstraint("decryption_floor >= 1", name="decryption_floor"),
    CheckConstraint(
        "decryption_floor = 1 OR decryption_floor_set_at IS NOT NULL", name="decryption_floor_set_at"
    ),
    # What the dispatcher walks along, without looking at the table.
    Index(
        "ix_keys_due",
        "next_rotation_at",
        "id",
        postgresql_include=["tenant_id"],
        postgresql_where=text("next_rotation_at IS NOT NULL"),
    ),
    Index("ix_keys_next_validation_at", "next_validation_at"),
)

rotations = Table(
    "rotations",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("key_id", UUID, ForeignKey("keys.id"), nullable=False),
    Column("reason", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("requested_by", Text, nullable=False),
    Column("requested_at", Timestamp, nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column(
        "deferrals",
        Integer,
        nullable=False,
        server_default=text("0"),
        comment="attempts that never asked KMS: they don't count",
    ),
    Column("claimed_until", Timestamp, comment="a worker has it until then"),
    Column("wake_at", Timestamp, comment="when the sweeper publishes it again"),
    Column("version_number", Integer, comment="the version that it makes"),
    Column("failure", Text, comment="why it failed, or its last failed attempt"),
    Column("finished_at", Timestamp),
    CheckConstraint(
        "reason IN ('initial', 'scheduled', 'forced', 'compromise', 'kms-key-rotated', 'migration')",
        name="reason",
    ),
    CheckConstraint("state IN ('requested', 'generated', 'validated', 'done', 'failed')", name="state"),
    CheckConstraint("(state IN ('done', 'failed')) = (finished_at IS NOT NULL)", name="finished_at"),
    CheckConstraint("(state IN ('done', 'failed')) = (wake_at IS NULL)", name="wake_at"),
    CheckConstraint("claimed_until IS NULL OR finished_at IS NULL", name="claimed_until"),
    CheckConstraint("attempts >= deferrals AND deferrals >= 0", name="attempts"),
    CheckConstraint("state <> 'failed' OR failure IS NOT NULL", name="failure"),
    CheckConstraint(
        "state = 'failed' OR (state = 'requested') = (version_number IS NULL)", name="version_number"
    ),
    Index("uq_rotations_open", "key_id", unique=True, postgresql_where=OPEN_ROTATION),
    Index("ix_rotations_wake_at", "wake_at", postgresql_where=OPEN_ROTATION),
    Index("ix_rotations_key_id_requested_at", "key_id", "requested_at"),
    Index("ix_rotations_failed", "finished_at", postgresql_where=FAILED_ROTATION),
)

# Every request, also one that joined a rotation which was open: asked again, it gets the same answer.
rotation_requests = Table(
    "rotation_requests",
    metadata,
    Column("key_id", UUID, ForeignKey("keys.id"), primary_key=True),
    Column("idempotency_key", Text, primary_key=True),
    # Deferred: the request is inserted first, since its primary key decides who is first.
    Column(
        "rotation_id",
        UUID,
        ForeignKey("rotations.id", deferrable=True, initially="DEFERRED"),
        nullable=False,
    ),
    Column("reason", Text, nullable=False),
    Column("requested_by", Text, nullable=False),
    Column("requested_at", Timestamp, nullable=False),
    Index("ix_rotation_requests_rotation_id", "rotation_id"),
)

key_versions = Table(
    "key_versions",
    metadata,
    Column("key_id", UUID, ForeignKey("keys.id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("state", Text, nullable=False),
    Column("encrypted_key", LargeBinary, comment="encrypted key body: the wrapped key, sealed"),
    Column("iv", LargeBinary, comment="IV of the seal, 12 bytes"),
    Column("master_key_id", Text, comment="the master key that sealed it"),
    Column("kms_key_arn", Text, nullable=False),
    Column("kms_request_id", Text, nullable=False),
    Column("kms_key_material_id", Text, comment="where KMS tells it"),
    Column("rotation_id", UUID, ForeignKey("rotations.id"), nullable=False, unique=True),
    Column("reason", Text, nullable=False),
    Column("requested_by", Text, nullable=False),
    Column("requested_at", Timestamp, nullable=False),
    Column("generated_at", Timestamp, nullable=False),
    Column("validated_at", Timestamp),
    Column("activated_at", Timestamp),
    Column("retired_at", Timestamp),
    Column("ended_at", Timestamp, comment="rejected or destroyed"),
    Column("fingerprint", LargeBinary, comment="tells secrets apart without revealing them"),
    Column("canary", LargeBinary, comment="a token made at validation, opened ever after"),
    Column("checks", JSONB, nullable=False, comment="report of the last validation"),
    # Numbers have no gap, and a pending version is the newest: each but the first refers to the one
    # before it, which must be there and be settled. The database sees to it without any trigger.
    Column("previous_number", Integer, Computed("NULLIF(number - 1, 0)", persisted=True)),
    Column("previous_settled", Boolean, Computed("true", persisted=True)),
    Column("settled", Boolean, Computed("state <> 'pending'", persisted=True)),
    Column(
        "decrypts",
        Boolean,
        Computed("state IN ('active', 'retired', 'compromised')", persisted=True),
    ),
    UniqueConstraint("key_id", "number", "settled"),
    UniqueConstraint("key_id", "number", "decrypts"),
    ForeignKeyConstraint(
        ["key_id", "previous_number", "previous_settled"],
        ["key_versions.key_id", "key_versions.number", "key_versions.settled"],
        name="fk_key_versions_previous",
    ),
    UniqueConstraint("key_id", "fingerprint"),
    CheckConstraint("number >= 1", name="number"),
    CheckConstraint(
        "state IN ('pending', 'active', 'retired', 'compromised', 'rejected', 'destroyed')", name="state"
    ),
    CheckConstraint(
        "(state = 'destroyed') = (encrypted_key IS NULL) AND (state = 'destroyed') = (iv IS NULL)"
        " AND (state = 'destroyed') = (master_key_id IS NULL)",
        name="record",
    ),
    CheckConstraint("iv IS NULL OR octet_length(iv) = 12", name="iv"),
    CheckConstraint(
        "(validated_at IS NULL) = (fingerprint IS NULL) AND (validated_at IS NULL) = (canary IS NULL)",
        name="validated_at",
    ),
    CheckConstraint(
        "state = 'destroyed' OR (state IN ('active', 'retired', 'compromised')) = (activated_at IS NOT NULL)",
        name="activated_at",
    ),
    CheckConstraint(
        "activated_at IS NULL OR (validated_at IS NOT NULL AND activated_at >= validated_at)",
        name="validated_before_active",
    ),
    CheckConstraint(
        "state = 'destroyed' OR (state IN ('retired', 'compromised')) = (retired_at IS NOT NULL)",
        name="retired_at",
    ),
    CheckConstraint("retired_at IS NULL OR activated_at IS NOT NULL", name="active_before_retired"),
    CheckConstraint(
        "validated_at >= generated_at AND retired_at >= activated_at"
        " AND ended_at >= COALESCE(retired_at, activated_at, validated_at, generated_at)",
        name="order_of_times",
    ),
    CheckConstraint("(state IN ('rejected', 'destroyed')) = (ended_at IS NOT NULL)", name="ended_at"),
    Index(
        "ix_key_versions_master_key_id",
        "master_key_id",
        postgresql_where=text("master_key_id IS NOT NULL"),
    ),
    Index("uq_key_versions_active", "key_id", unique=True, postgresql_where=text("state = 'active'")),
    Index("uq_key_versions_pending", "key_id", unique=True, postgresql_where=text("state = 'pending'")),
)

# How often each version was used, and when last: what every process counted, added up.
version_usage = Table(
    "version_usage",
    metadata,
    Column("key_id", UUID, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("uses", BigInteger, nullable=False, comment="encryptions and decryptions"),
    Column("first_used_at", Timestamp, nullable=False),
    Column("last_used_at", Timestamp, nullable=False, comment="up to one flush late, never early"),
    ForeignKeyConstraint(
        ["key_id", "number"], ["key_versions.key_id", "key_versions.number"], name="fk_version_usage_version"
    ),
    CheckConstraint("uses >= 0", name="uses"),
    CheckConstraint("last_used_at >= first_used_at", name="order_of_times"),
)
