"""The database refuses by itself what the code refuses: each impossible row is tried in raw SQL."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from byok.core.audit import verify_chain
from byok.embedded.stack import Stack
from byok.errors import AuditChainBroken
from byok.store import migrate
from byok.store.postgres import create_engine
from tests.world import World


@pytest.fixture
def key(world: World) -> World:
    world.add_tenant()
    world.add_key()
    world.services.vault.request_rotation("acme", "pii")
    world.run_published()
    return world


def test_migrations_and_models_are_equal(engine: sa.Engine) -> None:
    assert migrate.current_revision(engine) == migrate.head_revision()
    assert migrate.differences(engine) == []


@pytest.fixture
def other_database(stack: Stack, engine: sa.Engine) -> Iterator[sa.Engine]:
    """An empty database beside the tests' own."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("CREATE DATABASE other"))
    other = create_engine(stack.environment["BYOK_DATABASE_URL"].removesuffix("/byok") + "/other", 1)
    yield other
    other.dispose()
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("DROP DATABASE other"))


def test_0002_keeps_the_answer_to_every_request_and_finds_its_rows_sound(other_database: sa.Engine) -> None:
    migrate.upgrade(other_database, "0001")
    with other_database.begin() as connection:
        connection.execute(sa.text(ROWS_OF_0001))
    migrate.upgrade(other_database)
    assert migrate.differences(other_database) == []
    with other_database.connect() as connection:
        moved = connection.execute(
            sa.text(
                "SELECT idempotency_key, state FROM rotation_requests"
                " JOIN rotations ON rotations.id = rotation_id"
            )
        )
        assert sorted(map(tuple, moved)) == [("deploy-7", "done"), ("initial", "done"), ("late", "requested")]
        numbers = connection.execute(sa.text("SELECT number, previous_number, settled FROM key_versions"))
        assert sorted(map(tuple, numbers)) == [(1, None, True), (2, 1, True)]


def test_0005_takes_versions_from_before_the_ledger_for_used_just_now(other_database: sa.Engine) -> None:
    migrate.upgrade(other_database, "0001")
    with other_database.begin() as connection:
        connection.execute(sa.text(ROWS_OF_0001))
    migrate.upgrade(other_database)
    with other_database.connect() as connection:
        known = connection.execute(
            sa.text("SELECT number, uses, now() - last_used_at < interval '1 m' FROM version_usage")
        )
        assert sorted(map(tuple, known)) == [(1, 0, True), (2, 0, True)]


ROWS_OF_0001 = """
INSERT INTO tenants (id, name, state, generation, external_id, created_at)
  VALUES (md5('t')::uuid, 'acme', 'pending', 0, 'x', now());
INSERT INTO keys (id, tenant_id, name, rotation_period_seconds, lease_ttl_seconds, created_at)
  VALUES (md5('k')::uuid, md5('t')::uuid, 'pii', 3600, 0, now());
INSERT INTO rotations (id, key_id, reason, state, idempotency_key, requested_by, requested_at, wake_at,
    version_number, finished_at) VALUES
  (md5('r1')::uuid, md5('k')::uuid, 'initial', 'done', 'initial', 'a', now(), NULL, 1, now()),
  (md5('r2')::uuid, md5('k')::uuid, 'forced', 'done', 'deploy-7', 'a', now(), NULL, 2, now()),
  (md5('r3')::uuid, md5('k')::uuid, 'forced', 'requested', 'late', 'a', now(), now(), NULL, NULL);
INSERT INTO key_versions (key_id, number, state, encrypted_key, iv, master_key_id, kms_key_arn,
    kms_request_id, rotation_id, reason, requested_by, requested_at, generated_at,
    validated_at, activated_at, retired_at,
    fingerprint, canary, checks) VALUES
  (md5('k')::uuid, 1, 'retired', 'x', '123456789012', 'mk', 'arn', 'r', md5('r1')::uuid, 'initial', 'a',
    now(), now(), now(), now(), now(), 'f1', 'c', '[]'),
  (md5('k')::uuid, 2, 'active', 'x', '123456789012', 'mk', 'arn', 'r', md5('r2')::uuid, 'forced', 'a',
    now(), now(), now(), now(), NULL, 'f2', 'c', '[]');
"""

