"""The tables. The database refuses by itself whatever the lifecycle refuses; every constraint is named."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    cast,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

Timestamp = DateTime(timezone=True)

NOT_SHARED = text("NOT shares_connection")
PROBED = text("state IN ('active', 'suspended')")
NOT_ACTIVE = text("state <> 'active'")
OPEN_ROTATION = text("state IN ('requested', 'generated', 'validated')")
FAILED_ROTATION = text("state = 'failed'")
OPEN_CAMPAIGN = text("state IN ('running', 'paused')")

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
    CheckConstraint("state IN ('pending', 'active', 'suspended', 'offboarded')", name="state"),
    CheckConstraint(
        "state NOT IN ('active', 'suspended') OR (kms_key_arn IS NOT NULL AND verified_at IS NOT NULL)",
        name="verified_before_use",
    ),
    CheckConstraint("(state = 'suspended') = (suspended_at IS NOT NULL)", name="suspended_at"),
    CheckConstraint("(suspended_at IS NULL) = (suspended_reason IS NULL)", name="suspended_reason"),
    CheckConstraint("(suspended_at IS NULL) = (suspended_kind IS NULL)", name="suspended_with_kind"),
    CheckConstraint("suspended_kind IN ('revoked', 'locked', 'drill')", name="suspended_kind"),
    CheckConstraint("outage_wait_seconds BETWEEN 0 AND 300", name="outage_wait"),
    CheckConstraint("role_arn IS NULL OR kms_key_arn IS NOT NULL", name="role_with_key"),
    CheckConstraint("rotation_tag_days BETWEEN 1 AND 3650", name="rotation_tag_days"),
    Index("uq_tenants_kms_key_arn", "kms_key_arn", unique=True, postgresql_where=NOT_SHARED),
    Index("uq_tenants_role_arn", "role_arn", unique=True, postgresql_where=NOT_SHARED),
    Index("ix_tenants_next_probe_at", "next_probe_at", postgresql_where=PROBED),
    Index("ix_tenants_next_sync_at", "next_sync_at"),
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
        "(state IN ('active', 'retired', 'compromised', 'destroyed')) = (activated_at IS NOT NULL)",
        name="activated_at",
    ),
    CheckConstraint(
        "activated_at IS NULL OR (validated_at IS NOT NULL AND activated_at >= validated_at)",
        name="validated_before_active",
    ),
    CheckConstraint(
        "(state IN ('retired', 'compromised', 'destroyed')) = (retired_at IS NOT NULL)", name="retired_at"
    ),
    CheckConstraint(
        "validated_at >= generated_at AND retired_at >= activated_at"
        " AND ended_at >= COALESCE(retired_at, validated_at, generated_at)",
        name="order_of_times",
    ),
    CheckConstraint("(state IN ('rejected', 'destroyed')) = (ended_at IS NOT NULL)", name="ended_at"),
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

ticks = Table(
    "ticks",
    metadata,
    Column("job", Text, primary_key=True),
    Column("began_at", Timestamp, nullable=False),
    Column("ended_at", Timestamp, comment="NULL while it runs, or if its worker died"),
    Column("more", Boolean, nullable=False, server_default=text("false"), comment="due again at once"),
    Column("cursor", Text, comment="where the next run goes on"),
)

# The processes that may hold leases. A row that is not renewed is that of a dead process.
members = Table(
    "members",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("kind", Text, nullable=False, comment="service or worker"),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started_at", Timestamp, nullable=False),
    Column("seen_at", Timestamp, nullable=False),
    Column(
        "usage_flushed_at", Timestamp, comment="the usage ledger has all that it used before; NULL: never"
    ),
    Index("ix_members_seen_at", "seen_at"),
)
# How `byok.core.stops.Member` shows itself.
member_name = members.c.kind + " " + cast(members.c.pid, Text) + "@" + members.c.host

stops = Table(
    "stops",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("tenant_id", UUID, ForeignKey("tenants.id"), nullable=False),
    Column("generation", Integer, nullable=False, comment="leases of an earlier one are void"),
    Column("kind", Text, nullable=False),
    Column("noticed_at", Timestamp, nullable=False, comment="when AWS refused, or somebody said stop"),
    Column("committed_at", Timestamp, nullable=False),
    Column("purged_at", Timestamp, comment="when Redis had dropped the tenant's leases; NULL: not yet"),
    UniqueConstraint("tenant_id", "generation"),
    CheckConstraint("kind IN ('revoked', 'locked', 'drill')", name="kind"),
    Index("ix_stops_tenant_id_committed_at", "tenant_id", "committed_at"),
    Index("ix_stops_committed_at", "committed_at"),
    Index("ix_stops_unpurged", "committed_at", postgresql_where=text("purged_at IS NULL")),
)

# What each process that lived when a stop was committed owes to it. Kept as evidence when the process is
# gone: no foreign key to members, and its name is written down.
acknowledgements = Table(
    "acknowledgements",
    metadata,
    Column("stop_id", UUID, ForeignKey("stops.id"), primary_key=True),
    Column("member_id", UUID, primary_key=True),
    Column("member", Text, nullable=False),
    Column("dropped_at", Timestamp, comment="when it had dropped the tenant's leases; NULL: not yet"),
    Column("leases", Integer, comment="how many it held"),
    CheckConstraint("(dropped_at IS NULL) = (leases IS NULL)", name="dropped_at"),
    Index("ix_acknowledgements_owed", "member_id", postgresql_where=text("dropped_at IS NULL")),
)

reencryption_targets = Table(
    "reencryption_targets",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("key_id", UUID, ForeignKey("keys.id"), nullable=False),
    Column("schema_name", Text, nullable=False, comment="in the application's database"),
    Column("table_name", Text, nullable=False),
    Column("primary_key", Text, nullable=False),
    Column("primary_key_kind", Text, nullable=False),
    Column("columns", JSONB, nullable=False, comment="columns of tokens, each with its context's template"),
    Column("tenant_column", Text, comment="NULL: every row of the table is the tenant's"),
    Column("tenant_column_kind", Text),
    Column("tenant_value", Text),
    Column("registered_by", Text, nullable=False),
    Column("registered_at", Timestamp, nullable=False),
    Column("unregistered_at", Timestamp, comment="kept for the campaigns that refer to it"),
    CheckConstraint("primary_key_kind IN ('integer', 'text', 'uuid')", name="primary_key_kind"),
    CheckConstraint("tenant_column_kind IN ('integer', 'text', 'uuid')", name="tenant_column_kind"),
    CheckConstraint(
        "(tenant_column IS NULL) = (tenant_value IS NULL)"
        " AND (tenant_column IS NULL) = (tenant_column_kind IS NULL)",
        name="tenant_column",
    ),
    CheckConstraint("jsonb_array_length(columns) >= 1", name="columns"),
    Index(
        "uq_reencryption_targets_table",
        "key_id",
        "schema_name",
        "table_name",
        unique=True,
        postgresql_where=text("unregistered_at IS NULL"),
    ),
)

reencryption_campaigns = Table(
    "reencryption_campaigns",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("target_id", UUID, ForeignKey("reencryption_targets.id"), nullable=False),
    Column("state", Text, nullable=False),
    Column("phase", Text, nullable=False),
    Column("to_version", Integer, nullable=False, comment="no value is to stay under an older one"),
    Column("requested_by", Text, nullable=False),
    Column("requested_at", Timestamp, nullable=False),
    Column("rows_per_second", Integer, comment="NULL: as fast as it goes"),
    Column("allow_unreadable", Boolean, nullable=False, comment="values that don't open don't fail it"),
    Column("batch", Integer, nullable=False, comment="grows with every claim: fences off earlier ones"),
    Column("pass_number", Integer, nullable=False),
    Column("cursor", Text, comment="last primary key that this phase has done with"),
    Column("row_count", BigInteger, nullable=False, comment="rows of the target, as counted at the start"),
    Column("seen", BigInteger, nullable=False, comment="rows that the passes read"),
    Column("rewritten", BigInteger, nullable=False),
    Column("conflicts", BigInteger, nullable=False, comment="somebody else wrote the value at that moment"),
    Column("unreadable", BigInteger, nullable=False, comment="values that don't open, in all passes"),
    Column("pass_seen", BigInteger, nullable=False),
    Column("pass_rewritten", BigInteger, nullable=False),
    Column("pass_conflicts", BigInteger, nullable=False),
    Column("pass_unreadable", BigInteger, nullable=False),
    Column("unreadable_rows", JSONB, nullable=False, comment="columns and primary keys of the first of them"),
    Column("before", JSONB, nullable=False, comment="values by version, before the first pass"),
    Column("after", JSONB, nullable=False, comment="values by version, after the last pass"),
    Column("started_at", Timestamp),
    Column("claimed_until", Timestamp, comment="a worker has it until then"),
    Column("wake_at", Timestamp, comment="when the sweeper publishes it again"),
    Column("failures", Integer, nullable=False, comment="batches in a row that came to nothing"),
    Column("failure", Text, comment="why it failed, waits or paused"),
    Column("pause_cause", Text),
    Column("finished_at", Timestamp),
    CheckConstraint("state IN ('running', 'paused', 'done', 'cancelled', 'failed')", name="state"),
    CheckConstraint("phase IN ('count-before', 'rewrite', 'count-after')", name="phase"),
    CheckConstraint("pause_cause IN ('request', 'stop')", name="pause_cause"),
    CheckConstraint("(state = 'paused') = (pause_cause IS NOT NULL)", name="paused_with_cause"),
    CheckConstraint("(state IN ('running', 'paused')) = (finished_at IS NULL)", name="finished_at"),
    CheckConstraint("(state = 'running') = (wake_at IS NOT NULL)", name="wake_at"),
    CheckConstraint("claimed_until IS NULL OR state = 'running'", name="claimed_until"),
    CheckConstraint("state <> 'failed' OR failure IS NOT NULL", name="failure"),
    CheckConstraint("rows_per_second >= 1", name="rows_per_second"),
    CheckConstraint("to_version >= 1", name="to_version"),
    Index("uq_reencryption_campaigns_open", "target_id", unique=True, postgresql_where=OPEN_CAMPAIGN),
    Index("ix_reencryption_campaigns_wake_at", "wake_at", postgresql_where=text("state = 'running'")),
    Index("ix_reencryption_campaigns_target_id_to_version", "target_id", "to_version"),
    Index("ix_reencryption_campaigns_requested_at", "requested_at"),
)

audit_heads = Table(
    "audit_heads",
    metadata,
    Column("tenant_id", UUID, ForeignKey("tenants.id"), primary_key=True),
    Column("sequence", BigInteger, nullable=False, comment="number of the last event"),
    Column("hash", LargeBinary, nullable=False),
    CheckConstraint("octet_length(hash) = 32", name="hash"),
)

audit_events = Table(
    "audit_events",
    metadata,
    Column("tenant_id", UUID, ForeignKey("tenants.id"), primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Timestamp, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("details", JSONB, nullable=False),
    Column("previous_hash", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    CheckConstraint("sequence >= 1", name="sequence"),
    CheckConstraint("octet_length(hash) = 32 AND octet_length(previous_hash) = 32", name="hash"),
)
