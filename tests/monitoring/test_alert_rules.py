"""Prometheus's rules: checked and run over made-up series by promtool."""

import re
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from byok.cli.main import app
from byok.core.metric_list import METRICS
from deploy import generate
from deploy.monitoring.alerts import alerts
from deploy.monitoring.rules import Alert, Pace, Severity
from tests.debian import needs
from tests.monitoring.customer_cases import CUSTOMER_CASES
from tests.monitoring.process_cases import PROCESS_CASES
from tests.monitoring.rule_cases import Case

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "byok-alerts.yml"
ALERTS = alerts(Pace())
CASES = CUSTOMER_CASES + PROCESS_CASES

needs_promtool = needs("promtool", "prometheus")


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", sorted(generate.files()))
def test_what_is_generated_is_fresh(name: str) -> None:
    assert (ROOT / name).read_text() == generate.files()[name]


@needs_promtool
def test_promtool_accepts_the_rules() -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)


@needs_promtool
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.alert}: {case.what}")
def test_alert_fires_on_these_series_and_not_on_those(case: Case, tmp_path: Path) -> None:
    annotations = {
        (one.name, one.severity.value): {"summary": one.summary, "runbook": one.runbook} for one in ALERTS
    }
    tests = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "30s" if case.step_minutes == 1 else f"{case.step_minutes}m",
        "tests": [case.group(annotations)],
    }
    file = tmp_path / "case.yml"
    file.write_text(yaml.safe_dump(tests, sort_keys=False))
    promtool("test", "rules", file)


def test_each_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    known = {(one.name, one.severity.value) for one in ALERTS}
    firing = {(case.alert, one.severity) for case in CASES for fired in case.at.values() for one in fired}
    quiet = {case.alert for case in CASES if any(not fired for fired in case.at.values())}
    assert firing == known
    assert quiet == {name for name, _ in known}


def test_names_and_severities_are_unique() -> None:
    assert len({(one.name, one.severity) for one in ALERTS}) == len(ALERTS)


def test_rules_name_metrics_of_the_list_and_labels_that_they_have() -> None:
    labels = {metric.exposed_name: set(metric.labels) for metric in METRICS}
    for one in ALERTS:
        for name, matchers in re.findall(r"\b(byok_\w+)(?:\{([^}]*)\})?", one.expression):
            assert name in labels, f"{one.name}: {name}"
            assert set(re.findall(r"(\w+)(?:=|!)", matchers)) <= labels[name], f"{one.name}: {name}"


def test_no_metric_takes_a_label_of_prometheus() -> None:
    """Prometheus would show it as exported_job."""
    assert {label for metric in METRICS for label in metric.labels} & {"job", "instance"} == set()


def test_the_runbook_has_an_entry_for_every_alert_and_no_other() -> None:
    headings = re.findall(r"^### (Byok\w+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)
    assert headings == list(dict.fromkeys(one.name for one in ALERTS))
    for one in ALERTS:
        page, _, anchor = one.runbook.partition("#")
        assert (ROOT / page).name == "runbook.md"
        assert anchor in {heading.lower() for heading in headings}


def test_the_runbook_names_commands_that_exist() -> None:
    alerts_part = (ROOT / "docs" / "runbook.md").read_text().split("\n## Alerts\n")[1]
    named = re.findall(r"`byok ([a-z][^`]*)`", alerts_part)
    assert len(named) > 20
    for words in named:
        command: Any = typer.main.get_command(app)
        for word in words.split():
            children: dict[str, Any] = getattr(command, "commands", {})
            if not children:
                break
            assert word in children, words
            command = children[word]


@pytest.mark.parametrize("one", ALERTS, ids=lambda one: f"{one.name}-{one.severity}")
def test_a_page_waits_minutes_at_most_and_every_alert_says_whom_it_is_about(one: Alert) -> None:
    if one.severity is Severity.PAGE:
        assert one.lasting <= timedelta(minutes=10)
    for label in re.findall(r"^(?:max|min|sum) by \((\w+)", one.expression):
        assert f"$labels.{label}" in one.description
    assert one.summary.endswith(".")


def test_a_pace_shortens_all_but_no_window_below_its_shortest() -> None:
    hurry = Pace(60, shortest=timedelta(seconds=5))
    assert hurry.window(timedelta(hours=1)) == "1m"
    assert hurry.window(timedelta(minutes=1)) == "5s"
    assert hurry.wait(timedelta(minutes=1)) == "1s"
    assert hurry.wait(timedelta(seconds=30)) == "500ms"
    assert hurry.wait(timedelta(0)) == "0s"
    assert hurry.seconds(timedelta(days=2)) == 2880