_TARGET = (
    "INSERT INTO reencryption_targets (id, key_id, schema_name, table_name, primary_key, primary_key_kind,"
    " columns, registered_by, registered_at) SELECT md5('t')::uuid, id, 'public', 'users', 'id', 'integer',"
    " '[{}]', 'a', now() FROM keys;"
)
_COUNTS = "row_count, seen, rewritten, conflicts, unreadable, pass_seen, pass_rewritten, pass_conflicts"
_CAMPAIGN = (
    f"{_TARGET} INSERT INTO reencryption_campaigns (id, target_id, state, phase, to_version, requested_by,"
    f" requested_at, allow_unreadable, batch, pass_number, {_COUNTS}, pass_unreadable, unreadable_rows,"
    " before, after, failures, wake_at)"
    " SELECT md5('c')::uuid, id, 'running', 'rewrite', 1, 'a', now(), false,"
    " 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, '[]', '{}', '{}', 0, now() FROM reencryption_targets;"
    " UPDATE reencryption_campaigns SET "
)
_MOVE = (
    "INSERT INTO kms_key_moves (id, tenant_id, state, from_kms_key_arn, to_kms_key_arn, to_role_arn,"
    " shares_connection, hold, requested_by, requested_at, batch, failures, wake_at) SELECT"
    " md5('m')::uuid, id, 'wrapping', 'old', 'new', 'role', false, false, 'a', now(), 0, 0, now()"
    " FROM tenants;"
)
_MOVED = f"{_MOVE} UPDATE kms_key_moves SET "
_WRAPPED = (
    f"{_MOVE} INSERT INTO kms_key_move_wrappings (move_id, key_id, number, encrypted_key, iv, master_key_id,"
    " kms_request_id, validated_at) SELECT md5('m')::uuid, key_id, number,"
)
_ANOTHER_MOVE = (
    "INSERT INTO tenants (id, name, state, generation, external_id, created_at)"
    " VALUES (md5('2')::uuid, '2', 'pending', 0, '2', now());"
    f"{_MOVE.replace('FROM tenants', 'FROM tenants WHERE generation > 0')}"
    " INSERT INTO kms_key_moves (id, tenant_id, state, from_kms_key_arn, to_kms_key_arn, to_role_arn,"
    " shares_connection, hold, requested_by, requested_at, batch, failures, wake_at) SELECT"
    " md5('n')::uuid, {tenant}, 'wrapping', 'old', '{key}', '{role}', false, false, 'a', now(), 0, 0, now()"
    " FROM kms_key_moves"
)
_STOP = "INSERT INTO stops (id, tenant_id, generation, kind, noticed_at, committed_at)"

_FINDING = (
    "INSERT INTO findings (id, tenant_id, kind, severity, detail, first_seen_at, last_seen_at)"
    " SELECT gen_random_uuid(), id, 'excess-rights', 'warning', '{}', now(), now() FROM tenants"
)
_MESSAGE = (
    "INSERT INTO webhook_messages (id, tenant_id, body, created_at, due_at)"
    " SELECT gen_random_uuid(), id, '{}', now(), now() FROM tenants"
)
_OFFBOARDING = (
    "INSERT INTO offboardings (id, tenant_id, state, requested_by, requested_at, reason, shred_after)"
    " SELECT gen_random_uuid(), id, 'waiting', 'a', now(), 'x', now() FROM tenants"
)
_SIGNED = (
    "INSERT INTO signed_checkpoints"
    " (tenant_id, at, master_key_id, public_key, signature, number, sequence, hash)"
    " SELECT id, now(), 'mk-1', decode(repeat('00', 32), 'hex'), decode(repeat('00', 64), 'hex'),"
)
_USED = "INSERT INTO version_usage (key_id, number, uses, first_used_at, last_used_at)"

