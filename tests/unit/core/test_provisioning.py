"""What customers run, in every form: as the golden files have it, and as the tools of the trade accept it."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from uuid import UUID

import pytest
import yaml

from byok.core import policies
from byok.core.arns import KmsKeyArn, RoleArn
from byok.core.provisioning import AccessMode, PolicyFormat, Provisioning, documents, render
from byok.errors import InvalidInput

VECTORS = Path(__file__).parents[2] / "vectors" / "provisioning"
KEY = KmsKeyArn.parse("arn:aws:kms:eu-central-1:222222222222:key/1234abcd-12ab-34cd-56ef-1234567890ab")
WHAT = Provisioning(
    "acme",
    UUID("01a20d4b-390b-73fc-8595-0f2d7a5790c9"),
    "byok-an-external-id-of-32-characters",
    RoleArn.parse("arn:aws:iam::111111111111:role/byok-worker"),
    KEY,
)
OPEN = Provisioning(WHAT.tenant_name, WHAT.tenant_id, WHAT.external_id, WHAT.vendor_role)
SUFFIXES = {"json": "json", "cloudformation": "yaml", "terraform": "tf", "cli": "sh"}
CASES = [
    (what, name, form, mode)
    for form in PolicyFormat
    for mode in AccessMode
    for what, name in ((WHAT, "closed"), (OPEN, "open"))
    if not (what is OPEN and (form, mode) == (PolicyFormat.JSON, AccessMode.ROLE))
]


@pytest.mark.parametrize(("what", "name", "form", "mode"), CASES)
def test_golden(what: Provisioning, name: str, form: PolicyFormat, mode: AccessMode) -> None:
    """After a change that is meant: write what `render` gives into the file, and read the diff."""
    golden = VECTORS / f"{mode}.{name}.{SUFFIXES[form]}"
    assert render(what, form, mode) == golden.read_text()


def test_json_for_a_role_needs_the_key() -> None:
    with pytest.raises(InvalidInput, match="ARN of the KMS key"):
        render(OPEN, PolicyFormat.JSON, AccessMode.ROLE)


def test_role_names_fit_iam() -> None:
    long = Provisioning("t" * 63, WHAT.tenant_id, WHAT.external_id, WHAT.vendor_role)
    assert len(long.role_name) == 64


@pytest.mark.parametrize("mode", AccessMode)
@pytest.mark.parametrize("what", [WHAT, OPEN], ids=["closed", "open"])
def test_cloudformation_passes_cfn_lint(what: Provisioning, mode: AccessMode) -> None:
    from cfnlint.api import lint
    from cfnlint.config import ManualArgs

    template = render(what, PolicyFormat.CLOUDFORMATION, mode)
    assert [str(match) for match in lint(template, config=ManualArgs(regions=["eu-central-1"]))] == []


def test_cloudformation_says_the_same_policies() -> None:
    template = yaml.safe_load(render(OPEN, PolicyFormat.CLOUDFORMATION, AccessMode.ROLE))
    role = template["Resources"]["Role"]["Properties"]
    assert role["AssumeRolePolicyDocument"] == WHAT.trust_policy()
    permissions = json.dumps(role["Policies"][0]["PolicyDocument"])
    filled = json.loads(permissions.replace('{"Ref": "KmsKeyArn"}', f'"{KEY}"'))
    assert filled == policies.role_permissions(str(KEY), WHAT.tenant_id)
    key = yaml.safe_load(render(WHAT, PolicyFormat.CLOUDFORMATION, AccessMode.KEY_POLICY))
    statements = key["Resources"]["Key"]["Properties"]["KeyPolicy"]["Statement"]
    assert statements[1:] == documents(WHAT, AccessMode.KEY_POLICY)["key_policy_statements"]


terraform = pytest.mark.skipif(shutil.which("terraform") is None, reason="there is no terraform here")


@terraform
@pytest.mark.parametrize("mode", AccessMode)
@pytest.mark.parametrize("what", [WHAT, OPEN], ids=["closed", "open"])
def test_terraform_parses_and_is_formatted(tmp_path: Path, what: Provisioning, mode: AccessMode) -> None:
    (tmp_path / "byok.tf").write_text(render(what, PolicyFormat.TERRAFORM, mode))
    formatted = run_terraform(tmp_path, "fmt", "-check", "-diff")
    assert formatted.returncode == 0, formatted.stdout + formatted.stderr


@terraform
@pytest.mark.parametrize("mode", AccessMode)
def test_terraform_says_the_same_policies(tmp_path: Path, mode: AccessMode) -> None:
    """Terraform itself evaluates variables and locals; the resources need AWS's provider, and are cut off."""
    text = render(OPEN, PolicyFormat.TERRAFORM, mode)
    local = "byok_permissions" if mode is AccessMode.ROLE else "byok_key_policy"
    outputs = [f'output "{name}" {{\n  value = jsondecode(local.{name})\n}}\n' for name in (local,)]
    (tmp_path / "byok.tf").write_text("".join([text[: text.index('\nresource "')], *outputs]))
    variables = {"kms_key_arn": str(KEY)} if mode is AccessMode.ROLE else {"account_id": KEY.account}
    (tmp_path / "terraform.tfvars.json").write_text(json.dumps(variables))
    for command in (["init", "-backend=false"], ["validate"], ["apply", "-auto-approve"]):
        ended = run_terraform(tmp_path, *command)
        assert ended.returncode == 0, ended.stdout + ended.stderr
    seen = json.loads(run_terraform(tmp_path, "output", "-json").stdout)[local]["value"]
    if mode is AccessMode.ROLE:
        assert seen == policies.role_permissions(str(KEY), WHAT.tenant_id)
    else:
        assert seen["Statement"][1:] == documents(WHAT, mode)["key_policy_statements"]


def run_terraform(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["terraform", *arguments, *([] if arguments[0] == "output" else ["-no-color"])],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("mode", AccessMode)
@pytest.mark.parametrize("what", [WHAT, OPEN], ids=["closed", "open"])
def test_the_script_is_bash(what: Provisioning, mode: AccessMode) -> None:
    script = render(what, PolicyFormat.CLI, mode)
    parsed = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert (parsed.returncode, parsed.stderr) == (0, "")


@pytest.mark.parametrize("form", PolicyFormat)
def test_every_form_says_what_a_key_policy_without_iam_needs(form: PolicyFormat) -> None:
    """As JSON that can be pasted; comment signs and how a form names the role's ARN aside."""
    text = render(WHAT, form, AccessMode.ROLE)
    for placeholder in ("${aws_iam_role.byok.arn}", "ROLE_ARN"):
        text = text.replace(f'"AWS": "{placeholder}"', '"AWS": "arn:aws:iam::222222222222:role/byok-acme"')
    wanted = documents(WHAT, AccessMode.ROLE)["key_policy_statements_without_iam"]
    assert "".join(json.dumps(wanted).split()) in "".join(text.replace("\n#", "\n").split())


@pytest.mark.parametrize("mode", AccessMode)
@pytest.mark.parametrize("what", [WHAT, OPEN], ids=["closed", "open"])
def test_the_script_names_the_keys_region_in_every_call(what: Provisioning, mode: AccessMode) -> None:
    """Whatever region the shell of the administrator is set to."""
    calls = re.findall(r"aws (?:iam|kms) .*", render(what, PolicyFormat.CLI, mode))
    assert len(calls) == 2
    assert all('--region "$region"' in call for call in calls)
