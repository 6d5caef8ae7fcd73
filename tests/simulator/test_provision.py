"""`python -m byok.simulator.provision` does what a tour has its customer do."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from byok.core import policies
from byok.embedded.stack import Stack
from byok.settings import child_environment
from byok.simulator.control import SimulatorControl
from tests.simulator.test_simulator import Setup, code_of


@pytest.fixture
def setup(stack: Stack) -> Setup:
    return Setup(stack)


def provision(setup: Setup, *arguments: str, printed: object = None) -> str:
    command = [sys.executable, "-m", "byok.simulator.provision", *arguments]
    environment = child_environment(setup.stack.environment)
    text = json.dumps(printed)
    ended = subprocess.run(
        command, env=environment, input=text, capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def test_a_role_goes_with_all_that_it_was_allowed(setup: Setup) -> None:
    errand = {"role_name": "byok", "inline_policy_name": "byok-export", "inline_policy": setup.permissions}
    provision(setup, "add-policy", setup.account.account_id, printed=errand)
    assert provision(setup, "delete-role", setup.role) == setup.role
    assert code_of(setup.assume) == "AccessDenied"


def test_one_policy_takes_the_place_of_all(setup: Setup) -> None:
    errand = {"role_name": "byok", "inline_policy_name": "byok-export", "inline_policy": setup.permissions}
    provision(setup, "add-policy", setup.account.account_id, printed=errand)
    other = policies.role_permissions(setup.account.create_key(), setup.tenant_id)
    provision(setup, "renew-role", setup.role, printed={"role_permissions_policy": other})
    assert code_of(lambda: setup.kms.describe_key(KeyId=setup.key)) == "AccessDeniedException"
    moving = [{"place": "the role", "whole": True, "statements": setup.permissions["Statement"]}]
    provision(setup, "renew-role", setup.role, printed=moving)
    assert code_of(lambda: setup.kms.describe_key(KeyId=setup.key)) == "ok"


def test_a_trail_is_written_as_aws_delivers_it(
    setup: Setup, tmp_path: Path, simulator: SimulatorControl
) -> None:
    setup.kms.describe_key(KeyId=setup.key)
    account = setup.account.account_id
    said = provision(setup, "cloudtrail", account, str(tmp_path))
    (file,) = tmp_path.rglob("*.json.gz")
    assert file.relative_to(tmp_path).parts[:3] == ("AWSLogs", account, "CloudTrail")
    assert said == f"{len(simulator.cloudtrail(account))} records"
    assert json.loads(gzip.decompress(file.read_bytes()))["Records"] == simulator.cloudtrail(account)
