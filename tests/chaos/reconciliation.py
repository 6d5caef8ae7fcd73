"""Thousands of requests by real processes, some of them killed, under every fault: is there a false alarm?

    python -m tests.chaos.reconciliation                 # 10,000 calls; 2 minutes

Throttles, 500s, a gateway's pages, broken connections, lost replies, timeouts, expired sessions, SIGKILL.
Then the customer's CloudTrail, as files, is compared with our log: both must agree. Then a call by a thief is
added and one of ours taken away: both must be found, and nothing else.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from byok.cli.reconcile import Outcome
from byok.embedded.stack import Stack
from byok.settings import child_environment, load_settings, use_environment
from byok.simulator.cloudtrail import deliver
from byok.simulator.control import SimulatorControl
from byok.store import migrate
from byok.wiring import build
from tests.customers import Customer, join

PROCESSES = 4
CALLS_A_THREAD = 250
# Each by itself, in this order; a call meets the first that strikes.
FAULTS: list[dict[str, Any]] = [
    {"code": "ThrottlingException", "probability": 0.03},
    {"code": "KMSInternalException", "http_status": 500, "probability": 0.02},
    {"html_status": 502, "probability": 0.01},
    {"reset": True, "probability": 0.01},
    {"lose_reply": True, "probability": 0.02},
    {"code": "ExpiredTokenException", "probability": 0.01},
    {"delay_seconds": 5.5, "probability": 0.0005},  # the client waits for 5 s
]


@dataclass
class Run:
    """What was done, and what came of the comparison."""

    calls: int
    killed: int
    seconds: float
    agreed: Mapping[str, Any]
    planted: Mapping[str, Any]


def run(stack: Stack, customer: Customer, calls: int, folder: Path) -> Run:
    """Make at least so many calls, and compare."""
    simulator = SimulatorControl(stack.simulator.url)
    began = time.monotonic()
    for fault in FAULTS:
        simulator.inject(**fault)
    killed = _ask(stack, customer, simulator, calls)
    simulator.clear_faults()
    time.sleep(6)  # what a dead process asked last may still be under way in the simulator
    trail = simulator.cloudtrail(customer.account.account_id)
    seconds = time.monotonic() - began
    agreed = compare(stack, customer, trail, folder / "honest")
    return Run(
        len(trail), killed, seconds, agreed, compare(stack, customer, _planted(trail), folder / "false")
    )


def _ask(stack: Stack, customer: Customer, simulator: SimulatorControl, calls: int) -> int:
    """Keep processes at it, and kill every other one; how many were killed."""
    chosen, killed, seed = random.Random(7), 0, 0
    children: list[subprocess.Popen[bytes]] = []
    while len(simulator.cloudtrail(customer.account.account_id)) < calls:
        children = [child for child in children if child.poll() is None]
        while len(children) < PROCESSES:
            seed += 10
            children.append(_start(stack, customer, seed))
        time.sleep(chosen.uniform(1.5, 3.0))
        if chosen.random() < 0.5:
            children[0].kill()
            children[0].wait()
            killed += 1
    for child in children:
        child.kill()  # all that they wrote last is in their spools
        child.wait()
    return killed + len(children)


def _start(stack: Stack, customer: Customer, seed: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.chaos.reconciliation_worker", customer.name]
    return subprocess.Popen(
        [*command, str(CALLS_A_THREAD), str(seed)],
        env=child_environment({**stack.environment, "BYOK_TENANT_KMS_CALLS": "8"}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def compare(stack: Stack, customer: Customer, trail: list[dict[str, Any]], folder: Path) -> Mapping[str, Any]:
    """Deliver a trail, and have the command compare it."""
    deliver(trail, folder)
    command = [sys.executable, "-m", "byok.cli", "audit", "reconcile", customer.name, "--json"]
    done = subprocess.run(
        [*command, "--cloudtrail", str(folder), "--delivery-delay", "0s"],
        env=child_environment(stack.environment),
        stdout=subprocess.PIPE,
        check=False,
    )
    told: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == Outcome[told["outcome"].upper()], told
    return told


def _planted(trail: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The trail with a thief's call more, and one of ours less."""
    middle = len(trail) // 2
    ours = next(place for place in range(middle, len(trail)) if "errorCode" not in trail[place])
    thief = trail[middle] | {"requestID": str(uuid4()), "eventID": str(uuid4())}
    return [*trail[:ours], *trail[ours + 1 :], thief]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=10_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, Stack(Path(name) / "home", durable=False) as stack:
        use_environment(stack.environment)
        runtime = build(load_settings())
        migrate.upgrade(runtime.engine)
        customer = join(stack, runtime, "acme")
        runtime.close()
        done = run(stack, customer, arguments.calls, Path(name))
    print(f"{done.calls} calls in {done.seconds:.0f} s, {done.killed} processes killed")
    for title, told in (("as it was", done.agreed), ("with a thief, and a gap", done.planted)):
        numbers = {key: value for key, value in told.items() if isinstance(value, int)}
        print(f"{title}: {told['outcome']}", json.dumps(numbers))
    agree = done.agreed["outcome"] == "agree"
    found = done.planted["strangers"] == 1 and done.planted["missing"] == 1
    sys.exit(0 if agree and found else 1)


if __name__ == "__main__":
    main()
