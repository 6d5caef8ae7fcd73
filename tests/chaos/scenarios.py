"""The faults, each as a function that does its worst while rotations are in flight.

Each returns how often it struck and how many rotations were open at those moments. After it the fleet is
left to settle, and `invariants.look` looks at everything.
"""

import itertools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import uuid4

import redis

from byok.embedded.supervisor import Child
from byok.failpoints import FailPoint
from byok.settings import child_environment
from tests.chaos.fleet import SWEEP_SECONDS, Fleet

_OF_CAMPAIGNS = {
    FailPoint.CAMPAIGN_RECORDED,
    FailPoint.ROWS_REPLACED,
    FailPoint.CURSOR_MOVED,
    FailPoint.BATCH_ENDED,
    FailPoint.FINISHING,
}  # tests/acceptance/test_campaign.py and tests/chaos/reencryption.py kill workers there
_OF_MOVES = {point for point in FailPoint if point.name.startswith("MOVE_")}  # tests/chaos/moves.py
# tests/acceptance/test_master_key_rotation.py kills workers there
_OF_RESEALS = {FailPoint.RESEAL_RECORDED, FailPoint.RECORDS_RESEALED}
_OF_LEAVING = {
    FailPoint.SHREDDING_BEGUN,
    FailPoint.KEY_SHREDDING,
    FailPoint.KEY_SHREDDED,
    FailPoint.OFFBOARDING,
    FailPoint.OFFBOARDED,
    FailPoint.CERTIFYING,
}  # tests/integration/test_offboarding.py dies there
_ELSEWHERE = {FailPoint.REQUEST_RECORDED} | _OF_CAMPAIGNS | _OF_LEAVING | _OF_MOVES | _OF_RESEALS
_IN_A_WORKER = tuple(point for point in FailPoint if point not in _ELSEWHERE)


_REQUESTER = (
    "import sys; from byok import connect;"
    " connect().request_rotation(*sys.argv[1:3], idempotency_key=sys.argv[3])"
)


@dataclass
class Struck:
    """How often a fault struck, and how many rotations were in flight each time."""

    times: int = 0
    in_flight: list[int] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)  # what was meant to happen and did not

    def note(self, in_flight: int, times: int = 1) -> None:
        self.times += times
        self.in_flight.append(in_flight)


Scenario = Callable[[Fleet, int], Struck]


def kill_at_each_step(fleet: Fleet, rounds: int) -> Struck:
    """SIGKILL of a worker at each fail point: one armed worker for each, beside two that are whole."""
    struck = Struck()
    for _ in range(rounds):
        alive = dict(zip(fleet.start_workers(*_IN_A_WORKER), _IN_A_WORKER, strict=True))
        armed = list(alive)
        # Some versions must fail their validation, or no worker would come to fail a rotation.
        fleet.simulator.inject(operation="Decrypt", code="InvalidCiphertextException", probability=0.05)
        deadline = time.monotonic() + 90
        while alive and time.monotonic() < deadline:
            # Keys of their own for the points of sweeping and dispatching: where a rotation is open already,
            # there is nothing to sweep or to dispatch.
            fleet.record_without_publishing(fleet.keys[:1])
            fleet.make_due(fleet.keys[1:3])
            fleet.storm(fleet.keys[3:])
            in_flight = fleet.in_flight()
            time.sleep(0.3)
            for worker in [one for one in alive if one.process.poll() is not None]:
                assert worker.process.returncode == -signal.SIGKILL, worker.log_tail(20)
                del alive[worker]
                struck.note(in_flight)
        struck.missed += [f"nobody came to {point}" for point in alive.values()]
        fleet.simulator.clear_faults()
        fleet.stop(armed)
        fleet.settle()
    return struck


def kill_pool_processes(fleet: Fleet, rounds: int) -> Struck:
    """SIGKILL of processes of a prefork pool: the worker lives on and gives their messages back."""
    struck = Struck()
    for _ in range(rounds):
        points = (FailPoint.GENERATED, FailPoint.VALIDATED)
        armed = fleet.start_workers(*points, options=("--pool", "processes"))
        for _ in range(2):
            fleet.storm()
            flying = fleet.in_flight()
            fleet.settle()
            struck.note(flying, 0)
        struck.times += sum(_lost_processes(worker) for worker in armed)
        fleet.stop(armed)
    if struck.times == 0:
        struck.missed.append("no process of a pool was killed")
    return struck


def _lost_processes(worker: Child) -> int:
    return worker.log_file.read_text(errors="replace").count("WorkerLostError: Worker exited prematurely")


