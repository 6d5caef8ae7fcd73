"""The statements of `benchmarks.bulk`, in the order in which they run."""

# Audit events of a tenant before its first key, of a key before its first rotation, and of a rotation.
_TENANT_EVENTS, _KEY_EVENTS, _ROTATION_EVENTS = 3, 1, 4

# A version 7 UUID (RFC 9562) of a moment, as `byok.entropy.SystemRandom.uuid` makes it.
_UUID7 = """
    CREATE OR REPLACE FUNCTION pg_temp.uuid7(at timestamptz) RETURNS uuid VOLATILE LANGUAGE sql RETURN (
        SELECT encode(set_byte(b, 6, get_byte(b, 6) & 15 | 112), 'hex')::uuid FROM (
            SELECT overlay(uuid_send(gen_random_uuid())
                PLACING substring(int8send((extract(epoch FROM at) * 1000)::bigint) FROM 3) FROM 1 FOR 6) AS b
        ) AS made)
"""

# Tenants and keys by number, from the oldest. `activated_at` is the time of the newest version.
STAGING = (
    "SELECT setseed(0.5)",
    _UUID7,
    """
    CREATE TEMPORARY TABLE loading_tenants ON COMMIT DROP AS
    SELECT tenant, pg_temp.uuid7(at) AS id, at AS created_at, tenant % :one_in = :one_in - 1 AS suspended,
        least(:per_tenant, :keys - tenant * :per_tenant) AS key_count,
        lpad((200000000000 + tenant)::text, 12, '0') AS account
    FROM (
        SELECT tenant, now() - interval '1 hour'
            - CAST(:period AS interval) * (:versions - tenant * :per_tenant / (:keys + 1.0)) AS at
        FROM generate_series(0, (:keys - 1) / :per_tenant) AS tenant
    ) AS numbered
    """,
    """
    CREATE TEMPORARY TABLE loading_keys ON COMMIT DROP AS
    SELECT n, pg_temp.uuid7(at) AS id, t.id AS tenant_id, t.tenant, t.key_count, n % :per_tenant AS place,
        'key-' || n % :per_tenant AS name, at AS created_at,
        at + (:versions - 1) * CAST(:period AS interval) + interval '2 seconds' AS last_activated_at,
        n % :one_in = :one_in / 2 AS is_open, random() < :due_share AS is_due
    FROM (
        SELECT n, now() - interval '1 minute'
            - CAST(:period AS interval) * (:versions - n / (:keys + 1.0)) AS at
        FROM generate_series(0, :keys - 1) AS n
    ) AS numbered JOIN loading_tenants AS t ON t.tenant = n / :per_tenant
    """,
    # The rotations to all keys' first versions, then those to the second ones, as a fleet makes them.
    """
    CREATE TEMPORARY TABLE loading_rotations ON COMMIT DROP AS
    SELECT pg_temp.uuid7(activated_at) AS rotation_id, made.* FROM (
        SELECT k.*, number,
            last_activated_at - (:versions - number) * CAST(:period AS interval) AS activated_at,
            CASE WHEN number = 1 THEN 'initial' ELSE 'scheduled' END AS reason,
            CASE WHEN number = 1 THEN 'ops' ELSE 'schedule' END AS requested_by
        FROM generate_series(1, :versions) AS number, loading_keys AS k ORDER BY number, n
    ) AS made
    """,
    "ANALYZE loading_tenants, loading_keys, loading_rotations",
)

