"""``make mutants``: take a guard out of the code, and see that the test which is named for it turns red.

Each mutant is made in a copy of the tree; the tests run there as they are.
"""

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Mutant:
    """What is taken out, by replacing ``old`` with ``new`` in ``file``, and the test that must notice."""

    what: str
    file: str
    old: str
    new: str
    test: str


_IN = "tests/integration"
_MANY = f"{_IN}/test_rotating_many.py"
_EXPORT = f"{_IN}/test_key_export.py"
_DISPATCH = f"{_IN}/test_dispatching.py"
_LEAVING = f"{_IN}/test_offboarding.py"
_MOVES = f"{_IN}/test_moves.py"
_TOGETHER = f"{_IN}/test_errands_together.py"
_RESEALING = f"{_IN}/test_resealing.py"
_REDACTION = "tests/unit/logs/test_redaction.py"
_LEASES = "tests/property/test_lease_schedules.py::test_no_schedule_serves_past_deadline_or_stop"

MUTANTS = (
    Mutant(
        "the lock by which a living process keeps its spool",
        "byok/spool.py",
        "            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        "            pass\n",
        "tests/unit/test_spool.py::test_a_request_and_its_end_are_read_as_one",
    ),
    Mutant(
        "that a line which the disk cut short counts as not written",
        "byok/spool.py",
        "                if written < len(line):",
        "                if False:",
        "tests/unit/test_spool.py::test_a_full_disk_sends_nothing_and_spoils_nothing",
    ),
    Mutant(
        "the time for which an unanswered request's id excuses a call",
        "byok/core/reconciliation.py",
        "        and request.began_at - CLOCK_SKEW <= call.at <= latest + CLOCK_SKEW\n",
        "",
        f"{_IN}/test_reconcile.py::test_the_mark_of_an_unsent_request_excuses_no_other_operation_and_no_other_time",
    ),
    Mutant(
        "that an unanswered request's id excuses its own operation alone",
        "byok/core/reconciliation.py",
        "        and call.operation == request.operation\n",
        "",
        f"{_IN}/test_reconcile.py::test_the_mark_of_an_unsent_request_excuses_no_other_operation_and_no_other_time",
    ),
    Mutant(
        "that a tenant whose chain lost its head is walked with all others",
        "byok/store/audit.py",
        ".outerjoin_from(_tenants, _heads)  # whose",
        ".join_from(_tenants, _heads)  # whose",
        f"{_IN}/test_auditing.py::test_damage_behind_the_first_page_is_found",
    ),
    Mutant(
        "that a call logged for an unrelated tenant stays a stranger",
        "byok/core/reconciliation.py",
        "    return request.tenant_id != subject.tenant_id and (\n",
        "    return request.tenant_id != subject.tenant_id or (\n",
        "tests/unit/core/test_cloudtrail.py::test_a_neighbour_has_the_same_role_or_kms_key",
    ),
    Mutant(
        "that lines which this release can't read are kept",
        "byok/spool.py",
        '            unreadable += line.endswith(b"\\n")\n',
        "            pass\n",
        "tests/unit/test_spool.py::test_lines_of_another_release_are_put_aside_and_lose_nothing",
    ),
    Mutant(
        "our id in the User-Agent",
        "byok/kms/signing.py",
        '    client.meta.events.register("before-send", _put_mark)\n',
        "",
        f"{_IN}/test_reconcile.py::test_a_lost_reply_is_no_stranger_and_an_unsent_request_not_missing",
    ),
    Mutant(
        "that a refused call is looked for in the caller's trail alone",
        "byok/core/reconciliation.py",
        ' if request.code not in _REFUSED else ""',
        "",
        f"{_IN}/test_reconcile.py::test_both_sides_agree_on_a_preflight_and_on_each_call_after_it",
    ),
    Mutant(
        "that files which span too little make a comparison incomplete",
        "byok/cli/reconcile.py",
        "found.is_covered and not",
        "not",
        f"{_IN}/test_reconcile.py::test_the_vendors_trail_alone_says_nothing_of_what_was_done_in_a_session",
    ),
    Mutant(
        "that files which can't be read make a comparison incomplete",
        "byok/cli/reconcile.py",
        " and not files.broken and",
        " and",
        f"{_IN}/test_reconcile.py::test_broken_files_are_named_and_make_the_comparison_incomplete",
    ),
    Mutant(
        "the last row of Flower's table, which closes the rest",
        "byok/flower/application.py",
        '        url(".*", Refusal),\n',
        "",
        "tests/unit/flower/test_flower_table.py::test_what_is_not_shown_is_closed_to_all",
    ),
    Mutant(
        "the refusal of an open Flower",
        "byok/flower/exposure.py",
        "if exposure.users or exposure.has_oauth:",
        "if True:",
        "tests/unit/flower/test_flower_exposure.py",
    ),
    Mutant(
        "the worker's choice of what events tell of a failure",
        "workers/request.py",
        'fields |= {"exception": self._reason, "traceback": None}',
        "pass",
        "tests/unit/workers/test_request.py::test_a_failure_is_told_without_its_causes_and_traceback",
    ),
    Mutant(
        "the comparison of the seal that a reseal replaces",
        "byok/store/sealed.py",
        "            table.c.iv == seals.c.old_iv,\n",
        "",
        f"{_RESEALING}::test_a_seal_that_somebody_wrote_meanwhile_is_kept_and_resealed_in_the_next_pass",
    ),
    Mutant(
        "the fence around a reseal's batch",
        "byok/store/reseals.py",
        "                _reseals.c.batch == reseal.batch,\n",
        "",
        f"{_RESEALING}::test_two_that_reseal_at_once_do_it_once",
    ),
    Mutant(
        "the refusal while a process lacks the new master key",
        "byok/services/reseals.py",
        "            _require_known(members, master_key_id)\n",
        "",
        f"{_RESEALING}::test_it_is_refused_while_a_living_process_lacks_the_key",
    ),
    Mutant(
        "the wait for processes that seal under the old master key",
        "byok/core/resealing.py",
        "    if elsewhere:\n        return Verdict.WAIT\n",
        "",
        f"{_RESEALING}::test_it_goes_on_while_a_process_seals_under_the_old_key",
    ),
    Mutant(
        "the master key's id in the context under which KMS wraps it",
        "byok/core/encryption_context.py",
        '        "byok-master-key": master_key_id,\n',
        "",
        f"{_IN}/test_master_key_sources.py::test_under_another_id_an_entry_does_not_open",
    ),
    Mutant(
        "the unique index on open rotations",
        "byok/store/migrations/versions/0001_initial.py",
        '"uq_rotations_open",\n        "rotations",\n        ["key_id"],\n        unique=True,',
        '"uq_rotations_open",\n        "rotations",\n        ["key_id"],\n        unique=False,',
        f"{_IN}/test_requests.py::test_requests_at_once_make_one_rotation",
    ),
    Mutant(
        "the unique index on active versions",
        "byok/store/migrations/versions/0001_initial.py",
        '"uq_key_versions_active",\n        "key_versions",\n        ["key_id"],\n        unique=True,',
        '"uq_key_versions_active",\n        "key_versions",\n        ["key_id"],\n        unique=False,',
        "tests/integration/test_schema_agrees.py::test_on_every_row_of_up_to_three_versions_with_and_without_gaps",
    ),
    Mutant(
        "the compare-and-swap of rotations",
        "byok/store/rotations.py",
        ".where(_rotations.c.id == new.c.id, _rotations.c.state == state)",
        ".where(_rotations.c.id == new.c.id)",
        f"{_IN}/test_deaths.py::test_a_clock_that_goes_ahead_lets_two_work_and_one_win",
    ),
    Mutant(
        "the compare-and-swap of versions",
        "byok/store/versions.py",
        "            _versions.c.state == new.c.from_state,\n",
        "",
        "tests/integration/test_store.py::test_a_version_that_another_changed_is_not_changed_again",
    ),
    Mutant(
        "campaigns: an old token is compared before it is replaced",
        "byok/store/application.py",
        '            *(table.tokens[place] == given.c[f"old_{place}"] for place in places),\n',
        "",
        f"{_IN}/test_reencryption.py::test_a_concurrent_write_is_never_lost",
    ),
    Mutant(
        "campaigns: a message is for one batch",
        "byok/store/campaigns.py",
        "                wanted,\n",
        "",
        f"{_IN}/test_reencryption.py::test_a_message_that_comes_twice_or_late_does_nothing",
    ),
    Mutant(
        "campaigns: the wait before the last count",
        "byok/services/reencryption.py",
        "return (work.campaign, pause) if pause else (self._count_after(work), _NO_PAUSE)",
        "return self._count_after(work), _NO_PAUSE",
        f"{_IN}/test_reencryption.py::test_no_count_is_the_last_before_every_process_has_heard_of_the_version",
    ),
    Mutant(
        "leases: the deadline",
        "byok/services/leases.py",
        "if lease is None or ticks >= lease.began_ticks + view.ttl_seconds:",
        "if lease is None:",
        f"{_IN}/test_leases.py::test_kms_outage_serves_leases_to_their_deadline_and_not_past_it",
    ),
    Mutant(
        "leases: the age of what comes from the cache",
        "byok/services/filling.py",
        "ticks - age_seconds, sealed",
        "ticks, sealed",
        f"{_IN}/test_leases.py::test_the_deadline_counts_from_the_kms_decrypt_through_every_cache",
    ),
    Mutant(
        "leases: the cache's own clock",
        "byok/services/filling.py",
        "max(age, view.key.lease_ttl - answer.remaining)",
        "age",
        f"{_IN}/test_leases.py::test_a_clock_that_is_set_back_lengthens_no_lease_in_the_cache",
    ),
    Mutant(
        "leases: what is fetched during a stop is not kept",
        "byok/services/held.py",
        "            if self._is_overtaken(lease_id.tenant_id, since):\n                return False\n",
        "",
        f"{_IN}/test_stops.py::test_a_fetch_that_is_under_way_when_the_stop_comes_serves_nothing",
    ),
    Mutant(
        "leases: what is read during a stop is not kept",
        "byok/services/held.py",
        "            if self._is_overtaken(view.tenant.id, since):\n                return False\n",
        "",
        f"{_IN}/test_stops.py::test_a_view_read_before_the_stop_is_not_kept_after_it",
    ),
    Mutant(
        "leases: the generation in their name",
        "byok/services/held.py",
        "LeaseId(tenant.id, tenant.generation, key.id, number)",
        "LeaseId(tenant.id, 0, key.id, number)",
        f"{_IN}/test_leases.py::test_a_refill_after_the_purge_is_never_found",
    ),
    Mutant(
        "leases: the bound on uses",
        "byok/services/leases.py",
        "if not lease.use():",
        "if False:",
        f"{_IN}/test_leases.py::test_a_lease_is_used_so_often_and_then_fetched_again",
    ),
    Mutant(
        "fast path: the deadline",
        "byok/services/held.py",
        "min(view.fresh_until_ticks, lease.refresh_ticks, lease.began_ticks + view.ttl_seconds)",
        "lease.ends_ticks * 2",
        _LEASES,
    ),
    Mutant(
        "fast path: a lease that leaves the memory is disarmed",
        "byok/services/lease.py",
        "        self.disarm()\n        self._epoch",
        "        self._epoch",
        "tests/unit/services/test_held.py::test_a_lease_that_leaves_the_memory_serves_nobody_any_more",
    ),
    Mutant(
        "fast path: a push disarms",
        "byok/services/held.py",
        "            self.leases[lease_id].disarm()\n",
        "            pass\n",
        f"{_IN}/test_fast_path.py::test_a_rotation_that_is_pushed_is_used_at_once",
    ),
    Mutant(
        "fast path: a stop clears the lanes",
        "byok/services/lease.py",
        "            lane.clear()\n",
        "            pass\n",
        f"{_IN}/test_fast_path.py::test_a_stop_clears_the_lane",
    ),
    Mutant(
        "fast path: who looked before a stop arms nothing",
        "byok/services/held.py",
        "            if self.views.get(view.names) is view and self.leases.get(lease_id) is lease:\n",
        "            if True:\n",
        f"{_IN}/test_fast_path.py::test_a_lease_is_not_armed_by_who_looked_before_a_stop",
    ),
    Mutant(
        "fast path: a retired version does not encrypt",
        "byok/services/held.py",
        "until_ticks if is_active else 0.0",
        "until_ticks",
        f"{_IN}/test_fast_path.py::test_who_decrypts_what_is_old_does_not_encrypt_under_it",
    ),
    Mutant(
        "fast path: IVs don't cross a fork",
        "byok/services/lease.py",
        "        self._ivs.clear()\n",
        "        pass\n",
        f"{_IN}/test_fork.py::test_parent_and_child_both_work_after_a_fork",
    ),
    Mutant(
        "fast path: epochs don't cross a fork",
        "byok/services/held.py",
        "            for lease_id in list(self.leases):\n                self._remove(lease_id)\n",
        "            self.leases.clear()\n",
        f"{_IN}/test_fork.py::test_parent_and_child_both_work_after_a_fork",
    ),
    Mutant(
        "old versions: who may hold a lease from before the floor",
        "byok/services/old_versions.py",
        "        self._require_no_lease(key)\n",
        "",
        f"{_IN}/test_reencryption.py::test_old_versions_are_destroyed_once_nobody_can_hold_a_lease_on_them",
    ),
    Mutant(
        "old versions: the tables are counted again",
        "byok/services/old_versions.py",
        "            self._require_nothing_older(target, number)\n",
        "            pass\n",
        f"{_IN}/test_reencryption.py::test_what_a_cut_off_process_wrote_after_the_campaign_is_not_lost",
    ),
    Mutant(
        "fast path: our hook after a fork is the first",
        "byok/__init__.py",
        "from byok import forks as forks  # before",
        "# before",
        f"{_IN}/test_fork.py::test_a_hook_that_encrypts_in_the_child_has_no_nonce_of_the_parent",
    ),
    Mutant(
        "fast path: an empty context",
        "byok/services/fields.py",
        "decrypts_until_ticks and context:",
        "decrypts_until_ticks:",
        f"{_IN}/test_fast_path.py::test_an_empty_context_is_refused_though_the_token_was_made_without",
    ),
    Mutant(
        "search: every process looks for the new index before any writes it",
        "byok/services/indexes.py",
        "        self._clock.sleep(self._settle_seconds)\n        changed",
        "        changed",
        f"{_IN}/test_search.py::test_without_any_push_no_process_writes_what_another_does_not_look_for",
    ),
    Mutant(
        "search: the foreign key to a version that decrypts",
        "byok/store/migrations/versions/0006_blind_indexes.py",
        "in _COLUMNS.items():",
        "in ():",
        f"{_IN}/test_search.py::test_the_database_destroys_no_version_that_an_index_rests_on",
    ),
    Mutant(
        "search: the length of the context",
        "byok/core/blind_index.py",
        "return _NUMBER.pack(len(context)) + context + value",
        "return context + value",
        "tests/unit/core/test_blind_index.py::test_no_byte_moves_between_context_and_value",
    ),
    Mutant(
        "stops: the push",
        "byok/services/suspension.py",
        "        self._tell(Notice(tenant.id, stop.id))\n",
        "",
        _LEASES,
    ),
    Mutant(
        "stops: looking for what no push told",
        "byok/services/watch.py",
        "        leases = self._held.drop(stop.tenant_id)\n",
        "        leases = 0\n",
        _LEASES,
    ),
    Mutant(
        "stops: dropping what a push told",
        "byok/services/watch.py",
        "        leases = self._held.drop(notice.tenant_id)\n",
        "        leases = 0\n",
        _LEASES,
    ),
    Mutant(
        "stops: looking again at a tenant every so often",
        "byok/services/leases.py",
        "if view is None or view.fresh_until_ticks <= ticks:",
        "if view is None:",
        f"{_IN}/test_stops.py::test_a_process_that_neither_hears_nor_looks_stops_at_its_next_recheck",
    ),
    Mutant(
        "stops: a lock by a person stays",
        "byok/services/suspension.py",
        "    return suspension.kind is SuspensionKind.REVOKED\n",
        "    return True\n",
        f"{_IN}/test_stops.py::test_what_a_person_stopped_no_probe_lets_go_on",
    ),
    Mutant(
        "stops: a resume proves access first",
        "byok/services/kill_switch.py",
        'not suspended")\n        self._access.prove_all(tenant)\n',
        'not suspended")\n',
        f"{_IN}/test_stops.py::test_resume_asks_kms_first",
    ),
    Mutant(
        "single flight: the claim",
        "byok/cache/redis.py",
        "redis.call('SET', KEYS[2], ARGV[3], 'NX', 'PX', ARGV[1])",
        "redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[1])",
        "tests/contract/test_lease_cache_contract.py"
        "::test_one_of_those_who_miss_gets_the_claim_and_putting_ends_it",
    ),
    Mutant(
        "single flight: the mark of a failure",
        "byok/services/filling.py",
        "            self._tell_failure(filed_under, pause, Failure.OUTAGE, claim)\n",
        "",
        f"{_IN}/test_leases.py::test_after_a_failure_nobody_asks_for_a_moment",
    ),
    Mutant(
        "probes: twice a TTL",
        "byok/core/stops.py",
        "    return min([longest, *halves])\n",
        "    return longest\n",
        f"{_IN}/test_scheduling.py::test_each_tenant_is_probed_at_least_twice_within_its_shortest_ttl",
    ),
    Mutant(
        "the sweeper",
        "byok/services/scheduling.py",
        "found = self._republish() + self._reject_orphans()\n",
        "found = 0\n",
        f"{_IN}/test_deaths.py::test_a_worker_that_dies_is_followed_by_another_within_two_sweeps",
    ),
    Mutant(
        "the sweeper, seen by real processes",
        "byok/services/scheduling.py",
        "found = self._republish() + self._reject_orphans()\n",
        "found = 0\n",
        "tests/chaos/test_chaos.py::test_nothing_is_lost_and_nothing_doubled[SIGKILL of a requester]",
    ),
    Mutant(
        "the idempotency key of a request that joined",
        "byok/store/rotations.py",
        "                self._answer_with(earlier, idempotency_key)\n",
        "                self._forget(earlier, idempotency_key)\n",
        f"{_IN}/test_requests.py::test_a_request_that_joined_gets_the_same_answer_when_it_is_repeated",
    ),
    Mutant(
        "the claim",
        "byok/store/rotations.py",
        "                unclaimed(_rotations, now, duration),\n",
        "",
        f"{_IN}/test_deaths.py::test_a_worker_that_dies_is_followed_by_another_within_two_sweeps",
    ),
    Mutant(
        "the renewal of claims",
        "byok/services/claims.py",
        "                tx.rotations.renew(held, self._clock.now() + self._duration)\n",
        "                pass\n",
        f"{_IN}/test_deaths.py::test_a_claim_is_renewed_while_its_process_lives",
    ),
    Mutant(
        "the gravity of a compromise that joins",
        "byok/services/requests.py",
        "            rotation = tx.rotations.set_reason(rotation, reason)\n",
        "            pass\n",
        f"{_IN}/test_requests.py::test_a_compromise_that_joins_makes_the_open_rotation_one",
    ),
    Mutant(
        "the bound on attempts",
        "byok/services/rotations.py",
        "    if rotation.tries > MAX_ATTEMPTS:\n",
        "    if False:\n",
        f"{_IN}/test_requests.py::test_poison_ends_as_failed_with_its_reason_is_counted_and_can_be_retried",
    ),
    Mutant(
        "one tick a period for two Beats",
        "byok/services/scheduling.py",
        "            if not tx.ticks.begin(job, began_at, period):\n",
        "            if tx.ticks.begin(job, began_at, period) is None:\n",
        f"{_IN}/test_scheduling.py::test_a_tick_runs_once_a_period_however_many_beats_there_are",
    ),
    Mutant(
        "a fan-out that the broker cut off",
        "byok/services/fanout.py",
        "                    times_in(tx).give_back(missed, now)\n",
        "                    pass\n",
        f"{_IN}/test_fan_out.py::test_a_broker_that_fails_costs_no_period",
    ),
    Mutant(
        "the time of a claimed validation, moved on",
        "byok/store/due_times.py",
        "return sa.literal(now, schema.Timestamp) + share * period",
        "return sa.literal(now, schema.Timestamp)",
        f"{_IN}/test_fan_out.py::test_two_processes_publish_each_once",
    ),
    Mutant(
        "the end of an audit log, by its head",
        "byok/services/auditing.py",
        "if last.sequence >= max(expected, head.sequence):",
        "if last.sequence >= 0:",
        f"{_IN}/test_auditing.py::test_damage_behind_the_first_page_is_found",
    ),
    Mutant(
        "times that never run backwards",
        "byok/store/versions.py",
        "    return max(at, version.changed_at)\n",
        "    return at\n",
        f"{_IN}/test_deaths.py::test_a_clock_that_goes_back_does_not_hold_a_dead_workers_rotation",
    ),
    Mutant(
        "the repetition of a denied call in a new session",
        "byok/kms/aws.py",
        "in_doubt = error_class in (ErrorClass.DENIED, ErrorClass.EXPIRED)",
        "in_doubt = error_class is ErrorClass.EXPIRED",
        f"{_IN}/test_revocations.py::test_revoking_sessions_alone_is_no_revocation",
    ),
    Mutant(
        "the new session of a probe",
        "byok/kms/sessions.py",
        "if not fresh and (session := self._live_session(wanted)):\n"
        "            return session.credentials\n        with self._lock:",
        "if session := self._live_session(wanted):\n            return session.credentials"
        "\n        with self._lock:",
        f"{_IN}/test_revocations.py::test_a_probe_stops_the_tenant_and_nothing_is_served",
    ),
    Mutant(
        "sessions of 900 seconds",
        "byok/kms/sessions.py",
        "SESSION_SECONDS = 900",
        "SESSION_SECONDS = 3600",
        f"{_IN}/test_revocations.py::test_a_live_session_feels_it_or_goes_on_until_it_expires",
    ),
    Mutant(
        "the question which state the KMS key is in",
        "byok/kms/aws.py",
        "error_class = KEY_STATE_CLASSES.get(state, ErrorClass.OUTAGE)",
        "error_class = ErrorClass.OUTAGE",
        f"{_IN}/test_aws_errors.py::test_an_invalid_state_is_told_apart_by_describe_key",
    ),
    Mutant(
        "the canary of our own identity",
        "byok/kms/sessions.py",
        'if error_code(error) == "AccessDenied":',
        'if error_code(error) == "nothing":',
        f"{_IN}/test_aws_errors.py::test_a_canary_tells_our_lost_identity_from_a_customers_refusal",
    ),
    Mutant(
        "the region's breaker",
        "byok/kms/bulkhead.py",
        "doubt = not known and call.region.note_failure(tenant_id, now)",
        "doubt = False",
        "tests/unit/kms/test_bulkhead.py::test_where_half_a_region_is_refused_nobody_is_suspended",
    ),
    Mutant(
        "refusals of AssumeRole judged by AssumeRole alone",
        "byok/kms/bulkhead.py",
        "doubt = self._assuming.note(tenant_id, now, known=known)",
        "doubt = not known and call.region.note_failure(tenant_id, now)",
        "tests/unit/kms/test_bulkhead.py"
        "::test_our_lost_right_to_assume_roles_suspends_a_handful_and_one_customers_will_suspends_it",
    ),
    Mutant(
        "the end of a region's doubt",
        "byok/kms/region.py",
        "            self._failing -= was_failing\n            del self._outcomes[oldest]\n",
        "            break\n",
        "tests/unit/kms/test_bulkhead.py::test_a_benefit_of_the_doubt_expires",
    ),
    Mutant(
        "the end of a doubt about ourselves",
        "byok/kms/refusals.py",
        "            self._row.popitem(last=False)\n",
        "            break\n",
        "tests/unit/kms/test_bulkhead.py::test_a_benefit_of_the_doubt_expires",
    ),
    Mutant(
        "deferrals beside attempts",
        "byok/store/rotations.py",
        "_rotations.c.deferrals + int(deferred)",
        "_rotations.c.deferrals + int(False)",
        f"{_IN}/test_deferrals.py::test_deferrals_use_up_no_attempt",
    ),
    Mutant(
        "rights seen without our session policy",
        "byok/kms/sessions.py",
        "external_id=connection.external_id, restricted=False, is_aside=True",
        "external_id=connection.external_id, restricted=True, is_aside=True",
        f"{_IN}/test_preflight.py::test_dry_runs_name_each_unneeded_right_and_do_nothing",
    ),
    Mutant(
        "only a pending tenant is connected",
        "byok/store/registry.py",
        ".where(_tenants.c.id == tenant.id, _tenants.c.state == TenantState.PENDING)",
        ".where(_tenants.c.id == tenant.id)",
        f"{_IN}/test_preflight.py::test_a_tenant_that_became_active_meanwhile_keeps_its_key",
    ),
    Mutant(
        "what becomes active is what was checked",
        "byok/store/registry.py",
        "for column, arn in checked.items()]\n        row = self._swap",
        "for column, arn in ()]\n        row = self._swap",
        f"{_IN}/test_preflight.py::test_what_becomes_active_is_what_was_checked",
    ),
    Mutant(
        "the context condition where a key policy names the role",
        "byok/core/policies.py",
        '            "Action": list(USE_ACTIONS),\n            "Resource": "*",\n'
        '            "Condition": _context_condition(tenant_id),\n        },',
        '            "Action": list(USE_ACTIONS),\n            "Resource": "*",\n        },',
        f"{_IN}/test_preflight.py::test_a_key_policy_that_names_the_role_must_ask_for_the_context_itself",
    ),
    Mutant(
        "the day in a request to follow new material",
        "byok/services/following.py",
        'f"kms-key-rotated:{kms_key.material_id}:{day}"',
        'f"kms-key-rotated:{kms_key.material_id}"',
        f"{_IN}/test_following.py::test_a_rotation_to_new_material_that_failed_is_asked_for_again_once_a_day",
    ),
    Mutant(
        "the session policy",
        "byok/kms/sessions.py",
        "        if restricted:\n",
        "        if False:\n",
        f"{_IN}/test_aws_kms.py::test_a_session_is_cut_down_to_what_we_need",
    ),
    Mutant(
        "the name of a session",
        "byok/kms/sessions.py",
        "session_name(connection.tenant_id)",
        '"byok"',
        f"{_IN}/test_aws_kms.py::test_sessions_name_tenant_and_host",
    ),
    Mutant(
        "the length of what Decrypt replies",
        "byok/kms/aws.py",
        "if len(secret) != KEY_BYTES:",
        "if False:",
        f"{_IN}/test_aws_errors.py::test_what_decrypt_replies_is_checked",
    ),
    Mutant(
        "the key that Decrypt replies",
        "byok/kms/aws.py",
        'secret = SecretBytes(reply["Plaintext"])\n            _require_key(reply["KeyId"], arn)\n',
        'secret = SecretBytes(reply["Plaintext"])\n',
        f"{_IN}/test_aws_errors.py::test_what_decrypt_replies_is_checked",
    ),
    Mutant(
        "the read timeout",
        "byok/kms/signing.py",
        "    read_timeout=5,\n",
        "",
        f"{_IN}/test_aws_errors.py::test_a_call_that_hangs_is_an_outage_when_the_read_timeout_is_over",
    ),
    Mutant(
        "an outage where nobody tells the KMS key's state",
        "byok/kms/aws.py",
        "error_class = ErrorClass.OUTAGE if error_class is ErrorClass.STATE else error_class",
        "error_class = ErrorClass.REVOKED",
        f"{_IN}/test_aws_errors.py::test_an_invalid_state_that_nobody_tells_is_an_outage",
    ),
    Mutant(
        "what the customer said, kept in trouble of our own",
        "byok/kms/aws.py",
        "what the customer said.\n            if refusal.aws_code not in _NOT_TOLD:",
        "what the customer said.\n            if False:",
        f"{_IN}/test_following.py::test_trouble_with_our_own_identity_erases_nothing",
    ),
    Mutant(
        "the pages of a KMS key's tags",
        "byok/kms/aws.py",
        'if not page.get("Truncated"):',
        "if True:",
        f"{_IN}/test_following.py::test_the_tag_is_found_on_a_later_page",
    ),
    Mutant(
        "async: the thread that goes on when its call is cancelled",
        "byok/services/offloading.py",
        "await asyncio.wait([done])",
        "await done",
        "tests/unit/services/test_offloading.py"
        "::test_a_cancelled_call_returns_at_once_and_its_thread_keeps_its_turn",
    ),
    Mutant(
        "async: the second look when it is one's turn",
        "byok/services/offloading.py",
        "            if (result := unless()) is not None:\n                return result\n",
        "",
        "tests/unit/services/test_offloading.py::test_who_waited_takes_what_came_meanwhile",
    ),
    Mutant(
        "columns: what tells cached statements apart",
        "byok/integrations/sqlalchemy/types.py",
        "self, key: str, tenant: TenantSource,",
        "self, key: str, *, tenant: TenantSource,",
        f"{_IN}/test_sqlalchemy_types.py::test_statements_are_cached_apart_where_anything_of_a_type_differs",
    ),
    Mutant(
        "columns: parameters in exceptions",
        "byok/integrations/sqlalchemy/leaks.py",
        "        failure.sqlalchemy_exception.hide_parameters = True\n",
        "        pass\n",
        f"{_IN}/test_sqlalchemy_types.py::test_exceptions_show_no_plaintext",
    ),
    Mutant(
        "columns: no tenant, no value",
        "byok/integrations/values.py",
        "        if not tenant:\n",
        "        if tenant is None:\n",
        f"{_IN}/test_sqlalchemy_types.py::test_without_a_tenant_nothing_is_written_or_read",
    ),
    Mutant(
        "rows: a token of another row",
        "byok/integrations/sqlalchemy/rows.py",
        "        return row_context(prefix, identity)\n",
        "        return row_context(prefix, ())\n",
        f"{_IN}/test_sqlalchemy_rows.py::test_a_token_of_another_row_does_not_open",
    ),
    Mutant(
        "the ledger adds up",
        "byok/store/usage.py",
        '"uses": _usage.c.uses + added.excluded.uses',
        '"uses": added.excluded.uses',
        f"{_IN}/test_usage.py::test_processes_that_flush_at_once_add_up_exactly",
    ),
    Mutant(
        "the last reading of a lease that is gone",
        "byok/services/tallies.py",
        "                if tally.is_gone:\n",
        "                if held.get(tally.lease_id) is not tally.uses_left:\n",
        "tests/unit/services/test_tallies.py::"
        "test_a_use_by_a_thread_that_took_the_lease_before_it_was_let_go_is_found_at_the_next_reading",
    ),
    Mutant(
        "counts are kept when PostgreSQL does not take them",
        "byok/services/usage.py",
        "                self._unwritten.update(taken)\n            raise",
        "                pass\n            raise",
        f"{_IN}/test_usage.py::test_counts_stay_while_postgresql_does_not_take_them",
    ),
    Mutant(
        "the decryption floor",
        "byok/services/leases.py",
        "if number < view.key.decryption_floor:",
        "if number < 1:",
        f"{_IN}/test_destroyed_versions.py::test_the_floor_is_told_by_push_and_found_without_it",
    ),
    Mutant(
        "destroying only below the floor",
        "byok/core/destruction.py",
        "    if number < key.decryption_floor:\n        return []\n",
        "    if number:\n        return []\n",
        f"{_IN}/test_destroyed_versions.py::test_what_still_decrypts_is_not_destroyed_force_or_not",
    ),
    Mutant(
        "the writes that destroying waits for come after all knew of the floor",
        "byok/services/destruction.py",
        "key.decryption_floor_set_at + self._recheck, seen_since",
        "key.decryption_floor_set_at, seen_since",
        f"{_IN}/test_destroyed_versions.py::"
        "test_a_write_from_before_everybody_knew_of_the_floor_is_not_enough",
    ),
    Mutant(
        "the lock that destructions and floors take",
        "byok/services/destruction.py",
        "key = tx.keys.lock(tx.keys.get(tenant, key_name).id)\n            evidence",
        "key = tx.keys.get(tenant, key_name)\n            evidence",
        f"{_IN}/test_destroyed_versions.py::test_destroyed_twice_at_once_it_is_destroyed_once",
    ),
    *(
        Mutant(
            f"preflight: {check}",
            "byok/kms/preflight.py",
            f"self.{check}()\n",
            "pass\n",
            f"{_IN}/test_preflight.py::{test}",
        )
        for check, test in {
            "_arns": "test_the_arns_must_fit",
            "_caller": "test_a_session_in_another_account_is_refused",
            "_kms_key": "test_a_broken_set_up_is_refused_with_its_cause_and_a_remedy",
            "_needed_rights": "test_a_broken_set_up_is_refused_with_its_cause_and_a_remedy",
            "_foreign_contexts": "test_key_policy_mode_must_enforce_the_context",
            "_unneeded_rights": "test_too_many_rights_of_a_role_are_a_warning_and_under_a_setting_a_refusal",
            "_round_trip": "test_what_answers_with_another_key_is_not_aws_kms",
            "_options": "test_without_the_options_there_are_notes_and_it_passes",
        }.items()
    ),
    *(
        Mutant(f"preflight: {what}", "byok/kms/preflight.py", old, new, f"{_IN}/test_preflight.py::{test}")
        for what, old, new, test in (
            (
                "a foreign context for Decrypt",
                "                _DECRYPT: self._aws.dry_decrypt(context),\n",
                "",
                "test_each_right_by_itself_must_enforce_the_context",
            ),
            (
                "a foreign context for GenerateDataKeyWithoutPlaintext",
                "                _GENERATE: self._aws.generate(context, dry_run=True),\n",
                "",
                "test_each_right_by_itself_must_enforce_the_context",
            ),
            (
                "an unneeded right that could not be tried",
                "            elif untried:\n                self._report.add(check, Verdict.NOTE, seen)\n",
                "",
                "test_an_unneeded_right_counts_as_refused_only_if_it_is",
            ),
            (
                "an external id that was not what was refused",
                'if refused.aws_code != "AccessDenied":',
                "if False:",
                "test_a_role_refuses_an_external_id_only_if_it_does",
            ),
            (
                "rows of checks that break",
                "except ByokError as error:",
                "except ZeroDivisionError as error:",
                "test_whatever_goes_wrong_is_a_row_and_the_others_are_kept",
            ),
            (
                "a refused real Decrypt",
                "            if opened.code:\n",
                "            if False:\n",
                "test_dry_runs_that_succeed_are_not_enough",
            ),
            (
                "decryption under a wrong context",
                'self._report.failed(check, "decrypted", Cause.NOT_AWS_KMS, what=what)',
                "self._report.passed(check, what)",
                "test_what_decrypts_under_another_context_is_not_aws_kms",
            ),
        )
    ),
    Mutant(
        "preflight: CreateGrant among what is not needed",
        "byok/core/policies.py",
        ', "kms:CreateGrant")',
        ")",
        f"{_IN}/test_preflight.py::test_each_unneeded_right_is_noticed_by_itself",
    ),
    *(
        Mutant(
            f"preflight: {what} external id",
            "byok/kms/preflight.py",
            old,
            "",
            f"{_IN}/test_preflight.py::test_a_broken_set_up_is_refused_with_its_cause_and_a_remedy",
        )
        for what, old in {
            "a missing": '        self._must_not_assume("role-refuses-missing-external-id", None, '
            "Cause.EXTERNAL_ID_NOT_REQUIRED)\n",
            "a wrong": '        self._must_not_assume(\n            "role-refuses-wrong-external-id", '
            "secrets.token_urlsafe(24), Cause.EXTERNAL_ID_NOT_CHECKED\n        )\n",
        }.items()
    ),
    *(
        Mutant(f"streams: {what}", file, old, new, test)
        for what, file, old, new, test in (
            (
                "whether a segment is the last",
                "byok/core/segments.py",
                "_NONCE_END.pack(number, is_last)",
                "_NONCE_END.pack(number, False)",
                "tests/unit/services/test_streams.py::test_a_stream_cut_anywhere_is_refused",
            ),
            (
                "the tenant's access before each segment",
                "byok/services/streams.py",
                "            secret = self._secret_of(self._header.version_number)\n            return",
                '            kept: dict[str, SecretBytes] = self.__dict__.setdefault("kept", {})\n'
                "            secret = kept.get('secret') or kept.setdefault(\n"
                "                'secret', self._secret_of(self._header.version_number)\n"
                "            )\n            return",
                f"{_IN}/test_running_streams.py"
                "::test_a_suspended_tenant_has_its_running_decryption_fail_at_the_next_segment",
            ),
            (
                "a reader that failed goes on failing",
                "byok/services/streams.py",
                "        self._is_broken = True\n        wanted =",
                "        wanted =",
                "tests/unit/services/test_streams.py::test_a_segment_that_does_not_open_is_not_skipped",
            ),
        )
    ),
    *(
        Mutant(f"fuzz: {what}", file, old, new, "tests/fuzz/test_fuzz.py")
        for what, file, old, new in (
            (
                "a forged version number beyond PostgreSQL's",
                "byok/store/versions.py",
                "sa.literal(number, sa.BigInteger)",
                "number",
            ),
            (
                "the context of a stream",
                "byok/crypto/streaming.py",
                "context, salt=header.salt)\n    return gcm_decrypt",
                'context.rstrip(b"\\0"), salt=header.salt)\n    return gcm_decrypt',
            ),
        )
    ),
    Mutant(
        "many: each alone where a transaction for all fails",
        "byok/services/rotations.py",
        "            if len(works) > 1:",
        "                if False:",
        f"{_MANY}::test_a_secret_that_an_older_version_had_is_refused_by_the_database_alone",
    ),
    Mutant(
        "many: patience with a slow KMS",
        "byok/services/rotations.py",
        "            if now_ticks - asked_ticks > _SLOW_SECONDS or ",
        "            if False and ",
        f"{_MANY}::test_what_waits_behind_a_slow_kms_is_put_off_without_counting_as_an_attempt",
    ),
    Mutant(
        "many: who is put off is not counted",
        "byok/services/setbacks.py",
        "[self._clock.now()] * len(works), why, deferred=True)",
        "[self._clock.now()] * len(works), why)",
        f"{_MANY}::test_what_waits_behind_a_slow_kms_is_put_off_without_counting_as_an_attempt",
    ),
    Mutant(
        "many: secrets are wiped",
        "byok/services/rotations.py",
        "                        work.validated.secret.wipe()\n",
        "                        pass\n",
        f"{_MANY}::test_no_secret_outlives_the_run",
    ),
    Mutant(
        "many: a compromise is no routine",
        "byok/services/rotations.py",
        "        routine = work.rotation.reason in _ROUTINE and ",
        "        routine = ",
        f"{_MANY}::test_a_compromise_before_the_claim_has_every_check",
    ),
    Mutant(
        "dispatch: a tenant's share",
        "byok/core/dispatch.py",
        "            if key.is_free and open_of_tenant < self._share:",
        "            if key.is_free:",
        f"{_DISPATCH}::test_one_tenants_many_keys_do_not_hold_up_anothers_few",
    ),
    Mutant(
        "dispatch: the window",
        "byok/core/dispatch.py",
        "            if self.room <= 0:\n",
        "            if False:\n",
        f"{_DISPATCH}::test_a_full_window_leaves_the_rest_and_the_next_run_goes_on_there",
    ),
    Mutant(
        "dispatch: what waits for a KMS takes no room",
        "byok/core/dispatch.py",
        "min(one.open - one.waiting, self._share) for one",
        "min(one.open, self._share) for one",
        f"{_DISPATCH}::test_rotations_that_wait_for_a_kms_that_is_down_take_no_room",
    ),
    Mutant(
        "dispatch: going on where the last run left off",
        "byok/services/dispatching.py",
        "Place.parse(cursor) if cursor else None",
        "None",
        f"{_DISPATCH}::test_a_full_window_leaves_the_rest_and_the_next_run_goes_on_there",
    ),
    Mutant(
        "dispatch: once around",
        "byok/services/dispatching.py",
        "                    if not may_go_around:\n",
        "                    if True:\n",
        f"{_DISPATCH}::test_a_run_that_begins_in_the_middle_goes_once_around",
    ),
    Mutant(
        "dispatch: suspended tenants take no room",
        "byok/store/registry.py",
        "is_free = sa.and_(_tenant(_tenants.c.state, due) == TenantState.ACTIVE, ",
        "is_free = sa.and_(",
        f"{_DISPATCH}::test_keys_of_suspended_tenants_take_no_room",
    ),
    Mutant(
        "dispatch: a second look under the lock",
        "byok/store/rotations.py",
        "            .where(_keys.c.next_rotation_at <= new.c.requested_at)\n",
        "",
        f"{_DISPATCH}::test_a_key_that_was_rotated_since_it_was_found_due_is_left_alone",
    ),
    Mutant(
        "dispatch: a silent broker is given nothing",
        "byok/services/dispatching.py",
        "        if hindrance is not None:\n            self._hold_back(hindrance)\n            return 0\n",
        "",
        f"{_DISPATCH}::test_a_broker_that_is_silent_or_full_is_given_nothing",
    ),
    Mutant(
        "dispatch: a slow database is left alone",
        "byok/services/dispatching.py",
        "        if batch.took_seconds > _SLOW_SECONDS:\n",
        "        if False:\n",
        f"{_DISPATCH}::test_a_slow_database_is_left_alone_after_what_is_under_way",
    ),
    Mutant(
        "logs: a thread of a pool forgets its last job",
        "byok/logs/context.py",
        "            _about.reset(self._before)\n",
        "            pass\n",
        "tests/unit/logs/test_log_context.py::test_threads_of_a_pool_see_nothing_of_each_other_nor_of_their_last_job",
    ),
    Mutant(
        "logs: passwords in URLs",
        "byok/logs/redaction.py",
        '    text = _URL_CREDENTIALS.sub(f"{_HIDDEN}@", text)\n',
        "",
        f"{_REDACTION}::test_no_password_in_any_text",
    ),
    Mutant(
        "logs: an unknown object is its kind alone",
        "byok/logs/redaction.py",
        '    return f"<{type(value).__name__}>"\n',
        "    return str(value)\n",
        f"{_REDACTION}::test_no_secret_in_any_object",
    ),
    Mutant(
        "logs: an exception's text may hold anything",
        "byok/logs/redaction.py",
        "    return kind\n",
        '    return f"{kind}: {error}"\n',
        f"{_REDACTION}::test_no_secret_in_any_object",
    ),
    Mutant(
        "logs: keys in texts",
        "byok/logs/redaction.py",
        "    text = _BASE64.sub(_hide_if_mixed, text)\n",
        "",
        f"{_REDACTION}::test_no_key_in_any_text",
    ),
    Mutant(
        "traces: what a task sends is a trace of its own",
        "byok/tracing/otel.py",
        "            if headers and contexts.get_value(_IN_TASK):\n",
        "            if False:\n",
        "tests/unit/tracing/test_tracing_facade.py::test_a_message_carries_the_trace_and_whether_a_task_sent_it",
    ),
    Mutant(
        "that an outage resolves no finding",
        "byok/core/lookout.py",
        "if sighting is None and finding.kind not in seen.unknown:",
        "if sighting is None:",
        f"{_IN}/test_lookout.py::test_an_outage_opens_nothing_and_resolves_nothing",
    ),
    Mutant(
        "that of two looks the later one counts",
        "byok/services/lookout.py",
        "current.looked_at > began_at:",
        "current.looked_at < began_at - WALK_ALL_EVERY:",
        f"{_IN}/test_lookout.py::test_a_look_that_was_overtaken_changes_nothing",
    ),
    Mutant(
        "that the event at an audit checkpoint is compared",
        "byok/services/auditing.py",
        "if walk_chain(events, before) != place:",
        "if walk_chain(events, before) == place and not events:",
        f"{_IN}/test_checkpoints.py::test_the_watchs_own_mark_shows_it_without_any_checkpoint",
    ),
    Mutant(
        "the end of an audit log, compared with its head",
        "byok/services/auditing.py",
        "                _require_head(last, head)\n",
        "",
        f"{_IN}/test_auditing.py::test_damage_behind_the_first_page_is_found",
    ),
    Mutant(
        "that a signed checkpoint that is taken out is missed",
        "byok/core/checkpoints.py",
        "if checkpoint is None or event.details != _details(checkpoint):",
        "if checkpoint is not None and event.details != _details(checkpoint):",
        f"{_IN}/test_checkpoints.py::test_a_checkpoint_taken_out_is_missed",
    ),
    Mutant(
        "that a checkpoint under the name of our key is by our key",
        "byok/services/auditing.py",
        "if not (is_ours and is_signed(signed)):",
        "if not is_signed(signed):",
        f"{_IN}/test_checkpoints.py::test_a_signer_cannot_be_made_up",
    ),
    Mutant(
        "that the watch compares what it signed last",
        "byok/services/auditing.py",
        "        if latest is not None:\n",
        "        if False:\n",
        f"{_IN}/test_checkpoints.py::test_the_watch_sees_it_within_a_day",
    ),
    Mutant(
        "that numbers of audit events are whole",
        "byok/core/audit.py",
        "    _require_plain(event.details)\n    return {",
        "    return {",
        "tests/unit/core/test_audit.py::test_what_is_no_event_of_ours_was_changed",
    ),
    Mutant(
        "that a webhook reaches public addresses only",
        "byok/webhooks.py",
        "if self._public_only and not all(map(is_public, addresses)):",
        "if self._public_only and not any(map(is_public, addresses)):",
        "tests/unit/test_webhook_poster.py::test_one_inner_address_among_public_ones_is_enough_to_refuse",
    ),
    Mutant(
        "that a try of a webhook is counted before it is made",
        "byok/store/outbox.py",
        "due_at=now + pause_after(message.attempts)",
        "due_at=now",
        f"{_IN}/test_webhooks.py::test_who_dies_between_the_try_and_its_note_tries_again",
    ),
    Mutant(
        "that a round of webhooks has one message of a tenant",
        "byok/store/outbox.py",
        ".where(ranked.c.of_tenant == 1)",
        ".where(ranked.c.of_tenant >= 1)",
        f"{_IN}/test_webhooks.py::test_a_round_has_one_message_of_a_tenant",
    ),
    Mutant(
        "metrics: a refusal that byok asks for accuses nobody",
        "byok/kms/requests.py",
        "tell(KmsOutcome.OK if code in answers else outcome, code,",
        "tell(outcome, code,",
        f"{_IN}/test_kms_metrics.py::test_all_that_byok_asks_by_itself_is_counted_and_goes_well",
    ),
    Mutant(
        "metrics: a preflight is not counted",
        "byok/kms/requests.py",
        "        if not request.is_aside:\n            self._metrics",
        "        if True:\n            self._metrics",
        f"{_IN}/test_kms_metrics.py::test_a_preflight_counts_for_nothing_whatever_it_finds",
    ),
    Mutant(
        "metrics: few tenants are named",
        "byok/metrics/tenants.py",
        "            if len(self._named) < self._most:\n",
        "            if True:\n",
        "tests/unit/test_metrics.py::test_beyond_so_many_tenants_all_are_others",
    ),
    Mutant(
        "metrics: the gauges of a process that was killed go",
        "byok/metrics/multiprocess.py",
        "            if not _lives(process_id):\n",
        "            if False:\n",
        f"{_IN}/test_metrics_of_processes.py::test_a_death_loses_no_count_and_takes_its_gauges_along",
    ),
    Mutant(
        "metrics: a server that hangs is not asked again",
        "byok/services/gathering.py",
        "        self._is_asked_now = self._answer.is_there.is_set()\n",
        "        self._is_asked_now = True\n",
        "tests/unit/services/test_gathering.py::"
        "test_one_that_hangs_holds_the_page_up_once_and_gets_no_second_thread",
    ),
    Mutant(
        "an export is in the audit log before anybody has it",
        "byok/services/key_export.py",
        "        self._record(live, keysets, actor)\n",
        "",
        f"{_EXPORT}::test_the_audit_log_says_who_took_what",
    ),
    Mutant(
        "an export that a rotation overtook begins again",
        "byok/services/key_export.py",
        "            if now.substance != live.substance:\n",
        "            if False:\n",
        f"{_EXPORT}::test_a_rotation_meanwhile_makes_it_begin_again",
    ),
    Mutant(
        "a tenant that is stopped exports nothing",
        "byok/services/key_export.py",
        "    require_active(tenant)\n",
        "",
        f"{_EXPORT}::test_a_suspended_tenant_exports_nothing_and_its_kms_is_not_asked",
    ),
    Mutant(
        "what is exported is what decrypts, and no more",
        "byok/services/key_export.py",
        " if may_decrypt(key, one)}",
        "}",
        f"{_EXPORT}::test_what_is_pending_below_the_floor_or_destroyed_stays_out",
    ),
    Mutant(
        "the secrets of an export are wiped",
        "byok/services/key_export.py",
        "                secret.wipe()\n",
        "                pass\n",
        f"{_EXPORT}::test_what_was_in_clear_is_wiped_however_it_ends",
    ),
    Mutant(
        "the keyset in clear is wiped",
        "byok/services/key_export.py",
        "            keyset.wipe()\n",
        "            pass\n",
        f"{_EXPORT}::test_what_was_in_clear_is_wiped_however_it_ends",
    ),
    Mutant(
        "an export is a new file",
        "byok/cli/files.py",
        "os.O_WRONLY | os.O_CREAT | os.O_EXCL",
        "os.O_WRONLY | os.O_CREAT",
        f"{_IN}/test_cli_key_export.py::test_a_link_that_waits_there_is_not_followed",
    ),
    Mutant(
        "the right for an export is bound to it",
        "byok/core/policies.py",
        '        "StringEquals": {"kms:EncryptionContext:associatedData": associated_data.hex()},\n',
        "",
        f"{_IN}/test_cli_key_export.py::test_the_right_is_for_this_export_alone_and_the_vendor_opens_none",
    ),
    Mutant(
        "nothing is sealed under a ring that does not open what is there",
        "byok/services/rotations.py",
        "            self._records.wrapped_key(tenant, work.versions[0])\n",
        "            pass\n",
        f"{_IN}/test_wrong_ring.py::test_it_makes_no_version_that_only_it_could_open",
    ),
    Mutant(
        "a wrong master key under the right name",
        "byok/doctor/master_keys.py",
        "    if sealed.opened == 0 and sealed.tried:",
        "    if sealed.opened == 0 and not sealed.tried:",
        f"{_IN}/test_doctor.py::test_a_wrong_master_key",
    ),
    Mutant(
        "leaving: nothing is destroyed before its day",
        "byok/services/shredding.py",
        "if now < current.shred_after:",
        "if False:",
        f"{_LEAVING}::test_nothing_is_destroyed_before_the_retention_has_passed",
    ),
    Mutant(
        "leaving: nor before the longest lease has ended",
        "byok/core/offboarding.py",
        "max(retention, longest_lease + UNDER_WAY)",
        "retention",
        f"{_LEAVING}::test_without_retention_it_is_still_later_than_the_longest_lease",
    ),
    Mutant(
        "leaving: a rotation under way ends before its key's versions go",
        "byok/services/shredding.py",
        "if (rotation := tx.rotations.lock_open(key.id)) is not None:",
        "if (rotation := tx.rotations.lock_open(key.id)) is None:",
        f"{_LEAVING}::test_a_worker_that_is_at_it_stores_no_version_after_the_end",
    ),
    Mutant(
        "leaving: no tenant is gone while a wrapped key is there",
        "byok/services/shredding.py",
        "if left := tx.remains.count_wrapped_keys(tenant.id):",
        "if left := 0:",
        f"{_LEAVING}::test_a_wrapped_key_that_is_there_again_ends_nothing",
    ),
    Mutant(
        "leaving: what still decrypts is not certified",
        "byok/services/shred_proofs.py",
        "if failed := [proof for proof in proofs if not proof.passed]:",
        "if failed := []:",
        f"{_LEAVING}::test_a_wrapped_key_that_is_there_again_is_never_certified",
    ),
    Mutant(
        "leaving: no probe and no resume end it",
        "byok/services/kill_switch.py",
        "if is_leaving(tenant):",
        "if False:",
        f"{_LEAVING}::test_nothing_ends_it_but_taking_it_back",
    ),
    Mutant(
        "leaving: from the first key on it is too late",
        "byok/services/offboarding.py",
        "if offboarding.state is not OffboardingState.WAITING:",
        "if False:",
        f"{_LEAVING}::test_from_the_first_key_on_it_is_too_late",
    ),
    Mutant(
        "a main loop that stands still is not live",
        "byok/health.py",
        "    if sign.connected and now - sign.looped_at",
        "    if not sign.connected and now - sign.looped_at",
        "tests/unit/test_health.py",
    ),
    Mutant(
        "the hold on a tenant while a rotation inserts what it made",
        "byok/services/rotation_steps.py",
        "        works = [work for work in works if is_unmoved(work, tenants)]\n",
        "",
        f"{_MOVES}::test_a_rotation_that_the_commit_overtakes_ends_under_the_new_kms_key",
    ),
    Mutant(
        "the last look for versions without a second wrapping",
        "byok/services/moving.py",
        "            if self._unwrapped(tx, move, 1):\n                return None\n",
        "",
        f"{_MOVES}::test_a_version_made_at_the_very_last_moment_is_wrapped_before_the_commit",
    ),
    Mutant(
        "the comparison of a second wrapping's secret",
        "byok/services/rewrapping.py",
        "        if found != (version.fingerprint or self._fingerprint(move, version)):\n",
        "        if not found:\n",
        f"{_MOVES}::test_another_secret_under_the_new_kms_key_is_never_moved_to",
    ),
    Mutant(
        "a rotation's look at the tenant after the versions",
        "byok/services/rotations.py",
        "            return [work.rotation for work in works if is_unmoved(work, tenants)]\n",
        "            return [work.rotation for work in works if tenants]\n",
        f"{_MOVES}::test_a_rotation_between_two_of_its_steps_bears_the_commit",
    ),
    Mutant(
        "a reader's look at the tenant after the version",
        "byok/services/filling.py",
        "            tenant = tx.tenants.get_by_id(view.tenant.id)\n        require_active",
        "            tenant = view.tenant\n        require_active",
        f"{_MOVES}::test_a_reader_never_gets_a_record_that_does_not_fit_the_connection",
    ),
    Mutant(
        "a reader's doubt in a refusal by a KMS key that was left",
        "byok/services/filling.py",
        "            if self._has_moved(tenant):\n",
        "            if False:\n",
        f"{_MOVES}::test_a_reader_under_way_is_not_stopped_by_the_old_kms_keys_end",
    ),
    Mutant(
        "the lock between whoever inserts a version and the commit",
        "byok/store/registry.py",
        "self._connection.execute(query.with_for_update(read=True))",
        "self._connection.execute(query)",
        f"{_MOVES}::test_the_commit_waits_for_whoever_inserts_a_version",
    ),
    Mutant(
        "that who leaves gives up a move that is not committed",
        "byok/services/shredding.py",
        "            _give_up_move(tx, tenant, now, actor)\n",
        "",
        f"{_TOGETHER}::test_who_leaves_gives_its_open_move_up_and_the_new_kms_key_free",
    ),
    Mutant(
        "that no move is committed beside an older release",
        "byok/services/moving.py",
        "            require_no_older_release(tx, now)\n",
        "",
        f"{_TOGETHER}::test_no_move_begins_or_is_committed_while_a_process_is_of_an_older_release",
    ),
    Mutant(
        "that who has left uses no KMS key",
        "byok/store/moves.py",
        "                _tenants.c.state != TenantState.OFFBOARDED,\n",
        "",
        f"{_TOGETHER}::test_a_kms_key_stays_while_a_tenant_has_it_or_moves_to_it_and_not_for_one_that_left",
    ),
    Mutant(
        "the fence of second wrappings against a roll-back",
        "byok/services/moving.py",
        "                    tx.moves.renew(move, self._clock.now() + self._claim_period)\n",
        "",
        f"{_MOVES}::test_a_roll_back_overtakes_the_worker_that_wraps",
    ),
    Mutant(
        "the end of a destroyed version's second wrapping",
        "byok/store/versions.py",
        "            self._forget_second_wrappings(versions)\n",
        "            pass\n",
        f"{_MOVES}::test_a_version_destroyed_meanwhile_stays_destroyed",
    ),
    Mutant(
        "the question whether the old KMS key refuses, or a right of the move is missing",
        "byok/services/rewrapping.py",
        "            self._unwrap(move, version).wipe()\n            raise\n",
        "            raise\n",
        f"{_MOVES}::test_the_old_kms_key_revoked_midway_stops_the_tenant_and_the_move_goes_on_with_it",
    ),
    Mutant(
        "two bulkheads for the two KMS keys of a move",
        "byok/kms/bulkhead.py",
        "self._tenant((connection.tenant_id, connection.kms_key_arn))",
        "self._tenant((connection.tenant_id, None))",
        "tests/unit/kms/test_bulkhead.py::test_a_tenants_two_kms_keys_do_not_suffer_from_each_other",
    ),
)