def kill_a_requester(fleet: Fleet, rounds: int) -> Struck:
    """SIGKILL of a service between the commit of its request and the publication."""
    struck = Struck()
    for name in [fleet.random.choice(fleet.keys) for _ in range(rounds * 2)]:
        armed = {**fleet.environment, "BYOK_FAIL_POINT": FailPoint.REQUEST_RECORDED.value}
        command = [sys.executable, "-c", _REQUESTER, name.tenant, name.key, f"chaos-{uuid4()}"]
        ended = subprocess.run(command, env=child_environment(armed), check=False, capture_output=True)
        assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
        struck.note(fleet.in_flight())
    return struck


def terminate(fleet: Fleet, rounds: int) -> Struck:
    """SIGTERM while rotations run: a warm shutdown gives nothing up half-way."""
    struck = Struck()
    for _ in range(rounds):
        (worker,) = fleet.start_workers(None)
        fleet.storm()
        fleet.wait_for_work()
        struck.note(fleet.in_flight())
        worker.process.send_signal(signal.SIGTERM)
        assert fleet.wait_for_end(worker, 40) == 0, worker.log_tail(20)
        fleet.stop([worker])
    return struck


def quit_softly(fleet: Fleet, rounds: int) -> Struck:
    """SIGQUIT while KMS hangs: the soft shutdown ends in time, and another worker goes on."""
    struck = Struck()
    for _ in range(rounds):
        (worker,) = fleet.start_workers(None)
        fleet.simulator.hang(4, times=6)
        fleet.storm()
        fleet.wait_for_work()
        struck.note(fleet.in_flight())
        worker.process.send_signal(signal.SIGQUIT)
        fleet.wait_for_end(worker, 40)
        fleet.stop([worker])
        fleet.simulator.clear_faults()
    return struck


def freeze(fleet: Fleet, rounds: int) -> Struck:
    """SIGSTOP beyond its claims, then SIGCONT: a worker that comes back to work that others did."""
    struck = Struck()
    for _ in range(rounds):
        (worker,) = fleet.start_workers(None)
        fleet.storm()
        fleet.wait_for_work()
        worker.process.send_signal(signal.SIGSTOP)
        struck.note(fleet.in_flight())
        time.sleep(3 * SWEEP_SECONDS)
        worker.process.send_signal(signal.SIGCONT)
        fleet.settle()
        fleet.stop([worker])
    return struck


def lose_the_broker(fleet: Fleet, rounds: int) -> Struck:
    """The broker is killed and comes back without its data; the lease cache, too."""
    struck = Struck()
    for _ in range(3 * rounds):
        fleet.storm()
        fleet.wait_for_work()  # acknowledgements fall into the outage
        struck.note(fleet.in_flight())
        fleet.restart_valkey(fleet.stack.broker)
        fleet.restart_valkey(fleet.stack.cache)
        fleet.settle()
    return struck


def lose_messages(fleet: Fleet, rounds: int) -> Struck:
    """The queues are emptied while the broker goes on."""
    struck = Struck()
    broker = redis.Redis.from_url(fleet.stack.broker.url)
    for _ in range(rounds * 3):
        fleet.storm()
        lost = sum(int(broker.llen(queue)) for queue in ("rotate.forced", "rotate.scheduled"))
        broker.flushall()
        struck.note(fleet.in_flight(), lost)
        fleet.settle()
    broker.close()
    return struck


def restart_the_database(fleet: Fleet, rounds: int) -> Struck:
    """PostgreSQL ends all sessions, or crashes, in mid-flight."""
    struck = Struck()
    for number in range(rounds * 2):
        fleet.storm()
        for name in fleet.random.sample(fleet.keys, 2):
            fleet.ask_by_name(name)  # what is in nobody's table yet must come through, too
        fleet.wait_for_work()
        struck.note(fleet.in_flight())
        fleet.restart_postgres(signal.SIGQUIT if number % 2 else signal.SIGINT)
        fleet.settle()
    return struck


def _kms_fault(order: Callable[[Fleet], object]) -> Scenario:
    def scenario(fleet: Fleet, rounds: int) -> Struck:
        struck = Struck()
        for _ in range(rounds):
            order(fleet)
            fleet.storm()
            flying = fleet.in_flight()
            fleet.wait_until(lambda: fleet.in_flight() == 0, 8)
            struck.note(flying, fleet.simulator.struck())
            fleet.simulator.clear_faults()
            fleet.settle()
        return struck

    return scenario


