"""Fetching, expiry, revocation, restoration, outages, purges, lost pushes and moving clocks in any order.

Whatever the schedule, no process serves plaintext past the deadline of the last KMS Decrypt that
succeeded, nor after a stop was committed and told to it; and what nothing hinders is served. The services
run over a real PostgreSQL; the model knows the true time, and what it told to whom.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from byok.core.model import TenantState
from byok.errors import AccessStopped, ByokError, KmsUnavailable
from byok.store.postgres import PostgresStore
from tests.conftest import empty
from tests.world import RECHECK, World

CONTEXT = b"users.email:1"
PROCESSES = 3
TTL = timedelta(minutes=10)


class Fleet:
    """Three processes of a fleet, the world that they live in, and the model."""

    def __init__(self, engine: sa.Engine) -> None:
        empty(engine)
        self.world = World(PostgresStore(engine))
        self.world.add_tenant()
        self.world.add_key(ttl=TTL)
        self.arn = self.world.versions()[0].kms_key_arn
        self.fleet = [self.world.another_process() for _ in range(PROCESSES)]
        self.token = self.fleet[0].vault.cipher("acme", "pii").encrypt(b"ada", context=CONTEXT)
        self.is_out = self.is_disabled = False
        self.last_decrypt_ticks = self.world.clock.ticks()
        self.stopped_ticks: float | None = None
        self.resumed_ticks = 0.0
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

    def encrypt(self, number: int) -> None:
        self._fetch(number, encrypts=True)

    def decrypt(self, number: int) -> None:
        self._fetch(number, encrypts=False)

    def decrypt_everywhere(self) -> None:
        for number in range(PROCESSES):
            self._fetch(number, encrypts=False)

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
            # Who did not hear that a tenant goes on finds out when it looks again.
            ago_seconds = self.world.clock.ticks() - self.resumed_ticks
            unheard = isinstance(error, AccessStopped) and ago_seconds < RECHECK.total_seconds()
            stopped = self.stopped_ticks is not None or unheard
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
            if self.stopped_ticks is not None:
                self.resumed_ticks = self.world.clock.ticks()
            self.stopped_ticks, self.told = None, set()

    def pass_time(self, seconds: int) -> None:
        self.world.clock.advance(seconds=seconds)

    def set_the_clock(self, minutes: int) -> None:
        self.world.clock.step(minutes=minutes)

    def happen_to_kms(self, what: str) -> None:
        if what in ("revoke", "restore"):
            self.is_disabled = what == "revoke"
            (self.world.kms.disable if self.is_disabled else self.world.kms.enable)(self.arn)
        else:
            self.is_out = what == "outage"

    def probe(self) -> None:
        try:
            self.world.services.checkups.probe("acme")
        except ByokError:
            assert self.is_out
        self._notice_state()

    def suspend(self, unheard: bool) -> None:
        self.world.board.loses_all |= unheard
        self._suspend()

    def _suspend(self) -> None:
        if self.world.tenant().state is TenantState.ACTIVE:
            self.world.services.kill_switch.suspend("acme", "stop", actor="test")
            self._notice_state()

    def resume(self, mends: bool) -> None:
        if self.stopped_ticks is None:
            return
        if mends:
            self._mend()
        try:
            self.world.services.kill_switch.resume("acme", actor="test")
        except ByokError:
            assert self.is_out or self.is_disabled
        self._notice_state()

    def restart(self, number: int) -> None:
        """A new process looks before it serves anything: it counts as told."""
        self.world.board.ears.remove(self.fleet[number].watch.hear)
        self.fleet[number].watch.close()
        self.fleet[number] = self.world.another_process()
        if self.stopped_ticks is not None:
            self.told.add(number)

    def look(self, number: int) -> None:
        self.fleet[number].watch.look()
        if self.stopped_ticks is not None:
            self.told.add(number)

    def disturb(self, what: str) -> None:
        if what == "lose pushes":
            self.world.board.loses_all = True
        elif what == "cache down":
            self.world.cache.is_down = True
        elif what == "lose the cache":
            self.old_entries |= self.world.cache.entries
            self.world.cache.entries.clear()
        elif what == "refill":  # a slow process files what it had fetched long ago
            self.world.cache.entries |= self.old_entries
        elif what == "sweep":
            self.world.services.scheduling.sweep()
        else:
            self._mend()

    def _mend(self) -> None:
        self.is_out = self.is_disabled = False
        self.world.kms.enable(self.arn)
        self.world.cache.is_down = self.world.board.loses_all = False

    def end(self) -> None:
        """With everything as it should be again, everything is served again."""
        self._mend()
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


# Each act with its argument; what stands there more often is drawn more often.
ACTS: list[tuple[Callable[..., None], tuple[Any, ...]]] = [
    *[(Fleet.encrypt, (number,)) for number in range(PROCESSES)],
    *[(Fleet.decrypt, (number,)) for number in range(PROCESSES)] * 2,
    *[(Fleet.decrypt_everywhere, ())] * 4,
    *[(Fleet.fetch_while_somebody_stops_it, (number,)) for number in range(PROCESSES)],
    *[(Fleet.pass_time, (seconds,)) for seconds in (1, 2, 4, 60, 290, 500, 500, 601, 601)],
    *[(Fleet.set_the_clock, (minutes,)) for minutes in (-600, -9, -1, 1, 9, 600)],
    *[(Fleet.happen_to_kms, (what,)) for what in ("revoke", "restore", "outage", "outage", "end of outage")],
    *[(Fleet.probe, ())] * 2,
    *[(Fleet.suspend, (unheard,)) for unheard in (True, False)],
    *[(Fleet.resume, (mends,)) for mends in (True, True, True, True, False)],
    *[(Fleet.look, (number,)) for number in range(PROCESSES)],
    *[(Fleet.restart, (number,)) for number in range(PROCESSES)] * 2,
    *[
        (Fleet.disturb, (what,))
        for what in ("lose pushes", "lose the cache", "cache down", "refill", "sweep")
    ],
    *[(Fleet.disturb, ("mend",))] * 3,
]


@pytest.mark.timeout(300)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
    phases=[Phase.generate],  # shrinking on a real database would take minutes
)
@given(schedule=st.lists(st.sampled_from(ACTS), min_size=60, max_size=90))
def test_no_schedule_serves_past_deadline_or_stop(
    engine: sa.Engine, schedule: list[tuple[Callable[..., None], tuple[Any, ...]]]
) -> None:
    fleet = Fleet(engine)
    for act, arguments in schedule:
        act(fleet, *arguments)
    fleet.end()