_RESEAL = (
    "INSERT INTO reseals (id, master_key_id, state, requested_by, requested_at, total, batch, pass_number,"
    " resealed, conflicts, unreadable, pass_resealed, pass_conflicts, pass_unreadable, unreadable_records,"
    " failures, wake_at) VALUES (md5('{id}')::uuid, 'mk-{id}', 'running', 'a', now(), 0, 0, 1,"
    " 0, 0, 0, 0, 0, 0, '[]', 0, now());"
)
IMPOSSIBLE = {
    "ck_kms_key_moves_state": f"{_MOVED} state = 'happy', wake_at = NULL",
    "ck_kms_key_moves_wait_cause": f"{_MOVED} wait_cause = 'mood', wait_why = 'a', wait_remedy = 'b'",
    "ck_kms_key_moves_wait": f"{_MOVED} wait_cause = 'stop'",
    "ck_kms_key_moves_wake_at": f"{_MOVED} wake_at = NULL",
    "ck_kms_key_moves_claimed_until": f"{_MOVED} state = 'held', wake_at = NULL, claimed_until = now()",
    "ck_kms_key_moves_committed_at": f"{_MOVED} committed_at = now()",
    "ck_kms_key_moves_finished_at": f"{_MOVED} finished_at = now()",
    "ck_kms_key_moves_another_kms_key": f"{_MOVED} to_kms_key_arn = 'old'",
    "uq_kms_key_moves_open": _ANOTHER_MOVE.format(tenant="tenant_id", key="newer", role="another"),
    "uq_kms_key_moves_kms_key_arn": _ANOTHER_MOVE.format(tenant="md5('2')::uuid", key="new", role="another"),
    "uq_kms_key_moves_role_arn": _ANOTHER_MOVE.format(tenant="md5('2')::uuid", key="newer", role="role"),
    "ck_kms_key_move_wrappings_record": f"{_WRAPPED} 'x', NULL, 'mk', 'r', now() FROM key_versions",
    "ck_kms_key_move_wrappings_iv": f"{_WRAPPED} 'x', 'short', 'mk', 'r', now() FROM key_versions",
    "ck_tenants_state": "UPDATE tenants SET state = 'happy'",
    "ck_tenants_verified_before_use": "UPDATE tenants SET verified_at = NULL",
    "ck_tenants_suspended_at": "UPDATE tenants SET state = 'suspended'",
    "ck_tenants_suspended_reason": (
        "UPDATE tenants SET state = 'suspended', suspended_at = now(), suspended_reason = NULL,"
        " suspended_kind = 'locked'"
    ),
    "ck_tenants_role_with_key": (
        "UPDATE tenants SET state = 'pending', kms_key_arn = NULL, role_arn = 'arn'"
    ),
    "ck_tenants_rotation_tag_days": "UPDATE tenants SET rotation_tag_days = 3651",
    "uq_tenants_kms_key_arn": (
        "INSERT INTO tenants (id, name, state, generation, external_id, created_at, kms_key_arn)"
        " SELECT md5('2')::uuid, '2', 'pending', 0, '2', now(), kms_key_arn FROM tenants"
    ),
    "uq_tenants_role_arn": (
        "UPDATE tenants SET role_arn = 'arn';"
        "INSERT INTO tenants (id, name, state, generation, external_id, created_at, kms_key_arn, role_arn)"
        " VALUES (md5('2')::uuid, '2', 'pending', 0, '2', now(), 'another', 'arn')"
    ),
    "ck_keys_rotation_setting": "UPDATE keys SET rotation_setting_seconds = 3599",
    "ck_keys_rotation_source": "UPDATE keys SET rotation_source = 'somebody'",
    "ck_keys_rotation_period": "UPDATE keys SET rotation_period_seconds = 3599",
    "ck_keys_lease_ttl": "UPDATE keys SET lease_ttl_seconds = 86401",
    "ck_keys_other_index_version": "UPDATE keys SET other_index_version_number = 1",
    "ck_keys_index_versions_differ": (
        "UPDATE keys SET index_version_number = 1, other_index_version_number = 1"
    ),
    "fk_keys_index_version": "UPDATE keys SET index_version_number = 3",
    "fk_keys_other_index_version": (
        "UPDATE keys SET index_version_number = 1, other_index_version_number = 3"
    ),
    "ck_keys_index_above_floor": (
        "UPDATE keys SET index_version_number = 1, decryption_floor = 2, decryption_floor_set_at = now()"
    ),
    "ck_keys_decryption_floor": "UPDATE keys SET decryption_floor = 0, decryption_floor_set_at = now()",
    "ck_keys_decryption_floor_set_at": "UPDATE keys SET decryption_floor = 2",
    "ck_version_usage_uses": f"{_USED} SELECT key_id, 1, -1, now(), now() FROM key_versions LIMIT 1",
    "ck_version_usage_order_of_times": (
        f"{_USED} SELECT key_id, 1, 1, now(), now() - interval '1 s' FROM key_versions LIMIT 1"
    ),
    "uq_key_versions_active": (
        "UPDATE key_versions SET state = 'active', retired_at = NULL WHERE number = 1"
    ),
    "ck_key_versions_state": (
        "UPDATE key_versions SET state = 'happy', activated_at = NULL, retired_at = NULL WHERE number = 1"
    ),
    "ck_key_versions_number": "UPDATE key_versions SET number = 0 WHERE number = 1",
    "ck_key_versions_iv": "UPDATE key_versions SET iv = 'short' WHERE number = 1",
    "ck_key_versions_record": "UPDATE key_versions SET encrypted_key = NULL WHERE number = 1",
    "ck_key_versions_validated_at": "UPDATE key_versions SET fingerprint = NULL WHERE number = 1",
    "ck_key_versions_activated_at": "UPDATE key_versions SET activated_at = NULL WHERE number = 1",
    "ck_key_versions_validated_before_active": (
        "UPDATE key_versions SET validated_at = activated_at + interval '1 s' WHERE number = 1"
    ),
    "ck_key_versions_retired_at": "UPDATE key_versions SET retired_at = NULL WHERE number = 1",
    "ck_key_versions_active_before_retired": (
        "UPDATE key_versions SET state = 'destroyed', activated_at = NULL, ended_at = now(),"
        " encrypted_key = NULL, iv = NULL, master_key_id = NULL WHERE number = 1"
    ),
    "ck_key_versions_order_of_times": (
        "UPDATE key_versions SET generated_at = validated_at + interval '1 s' WHERE number = 1"
    ),
    "fk_key_versions_previous": "DELETE FROM key_versions WHERE number = 1",
    "ck_key_versions_ended_at": "UPDATE key_versions SET ended_at = now() WHERE number = 1",
    "uq_key_versions_key_id_fingerprint": (
        "UPDATE key_versions SET fingerprint = (SELECT fingerprint FROM key_versions WHERE number = 2)"
        " WHERE number = 1"
    ),
    "uq_key_versions_rotation_id": (
        "UPDATE key_versions SET rotation_id = (SELECT rotation_id FROM key_versions WHERE number = 2)"
        " WHERE number = 1"
    ),
    "uq_rotations_open": "UPDATE rotations SET state = 'generated', finished_at = NULL, wake_at = now()",
    "ck_rotations_claimed_until": "UPDATE rotations SET claimed_until = now()",
    "ck_rotations_attempts": "UPDATE rotations SET attempts = -1",
    "ck_rotations_reason": "UPDATE rotations SET reason = 'whim'",
    "ck_rotations_state": "UPDATE rotations SET state = 'happy', finished_at = NULL, wake_at = now()",
    "ck_rotations_finished_at": "UPDATE rotations SET finished_at = NULL",
    "ck_rotations_wake_at": "UPDATE rotations SET wake_at = now()",
    "ck_rotations_failure": "UPDATE rotations SET state = 'failed', failure = NULL",
    "ck_rotations_version_number": "UPDATE rotations SET version_number = NULL",
    "ck_tenants_suspended_kind": (
        "UPDATE tenants SET state = 'suspended', suspended_at = now(), suspended_reason = 'x',"
        " suspended_kind = 'x'"
    ),
    "ck_tenants_suspended_with_kind": (
        "UPDATE tenants SET state = 'suspended', suspended_at = now(), suspended_reason = 'x'"
    ),
    "ck_tenants_outage_wait": "UPDATE tenants SET outage_wait_seconds = 301",
    "ck_stops_kind": f"{_STOP} SELECT gen_random_uuid(), id, 9, 'whim', now(), now() FROM tenants",
    "uq_stops_tenant_id_generation": (
        f"{_STOP} SELECT gen_random_uuid(), id, 9, 'drill', now(), now() FROM tenants, generate_series(1, 2)"
    ),
    "ck_acknowledgements_dropped_at": (
        f"WITH stop AS ({_STOP} SELECT gen_random_uuid(), id, 9, 'drill', now(), now() FROM tenants"
        " RETURNING id) INSERT INTO acknowledgements (stop_id, member_id, member, leases)"
        " SELECT id, id, 'x', 1 FROM stop"
    ),
    "ck_findings_kind": f"{_FINDING}; UPDATE findings SET kind = 'whim'",
    "ck_findings_severity": f"{_FINDING}; UPDATE findings SET severity = 'bad'",
    "ck_findings_detail": (
        f"{_FINDING}; UPDATE findings SET detail = jsonb_build_object('seen', repeat('x', 4097))"
    ),
    "ck_findings_order_of_times": (
        f"{_FINDING}; UPDATE findings SET resolved_at = last_seen_at - interval '1 s'"
    ),
    "uq_findings_open": f"{_FINDING}, generate_series(1, 2)",
    "ck_audit_checkpoints_hash": (
        "INSERT INTO audit_checkpoints (tenant_id, sequence, hash, walked_at)"
        " SELECT id, 1, 'short', now() FROM tenants"
    ),
    "ck_webhook_messages_body": f"{_MESSAGE}; UPDATE webhook_messages SET body = repeat('x', 8193)",
    "ck_webhook_messages_attempts": f"{_MESSAGE}; UPDATE webhook_messages SET attempts = -1",
    "ck_webhook_messages_one_end": f"{_MESSAGE}; UPDATE webhook_messages SET delivered_at = now()",
    "uq_reencryption_targets_table": _TARGET + _TARGET.replace("md5('t')", "md5('u')"),
    "ck_reencryption_targets_primary_key_kind": (
        f"{_TARGET} UPDATE reencryption_targets SET primary_key_kind = 'float'"
    ),
    "ck_reencryption_targets_tenant_column_kind": (
        f"{_TARGET} UPDATE reencryption_targets SET tenant_column = 'x', tenant_value = 'x',"
        " tenant_column_kind = 'float'"
    ),
    "ck_reencryption_targets_tenant_column": (
        f"{_TARGET} UPDATE reencryption_targets SET tenant_column = 'x', tenant_value = 'x'"
    ),
    "ck_reencryption_targets_columns": f"{_TARGET} UPDATE reencryption_targets SET columns = '[]'",
    "uq_reencryption_campaigns_open": (
        f"{_CAMPAIGN} batch = 1; CREATE TEMP TABLE more ON COMMIT DROP AS TABLE reencryption_campaigns;"
        " UPDATE more SET id = md5('d')::uuid; INSERT INTO reencryption_campaigns TABLE more"
    ),
    "ck_reencryption_campaigns_state": f"{_CAMPAIGN} state = 'happy', wake_at = NULL, finished_at = now()",
    "ck_reencryption_campaigns_phase": f"{_CAMPAIGN} phase = 'rest'",
    "ck_reencryption_campaigns_pause_cause": (
        f"{_CAMPAIGN} state = 'paused', wake_at = NULL, pause_cause = 'whim'"
    ),
    "ck_reencryption_campaigns_paused_with_cause": f"{_CAMPAIGN} state = 'paused', wake_at = NULL",
    "ck_reencryption_campaigns_finished_at": f"{_CAMPAIGN} state = 'done', wake_at = NULL",
    "ck_reencryption_campaigns_wake_at": f"{_CAMPAIGN} wake_at = NULL",
    "ck_reencryption_campaigns_claimed_until": (
        f"{_CAMPAIGN} state = 'done', wake_at = NULL, finished_at = now(), claimed_until = now()"
    ),
    "ck_reencryption_campaigns_failure": (
        f"{_CAMPAIGN} state = 'failed', wake_at = NULL, finished_at = now()"
    ),
    "ck_reencryption_campaigns_rows_per_second": f"{_CAMPAIGN} rows_per_second = 0",
    "ck_reencryption_campaigns_to_version": f"{_CAMPAIGN} to_version = 0",
    "uq_offboardings_tenant_id": f"{_OFFBOARDING}, generate_series(1, 2)",
    "ck_offboardings_state": f"{_OFFBOARDING}; UPDATE offboardings SET state = 'gone'",
    "ck_offboardings_cancelled_at": f"{_OFFBOARDING}; UPDATE offboardings SET state = 'cancelled'",
    "ck_offboardings_shredding_at": f"{_OFFBOARDING}; UPDATE offboardings SET shredding_at = now()",
    "ck_offboardings_shredded_at": (
        f"{_OFFBOARDING}; UPDATE offboardings SET state = 'shredded', shredding_at = now()"
    ),
    "ck_offboardings_certificate": f"{_OFFBOARDING}; UPDATE offboardings SET certificate = '{{}}'",
    "ck_offboardings_access_statement": f"{_OFFBOARDING}; UPDATE offboardings SET access_statement = '{{}}'",
    "ck_offboardings_order_of_times": (
        f"{_OFFBOARDING}; UPDATE offboardings SET state = 'shredding',"
        " shredding_at = shred_after - interval '1 s'"
    ),
    "uq_reseals_running": f"{_RESEAL.format(id=1)} {_RESEAL.format(id=2)}",
    "ck_reseals_state": (
        f"{_RESEAL.format(id=1)} UPDATE reseals SET state = 'x', wake_at = NULL, finished_at = now()"
    ),
    "ck_reseals_finished_at": f"{_RESEAL.format(id=1)} UPDATE reseals SET state = 'done', wake_at = NULL",
    "ck_reseals_wake_at": f"{_RESEAL.format(id=1)} UPDATE reseals SET wake_at = NULL",
    "ck_reseals_claimed_until": (
        f"{_RESEAL.format(id=1)} UPDATE reseals SET state = 'done', wake_at = NULL, finished_at = now(),"
        " claimed_until = now()"
    ),
    "ck_reseals_failure": (
        f"{_RESEAL.format(id=1)} UPDATE reseals SET state = 'failed', wake_at = NULL, finished_at = now()"
    ),
    "ck_audit_events_hash": "UPDATE audit_events SET hash = 'short'",
    "ck_audit_events_sequence": "UPDATE audit_events SET sequence = 0 WHERE sequence = 1",
    "ck_signed_checkpoints_numbers": f"{_SIGNED} 0, 1, decode(repeat('00', 32), 'hex') FROM tenants",
    "ck_signed_checkpoints_lengths": f"{_SIGNED} 1, 1, 'short' FROM tenants",
    "ck_audit_heads_hash": "UPDATE audit_heads SET hash = 'short'",
}


