"""``python -m byok.simulator.provision``: plays the customer's administrator, for tours and experiments."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from byok.simulator import cloudtrail
from byok.simulator.control import SimulatorControl
from byok.simulator.customer import CustomerAccount


def main() -> None:
    """Do one thing in a customer's simulated account; print its ARN or name, or how much it was."""
    parser = argparse.ArgumentParser(prog="python -m byok.simulator.provision", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("create-key", help="make a KMS key").add_argument("account", help="12 digits")
    role = actions.add_parser("create-role", help="make the role that `byok tenant policy --json` prints")
    role.add_argument("account", help="12 digits")
    renewed = actions.add_parser("renew-role", help="put what is printed in place of the role's policies")
    renewed.add_argument("arn", help="of a role; `byok tenant policy --json` or `migrate --policy --json`")
    errand = actions.add_parser("add-policy", help="allow a role what `byok tenant policy --for` prints")
    errand.add_argument("account", help="12 digits")
    for name in ("disable-key", "enable-key", "delete-role"):
        actions.add_parser(name, help=f"{name.replace('-', ' the ')}").add_argument("arn")
    trail = actions.add_parser("cloudtrail", help="write the account's trail as AWS delivers it to S3")
    trail.add_argument("account", help="12 digits")
    trail.add_argument("folder", type=Path, help="where AWSLogs/ACCOUNT/CloudTrail/… goes")
    arguments = parser.parse_args()
    sys.stdout.write(_act(arguments) + "\n")


def _act(arguments: argparse.Namespace) -> str:
    endpoint_url = os.environ.get("BYOK_KMS_ENDPOINT_URL")  # noqa: TID251  # a program of its own
    if endpoint_url is None:
        sys.exit("BYOK_KMS_ENDPOINT_URL is not set: source the env file that `byok up` names")
    arn: str = getattr(arguments, "arn", "")
    account = CustomerAccount(endpoint_url, arn.split(":")[4] if arn else arguments.account)
    match arguments.action:
        case "create-key":
            return account.create_key()
        case "create-role":
            printed = json.load(sys.stdin)
            return account.create_role(
                printed["role_name"], printed["role_trust_policy"], printed["role_permissions_policy"]
            )
        case "renew-role":
            printed = json.load(sys.stdin)
            whole = printed[0]["statements"] if isinstance(printed, list) else None
            permissions = printed["role_permissions_policy"] if whole is None else _document(whole)
            account.renew_role_policies(arn.rpartition("/")[2], permissions)
        case "add-policy":
            printed = json.load(sys.stdin)
            name: str = printed["inline_policy_name"]
            account.put_role_policy(printed["role_name"], printed["inline_policy"], name)
            return name
        case "disable-key":
            account.disable_key(arn)
        case "enable-key":
            account.enable_key(arn)
        case "delete-role":
            account.delete_role(arn.rpartition("/")[2])
        case "cloudtrail":
            trail = SimulatorControl(endpoint_url).cloudtrail(account.account_id)
            cloudtrail.deliver(trail, arguments.folder)
            return f"{len(trail)} records"
    return arn


def _document(statements: list[dict[str, Any]]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": statements}


if __name__ == "__main__":
    main()
