"""Ten thousand customers in one process: memory of each, and time of a call over a bare boto3 client's.

    python -m benchmarks.tenants                 # half a minute
    python -m benchmarks.tenants --tenants 1000

Real adapter, simulated AWS on loopback: every tenant has its own session by its own AssumeRole. The floor
of a call is one boto3 client with fixed credentials, asked in turns with the adapter, in the same run.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from uuid import UUID

import boto3
import psutil
from rich.console import Console
from rich.progress import track
from rich.table import Table

from byok.core import policies
from byok.core.arns import KmsKeyArn, RoleArn
from byok.core.model import Connection
from byok.embedded.stack import Stack
from byok.entropy import SystemRandom
from byok.kms.aws import AwsKms
from byok.kms.bulkhead import Bulkhead
from byok.metrics import PrometheusMetrics
from byok.settings import use_environment
from byok.simulator import ADMIN_ACCESS_KEY_PREFIX
from byok.simulator.customer import CustomerAccount
from byok.spool import FileSpool
from tests.customers import VENDOR
from tests.fakes import FakeClock

ACCOUNTS = 20
CONTEXT = {"byok-app": "byok"}
console = Console()


class WallClock(FakeClock):
    """The time now; sessions are told by AWS when they end."""

    def __init__(self) -> None:
        from byok.simulator.server import utc_now

        super().__init__(utc_now())


def provision(endpoint_url: str) -> list[tuple[str, str]]:
    """A KMS key and a role in each account; the roles let every external id of ours in."""
    made = []
    for number in range(ACCOUNTS):
        account = CustomerAccount(endpoint_url, f"4{number:011d}")
        key = account.create_key()
        trust = policies.trust_policy(VENDOR, "byok-*")
        condition = trust["Statement"][0]["Condition"]
        condition["StringLike"] = condition.pop("StringEquals")
        statement = {"Effect": "Allow", "Action": list(policies.USE_ACTIONS), "Resource": key}
        made.append(
            (key, account.create_role("byok", trust, {"Version": "2012-10-17", "Statement": [statement]}))
        )
    return made


def connections(count: int, provisioned: list[tuple[str, str]]) -> list[Connection]:
    made = []
    for number in range(count):
        key, role = provisioned[number % ACCOUNTS]
        made.append(
            Connection(
                UUID(int=number),
                KmsKeyArn.parse(key),
                f"byok-{number:032d}",
                RoleArn.parse(role),
                tenant_name=f"tenant-{number}",
            )
        )
    return made


def timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tenants", type=int, default=10_000)
    parser.add_argument("--calls", type=int, default=2_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder) / "home", durable=False) as stack:
        use_environment(stack.environment)
        endpoint_url = stack.simulator.url
        spool = FileSpool(stack.home.path / "requests", WallClock(), SystemRandom())
        kms = AwsKms(WallClock(), Bulkhead(), PrometheusMetrics(), spool, endpoint_url=endpoint_url)
        tenants = connections(arguments.tenants, provision(endpoint_url))
        blobs = {
            str(one.kms_key_arn): kms.generate_data_key(one, CONTEXT).ciphertext for one in tenants[:ACCOUNTS]
        }

        def decrypt(tenant: Connection) -> None:
            kms.decrypt(tenant, blobs[str(tenant.kms_key_arn)], CONTEXT).secret.wipe()

        bare = boto3.client(
            "kms",
            endpoint_url=endpoint_url,
            region_name="eu-central-1",
            aws_access_key_id=ADMIN_ACCESS_KEY_PREFIX + tenants[0].kms_key_arn.account,
            aws_secret_access_key="not-a-secret",
        )
        arn = str(tenants[0].kms_key_arn)

        def floor() -> None:
            bare.decrypt(KeyId=arn, CiphertextBlob=blobs[arn], EncryptionContext=CONTEXT)

        floor()
        process = psutil.Process()
        before = process.memory_info().rss
        newcomers = track(tenants[ACCOUNTS:], "a first call each", console=console)
        first = [timed(partial(decrypt, one)) for one in newcomers]
        grown = process.memory_info().rss - before
        ours, bares = [], []
        random = SystemRandom()
        for _ in track(range(arguments.calls), "calls in turns", console=console):
            tenant = tenants[int(random.fraction() * len(tenants))]
            ours.append(timed(partial(decrypt, tenant)))
            bares.append(timed(floor))
    table = Table(title=f"{arguments.tenants:,} customers' sessions in one process", title_justify="left")
    for column in ("what", "value"):
        table.add_column(column)
    table.add_row("memory of the process", f"{(before + grown) / 2**20:.0f} MiB")
    table.add_row("memory that the sessions took", f"{grown / 2**20:.1f} MiB")
    table.add_row("memory of one", f"{grown / len(tenants) / 1024:.1f} KiB")
    table.add_row("first call of a tenant, AssumeRole and Decrypt, p50", f"{statistics.median(first):.2f} ms")
    table.add_row("further call, Decrypt, p50", f"{statistics.median(ours):.2f} ms")
    table.add_row("floor: bare boto3 client, p50", f"{statistics.median(bares):.2f} ms")
    table.add_row("ratio of medians", f"{statistics.median(ours) / statistics.median(bares):.2f}")
    console.print(table)


if __name__ == "__main__":
    main()