def _mixed(fleet: Fleet) -> None:
    """A fifth of all calls fails, in one of four ways."""
    fleet.simulator.throttle(probability=0.05)
    fleet.simulator.internal_error(probability=0.053)
    fleet.simulator.bad_gateway(probability=0.056)
    fleet.simulator.reset(probability=0.059)


def deliver_twice_and_out_of_order(fleet: Fleet, rounds: int) -> Struck:
    """Each message twice, in any order, with messages of rotations that are long done between them."""
    struck = Struck()
    broker = redis.Redis.from_url(fleet.stack.broker.url)
    for _ in range(rounds):
        for worker in fleet.workers:
            worker.process.send_signal(signal.SIGSTOP)
        done = [work.rotation for work in fleet.works()][: len(fleet.keys)]
        fleet.storm()
        for name in fleet.random.sample(fleet.keys, 2):
            fleet.ask_by_name(name)
        fleet.publish_again(done)
        messages = [str(json.dumps(json.loads(message))) for message in broker.lrange("rotate.forced", 0, -1)]
        copies = [_copy(message) for message in messages]
        mixed = [*messages, *copies]
        fleet.random.shuffle(mixed)
        broker.delete("rotate.forced")
        broker.lpush("rotate.forced", *mixed)
        struck.note(fleet.in_flight(), len(copies) + len(done))
        for worker in fleet.workers:
            worker.process.send_signal(signal.SIGCONT)
        fleet.settle()
    broker.close()
    return struck


def _copy(message: str) -> str:
    """The same message, delivered again: its task id stays, its delivery tag is another."""
    told = json.loads(message)
    told["properties"]["delivery_tag"] = str(uuid4())
    return json.dumps(told)


def two_beats(fleet: Fleet, rounds: int) -> Struck:
    """All keys due, two Beats ticking, and one of them killed."""
    struck = Struck()
    for _ in range(rounds):
        second = fleet.start_beat()
        fleet.settle()
        fleet.make_due(fleet.keys)
        fleet.wait_until(lambda: fleet.in_flight() > 0, 15)
        struck.note(fleet.in_flight())
        killed: Child = fleet.random.choice([second, fleet.beat])
        killed.process.kill()
        killed.process.wait()
        fleet.make_due(fleet.keys)
        fleet.wait_until(lambda: fleet.overdue() == 0, 15)
        struck.note(fleet.in_flight())
        fleet.stop([killed])
        if killed is fleet.beat:
            fleet.beat = second
        else:
            fleet.stop([killed])
    return struck


def jump_the_clock(fleet: Fleet, rounds: int) -> Struck:
    """PostgreSQL's clock is set ahead and back, by an hour and a day, while claims of the dead last."""
    struck = Struck()
    for shift in itertools.islice(itertools.cycle(("-1 day", "1 day", "1 hour", "-1 hour")), 2 * rounds):
        armed = fleet.start_workers(fleet.random.choice([FailPoint.GATE_PASSED, FailPoint.VALIDATED]))
        fleet.storm()
        fleet.wait_until(lambda armed=armed: armed[0].process.poll() is not None, 10)  # type: ignore[misc]  # mypy and lambda defaults
        struck.note(fleet.in_flight())
        fleet.set_clock(shift)
        fleet.stop(armed)
        fleet.replace_a_worker()  # it knows the new time at once, the other after half a minute
        fleet.storm()
        fleet.settle()
    fleet.set_clock("0")
    fleet.replace_a_worker()
    return struck


SCENARIOS: dict[str, Scenario] = {
    "SIGKILL of workers, at each step": kill_at_each_step,
    "SIGKILL of pool processes": kill_pool_processes,
    "SIGKILL of a requester": kill_a_requester,
    "SIGTERM, warm shutdown": terminate,
    "SIGQUIT, soft shutdown": quit_softly,
    "SIGSTOP beyond the claim": freeze,
    "broker and cache lose all data": lose_the_broker,
    "messages lost": lose_messages,
    "PostgreSQL restarts and crashes": restart_the_database,
    "KMS throttles": _kms_fault(lambda fleet: fleet.simulator.throttle(times=60)),
    "KMS answers 500": _kms_fault(lambda fleet: fleet.simulator.internal_error(times=60)),
    "KMS hangs": _kms_fault(lambda fleet: fleet.simulator.hang(7, times=8)),
    "KMS resets connections": _kms_fault(lambda fleet: fleet.simulator.reset(times=60)),
    "a fifth of KMS calls fails": _kms_fault(_mixed),
    "delivered twice, late, out of order": deliver_twice_and_out_of_order,
    "two Beats, one killed": two_beats,
    "clock jumps by hours and days": jump_the_clock,
}