FLEET = (
    """
    INSERT INTO tenants (id, name, state, generation, external_id, kms_key_arn, role_arn, created_at,
        verified_at, suspended_at, suspended_kind, suspended_reason, suspended_aws_code, suspended_request_id,
        kms_key_material_id, synced_at, next_probe_at)
    SELECT id, 'tenant-' || tenant, CASE WHEN suspended THEN 'suspended' ELSE 'active' END,
        CASE WHEN suspended THEN 2 ELSE 1 END, 'byok-' || replace(gen_random_uuid()::text, '-', ''),
        'arn:aws:kms:eu-central-1:' || account || '\\:key/' || gen_random_uuid(),
        'arn:aws:iam::' || account || '\\:role/byok', created_at, created_at + interval '1 minute',
        CASE WHEN suspended THEN now() - random() * interval '1 day' END,
        CASE WHEN suspended THEN 'revoked' END, CASE WHEN suspended THEN 'KMS refused Decrypt' END,
        CASE WHEN suspended THEN 'AccessDeniedException' END,
        CASE WHEN suspended THEN gen_random_uuid()::text END,
        encode(sha256(uuid_send(id)), 'hex'), now() - random() * interval '12 hours',
        now() + random() * interval '5 minutes'
    FROM loading_tenants ORDER BY tenant
    """,
    """
    INSERT INTO keys (id, tenant_id, name, rotation_period_seconds, rotation_setting_seconds, rotation_source,
        lease_ttl_seconds, created_at, next_rotation_at)
    SELECT id, tenant_id, name, extract(epoch FROM CAST(:period AS interval)),
        extract(epoch FROM CAST(:period AS interval)), 'setting', :lease_ttl_seconds, created_at,
        CASE WHEN is_due OR is_open THEN now() - random() * interval '30 seconds'
            ELSE now()
                + (last_activated_at + CAST(:period AS interval) - now()) * (0.95 + 0.05 * random()) END
    FROM loading_keys ORDER BY n
    """,
    """
    INSERT INTO rotations (id, key_id, reason, state, requested_by, requested_at, attempts, version_number,
        finished_at)
    SELECT rotation_id, id, reason, 'done', requested_by, activated_at - interval '2 seconds', 1, number,
        activated_at
    FROM loading_rotations ORDER BY number, n
    """,
    # Half of the failed ones were followed by one that went well.
    """
    INSERT INTO rotations (id, key_id, reason, state, requested_by, requested_at, attempts, failure,
        finished_at)
    SELECT pg_temp.uuid7(at), id, 'scheduled', 'failed', 'schedule', at, 8,
        'KMS can''t be reached (ConnectTimeoutError)', at + interval '1 second'
    FROM (
        SELECT id, CASE WHEN n / :one_in % 2 = 0 THEN last_activated_at - interval '2 hours'
            ELSE last_activated_at + (now() - last_activated_at) * random() END AS at
        FROM loading_keys WHERE n % :one_in = 0
    ) AS failing
    """,
    """
    INSERT INTO rotations (id, key_id, reason, state, requested_by, requested_at, wake_at)
    SELECT pg_temp.uuid7(now()), id, 'scheduled', 'requested', 'schedule', now(),
        now() + interval '15 seconds'
    FROM loading_keys WHERE is_open
    """,
    """
    INSERT INTO rotation_requests (key_id, idempotency_key, rotation_id, reason, requested_by, requested_at)
    SELECT key_id, CASE WHEN reason = 'initial' THEN reason
        ELSE reason || ':'
            || to_char(requested_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"') END,
        id, reason, requested_by, requested_at
    FROM rotations ORDER BY requested_at
    """,
    """
    INSERT INTO key_versions (key_id, number, state, encrypted_key, iv, master_key_id, kms_key_arn,
        kms_request_id, kms_key_material_id, rotation_id, reason, requested_by, requested_at, generated_at,
        validated_at, activated_at, retired_at, fingerprint, canary, checks)
    SELECT r.id, number, CASE WHEN number = :versions THEN 'active' ELSE 'retired' END,
        substring(decode(repeat(replace(gen_random_uuid()::text, '-', ''), 15), 'hex') FOR 230),
        substring(uuid_send(gen_random_uuid()) FOR 12), :master_key_id, t.kms_key_arn,
        gen_random_uuid()::text,
        t.kms_key_material_id, rotation_id, reason, requested_by, r.activated_at - interval '2 seconds',
        r.activated_at - interval '1 second', r.activated_at - interval '0.5 seconds', r.activated_at,
        CASE WHEN number < :versions THEN r.activated_at + CAST(:period AS interval) END,
        sha256(uuid_send(rotation_id)),
        sha256(uuid_send(r.id)) || substring(sha256(uuid_send(r.id)) FOR 24),
        CAST(CASE WHEN number = 1 THEN :first_report ELSE :later_report END AS jsonb)
    FROM loading_rotations AS r JOIN tenants AS t ON t.id = r.tenant_id ORDER BY number, n
    """,
    """
    INSERT INTO members (id, kind, host, pid, started_at, seen_at)
    SELECT gen_random_uuid(), 'worker', 'host-' || n, 1000 + n, now() - interval '1 day', now()
    FROM generate_series(1, :members) AS n
    """,
    """
    INSERT INTO stops (id, tenant_id, generation, kind, noticed_at, committed_at, purged_at)
    SELECT pg_temp.uuid7(suspended_at), id, generation, 'revoked', suspended_at - interval '20 milliseconds',
        suspended_at, suspended_at + interval '5 milliseconds'
    FROM tenants WHERE state = 'suspended'
    """,
    """
    INSERT INTO acknowledgements (stop_id, member_id, member, dropped_at, leases)
    SELECT stops.id, members.id, kind_of.name, committed_at + interval '40 milliseconds', 3
    FROM stops, members, LATERAL (SELECT members.kind || ' ' || host || ':' || pid AS name) AS kind_of
    """,
)