@pytest.mark.parametrize("constraint", IMPOSSIBLE)
def test_each_constraint_refuses_its_impossible_row(key: World, engine: sa.Engine, constraint: str) -> None:
    with pytest.raises(sa.exc.IntegrityError) as caught, engine.begin() as connection:
        connection.execute(sa.text(IMPOSSIBLE[constraint]))
    assert getattr(caught.value.orig, "diag").constraint_name == constraint  # noqa: B009  # untyped


def test_every_check_and_partial_unique_index_is_tried(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        checks = connection.execute(
            sa.text("SELECT conname FROM pg_constraint WHERE contype = 'c' AND conname LIKE 'ck_%'")
        ).scalars()
        partial = connection.execute(
            sa.text("SELECT indexname FROM pg_indexes WHERE indexdef LIKE '%UNIQUE%WHERE%'")
        ).scalars()
        wanted = {*checks, *partial} - {"uq_key_versions_pending"}  # tried by the race tests
    assert wanted <= set(IMPOSSIBLE)


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE audit_events SET actor = 'nobody' WHERE sequence = 3",
        "UPDATE audit_events SET details = '{}' WHERE sequence = 3",
        "DELETE FROM audit_events WHERE sequence = 3",
        "UPDATE audit_events SET at = at + interval '1 microsecond' WHERE sequence = 3",
    ],
)
def test_tampering_with_the_audit_log_is_located(key: World, engine: sa.Engine, tampering: str) -> None:
    assert verify_chain(key.services.registry.audit_log("acme")) > 4
    with engine.begin() as connection:
        connection.execute(sa.text(tampering))
    with pytest.raises(AuditChainBroken, match="event 3"):
        verify_chain(key.services.registry.audit_log("acme"))


