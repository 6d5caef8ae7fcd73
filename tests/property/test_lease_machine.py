"""Fetching, expiry, revocation, restoration, outages, purges, lost pushes and moving clocks in any order.

Whatever the schedule, no process serves plaintext past the deadline of the last KMS Decrypt that
succeeded, nor after a stop was committed and told to it; and what nothing hinders is served. The services
run over a real PostgreSQL; the model knows the true time, and what it told to whom.
"""

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from byok.core.model import TenantState
from byok.errors import AccessStopped, ByokError, KmsUnavailable
from byok.store.postgres import PostgresStore
from tests.conftest import empty
from tests.world import RECHECK, World

CONTEXT = b"users.email:1"
PROCESSES = 3
TTL = timedelta(minutes=10)
process_numbers = st.integers(0, PROCESSES - 1)


class LeaseMachine(RuleBasedStateMachine):
    engine: sa.Engine

    @initialize()
    def begin(self) -> None:
        empty(self.engine)
        self.world = World(PostgresStore(self.engine))
        self.world.add_tenant()
        self.world.add_key(ttl=TTL)
        self.arn = self.world.versions()[0].kms_key_arn
        self.fleet = [self.world.another_process() for _ in range(PROCESSES)]
        self.token = self.fleet[0].vault.cipher("acme", "pii").encrypt(b"ada", context=CONTEXT)
        self.is_out = self.is_disabled = False
        self.last_decrypt_ticks = self.world.clock.ticks()
        self.stopped_ticks: float | None = None
        self.told: set[int] = set()
        self.old_entries = dict(self.world.cache.entries)
        self.during_decrypt: str | None = None
        self.world.kms.hooks["Decrypt"] = self._on_decrypt

    def _on_decrypt(self) -> None:
        """What the fake KMS does first in each Decrypt: it is under way now."""
        if self.is_out:
            raise KmsUnavailable("unreachable")
        overtaking, self.during_decrypt = self.during_decrypt, None
        if overtaking == "suspend":
            self._suspend()
        if not self.is_disabled:
            self.last_decrypt_ticks = self.world.clock.ticks()

    # --- acts -------------------------------------------------------------------------------------

    @rule(number=process_numbers, encrypts=st.booleans())
    def fetch(self, number: int, encrypts: bool) -> None:
        self._fetch(number, encrypts)

    @rule(number=process_numbers)
    def fetch_while_somebody_stops_it(self, number: int) -> None:
        self.during_decrypt = "suspend"
        self._fetch(number, encrypts=False)
        self.during_decrypt = None

    def _fetch(self, number: int, encrypts: bool) -> None:
        cipher = self.fleet[number].vault.cipher("acme", "pii")
        hindered, error, told_before = self._is_hindered(), None, number in self.told
        try:
            if encrypts:
                cipher.encrypt(b"x", context=CONTEXT)
            else:
                assert cipher.decrypt(self.token, context=CONTEXT) == b"ada"
        except ByokError as caught:
            error = caught
        self._notice_state()
        if error is not None:
            stopped = self.stopped_ticks is not None or isinstance(error, AccessStopped)
            assert hindered or stopped, f"nothing hinders it, and yet: {error!r}"
            return
        now = self.world.clock.ticks()
        assert now < self.last_decrypt_ticks + TTL.total_seconds(), "served past the deadline"
        if self.stopped_ticks is not None:
            # Its own refused renewal may have stopped the tenant at this very moment: hence "before".
            assert not told_before, "served though it was told of the stop"
            assert now < self.stopped_ticks + RECHECK.total_seconds(), "served though it should have looked"

    def _is_hindered(self) -> bool:
        """Whether KMS can't be asked, or is left alone for a moment."""
        now = self.world.clock.ticks()
        resting = any(until > now for _, until in self.world.cache.failing.values())
        return self.is_out or self.is_disabled or resting

    def _notice_state(self) -> None:
        """Whoever asked KMS may have stopped the tenant: then all that hear a push know."""
        suspended = self.world.tenant().state is TenantState.SUSPENDED
        if suspended and self.stopped_ticks is None:
            self.stopped_ticks = self.world.clock.ticks()
            self.told = set() if self.world.board.loses_all else set(range(PROCESSES))
        if not suspended:
            self.stopped_ticks, self.told = None, set()

    @rule(seconds=st.sampled_from([1, 4, 60, 290, 500, 601]))
    def pass_time(self, seconds: int) -> None:
        self.world.clock.advance(seconds=seconds)

    @rule(minutes=st.sampled_from([-600, -9, -1, 1, 9, 600]))
    def set_the_clock(self, minutes: int) -> None:
        self.world.clock.step(minutes=minutes)

    @rule()
    def revoke(self) -> None:
        self.is_disabled = True
        self.world.kms.disable(self.arn)

    @rule()
    def restore(self) -> None:
        self.is_disabled = False
        self.world.kms.enable(self.arn)

    @rule(is_out=st.booleans())
    def change_outage(self, is_out: bool) -> None:
        self.is_out = is_out

    @rule()
    def probe(self) -> None:
        try:
            self.world.services.checkups.probe("acme")
        except ByokError:
            assert self.is_out
        self._notice_state()

    @rule()
    def suspend(self) -> None:
        self._suspend()

    @rule()
    def suspend_unheard(self) -> None:
        self.world.board.loses_all = True
        self._suspend()

    def _suspend(self) -> None:
        if self.world.tenant().state is TenantState.ACTIVE:
            self.world.services.kill_switch.suspend("acme", "stop", actor="test")
            self._notice_state()

    @precondition(lambda self: self.world.tenant().state is TenantState.SUSPENDED)
    @rule()
    def resume(self) -> None:
        try:
            self.world.services.kill_switch.resume("acme", actor="test")
        except ByokError:
            assert self.is_out or self.is_disabled
        self._notice_state()

    @rule(number=process_numbers)
    def look(self, number: int) -> None:
        self.fleet[number].watch.look()
        if self.stopped_ticks is not None:
            self.told.add(number)

    @rule(loses_all=st.booleans())
    def change_push(self, loses_all: bool) -> None:
        self.world.board.loses_all = loses_all

    @rule(is_down=st.booleans())
    def change_cache(self, is_down: bool) -> None:
        self.world.cache.is_down = is_down

    @rule()
    def lose_the_cache(self) -> None:
        self.old_entries |= self.world.cache.entries
        self.world.cache.entries.clear()

    @rule()
    def refill_late(self) -> None:
        """A process that was slow files what it had fetched long ago; the server ends it when it must."""
        self.world.cache.entries |= self.old_entries

    @rule()
    def sweep(self) -> None:
        self.world.services.scheduling.sweep()

    def teardown(self) -> None:
        """With everything as it should be again, everything is served again."""
        if not hasattr(self, "world"):
            return
        self.is_out = False
        self.restore()
        self.world.cache.is_down = self.world.board.loses_all = False
        if self.world.tenant().state is TenantState.SUSPENDED:
            self.world.services.kill_switch.resume("acme", actor="test")
        self.world.clock.advance(seconds=10)
        for number in range(PROCESSES):
            self.fleet[number].watch.look()
            self._fetch(number, encrypts=True)
            self._fetch(number, encrypts=False)
        assert self.stopped_ticks is None
        for report in self.world.services.kill_switch.reports(self.world.tenant(), limit=1000):
            assert report.silent == [], "every stop is acknowledged in the end"


@pytest.mark.timeout(300)
def test_no_schedule_serves_past_deadline_or_stop(engine: sa.Engine) -> None:
    machine: Any = type("Machine", (LeaseMachine,), {"engine": engine})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=100,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
            phases=[Phase.generate],  # shrinking on a real database would take minutes
        ),
    )