# Each event has its number by arithmetic: the tenant's own, then its keys' first versions, key by key, then
# the second ones. That is also their order in time, to a few minutes.
EVENTS = f"""(
    SELECT tenant, id AS tenant_id, {_TENANT_EVENTS - 2} + step AS sequence, created_at AS at, 'ops' AS actor,
        (ARRAY['tenant.added', 'tenant.connection-set', 'tenant.verified'])[step + 1] AS action,
        jsonb_build_object('tenant', 'tenant-' || tenant) AS details
    FROM loading_tenants, generate_series(0, {_TENANT_EVENTS - 1}) AS step
    UNION ALL
    SELECT tenant, tenant_id, {_TENANT_EVENTS + 1} + place * {_KEY_EVENTS + _ROTATION_EVENTS},
        created_at, 'ops', 'key.created',
        jsonb_build_object('key', name, 'source', 'setting', 'lease_ttl_seconds', 3600,
            'rotation_period_seconds', 2592000)
    FROM loading_keys
    UNION ALL
    SELECT tenant, tenant_id, {_TENANT_EVENTS + 1} + CASE WHEN number = 1
            THEN place * {_KEY_EVENTS + _ROTATION_EVENTS} + {_KEY_EVENTS}
            ELSE key_count * ({_KEY_EVENTS} + {_ROTATION_EVENTS} * (number - 1)) + place * {_ROTATION_EVENTS}
        END + step,
        activated_at - (3 - step) * interval '0.5 seconds',
        CASE WHEN step > 0 THEN 'rotation' ELSE requested_by END,
        (ARRAY['rotation.requested', 'version.generated', 'version.validated',
            'version.activated'])[step + 1],
        CASE step
            WHEN 0 THEN jsonb_build_object('key', name, 'rotation', rotation_id, 'reason', reason)
            WHEN 1 THEN jsonb_build_object('key', name, 'rotation', rotation_id, 'version', number,
                'request_id', gen_random_uuid())
            WHEN 2 THEN jsonb_build_object('key', name, 'rotation', rotation_id, 'version', number,
                'checks', 9)
            ELSE jsonb_build_object('key', name, 'rotation', rotation_id, 'version', number,
                'reason', reason, 'previous', nullif(number - 1, 0))
        END
    FROM loading_rotations, generate_series(0, {_ROTATION_EVENTS - 1}) AS step
) AS events"""

AUDIT = (
    f"""
    INSERT INTO audit_events (tenant_id, sequence, at, actor, action, details, previous_hash, hash)
    SELECT tenant_id, sequence, at, actor, action, details,
        CASE WHEN sequence = 1 THEN CAST(:genesis AS bytea)
            ELSE sha256(uuid_send(tenant_id) || int8send(sequence - 1)) END,
        sha256(uuid_send(tenant_id) || int8send(sequence))
    FROM {EVENTS} WHERE tenant >= :real_chains
    """,
    f"""
    INSERT INTO audit_heads (tenant_id, sequence, hash)
    SELECT e.tenant_id, e.sequence, e.hash FROM loading_tenants AS t JOIN audit_events AS e
        ON tenant_id = t.id AND sequence = {_TENANT_EVENTS}
            + key_count * ({_KEY_EVENTS} + {_ROTATION_EVENTS} * :versions)
    """,
)

COUNTS = """
    SELECT (SELECT count(*) FROM tenants), (SELECT count(*) FROM keys),
        (SELECT count(*) FROM keys JOIN tenants ON tenants.id = tenant_id
         WHERE next_rotation_at <= now() AND tenants.state = 'active' AND NOT EXISTS (SELECT FROM rotations
            WHERE key_id = keys.id AND rotations.state IN ('requested', 'generated', 'validated'))),
        (SELECT count(*) FROM key_versions), (SELECT count(*) FROM audit_events)
"""