def test_a_record_moved_to_another_tenant_does_not_open(key: World, engine: sa.Engine) -> None:
    from byok.errors import SealBroken

    key.add_tenant("globex")
    key.add_key("globex")
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                "UPDATE key_versions SET (encrypted_key, iv) ="
                " (SELECT v.encrypted_key, v.iv FROM key_versions v"
                " JOIN keys k ON k.id = v.key_id JOIN tenants t ON t.id = k.tenant_id"
                " WHERE t.name = 'acme' AND v.number = 1)"
                " WHERE key_id = (SELECT k.id FROM keys k JOIN tenants t ON t.id = k.tenant_id"
                " WHERE t.name = 'globex')"
            )
        )
    key.cache.entries.clear()
    with pytest.raises(SealBroken):
        key.another_process().vault.cipher("globex", "pii").encrypt(b"x", context=b"c")


def test_no_transaction_is_open_while_kms_is_asked(world: World, engine: sa.Engine) -> None:
    world.add_tenant()
    seen: list[int] = []

    def look() -> None:
        with engine.connect() as connection:
            seen.append(
                connection.execute(
                    sa.text(
                        "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
                        " AND datname = current_database()"
                    )
                ).scalar_one()
            )

    for operation in ("GenerateDataKeyWithoutPlaintext", "Decrypt", "DescribeKey"):
        world.kms.hooks[operation] = look
    world.add_key()
    assert len(seen) >= 4
    assert set(seen) == {0}