def is_noticed(mutant: Mutant, folder: Path) -> bool:
    """Whether the test that is named for the mutant fails on it."""
    file = folder / mutant.file
    whole = file.read_text()
    if whole.count(mutant.old) != 1:
        raise SystemExit(
            f"{mutant.file} has no single {mutant.old!r}: the code has moved on, and so must this"
        )
    file.write_text(whole.replace(mutant.old, mutant.new))
    try:
        return not passes([mutant.test], folder)
    finally:
        file.write_text(whole)


def passes(tests: list[str], folder: Path) -> bool:
    """Whether all these tests are green in the tree there."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    ended = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    if ended.returncode not in (0, 1):  # neither green nor red: the test was not found, say
        raise SystemExit(f"{tests}: {ended.stdout[-2000:]}{ended.stderr[-2000:]}")
    return ended.returncode == 0


def main() -> int:
    """Try each mutant, or those whose name holds the argument; 0 if all were noticed."""
    chosen = [mutant for mutant in MUTANTS if not sys.argv[1:] or sys.argv[1] in mutant.what]
    table, missed = Table("taken out", "noticed by", "", title="mutants"), 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "tree"
        ignored = shutil.ignore_patterns(".git", ".venv", ".byok", ".*_cache", ".hypothesis", "__pycache__")
        shutil.copytree(ROOT, folder, ignore=ignored)
        console = Console(width=140)
        with console.status("the tree as it is"):
            if not passes(sorted({mutant.test for mutant in chosen}), folder):
                raise SystemExit("the tests are red without any mutant")
        for mutant in chosen:
            with console.status(mutant.what):
                noticed = is_noticed(mutant, folder)
            missed += not noticed
            test = mutant.test.rpartition("::")[2]
            table.add_row(mutant.what, test, "[green]red[/]" if noticed else "[bold red]STILL GREEN[/]")
            console.print(f"{mutant.what}: {'noticed' if noticed else 'MISSED'}")
    console.print(table)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
