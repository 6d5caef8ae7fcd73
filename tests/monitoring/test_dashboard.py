"""Grafana's dashboard and what brings it up: structure, coverage, and every expression through promtool."""

import json
import re
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml

from byok.core.metric_list import METRICS, Kind
from byok.settings import Settings
from deploy.monitoring.rules import EXPORTER_JOB, WORKERS_JOB
from tests.debian import needs

ROOT = Path(__file__).parents[2]
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy" / "grafana" / "byok.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
DRAWN = [panel for panel in PANELS if panel["type"] != "row"]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
PROMETHEUS = ROOT / "deploy" / "prometheus"

needs_promtool = needs("promtool", "prometheus")


def expressions() -> list[str]:
    return [target["expr"] for panel in DRAWN for target in panel["targets"]]


def test_every_metric_is_in_some_panel() -> None:
    shown = set(re.findall(r"\bbyok_\w+", " ".join(expressions())))
    wanted = {f"{one.name}_bucket" if one.kind is Kind.HISTOGRAM else one.exposed_name for one in METRICS}
    assert shown == wanted


def test_panels_say_what_they_show_and_in_which_unit() -> None:
    for panel in DRAWN:
        assert panel["title"]
        assert panel["description"].endswith((".", ".)", ")")), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in {"none", "s", "d", "cps", "reqps", "percentunit"}
        assert panel["targets"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)


def test_durations_are_shown_as_such() -> None:
    for panel in DRAWN:
        named = set(re.findall(r"\bbyok_\w+", " ".join(target["expr"] for target in panel["targets"])))
        divided = any("/" in target["expr"] for target in panel["targets"])
        if not divided and all("_seconds" in name for name in named) and named:
            assert panel["fieldConfig"]["defaults"]["unit"] == "s", panel["title"]


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    places = [panel["gridPos"] for panel in PANELS]
    assert all(at["x"] >= 0 and at["w"] > 0 and at["x"] + at["w"] <= 24 for at in places)
    for one, other in combinations(places, 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)


def test_which_prometheus_is_asked_is_a_variable() -> None:
    (variable,) = DASHBOARD["templating"]["list"]
    assert (variable["type"], variable["query"]) == ("datasource", "prometheus")
    asked = {"type": "prometheus", "uid": f"${{{variable['name']}}}"}
    for panel in DRAWN:
        assert panel["datasource"] == asked
        assert all(target["datasource"] == asked for target in panel["targets"])


def test_grafana_finds_its_fields() -> None:
    """What the classic model of Grafana 11 and later asks for."""
    assert DASHBOARD["schemaVersion"] == 39
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", DASHBOARD["uid"])
    assert set(DASHBOARD["time"]) == {"from", "to"}
    for panel in PANELS:
        assert panel["type"] in {
            "row",
            "stat",
            "timeseries",
            "table",
        }  # the older graph is gone from Grafana 12
        assert set(panel["gridPos"]) == {"x", "y", "w", "h"}


@needs_promtool
def test_every_expression_is_promql(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "1m")}
        for number, expression in enumerate(expressions())
    ]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout


@needs_promtool
def test_promtool_accepts_the_configuration() -> None:
    command = ["promtool", "check", "config", str(PROMETHEUS / "prometheus.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_asks_what_compose_starts_where_it_listens() -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    assert set(jobs) == {EXPORTER_JOB, WORKERS_JOB}
    services = COMPOSE["services"]
    (exporter,) = jobs[EXPORTER_JOB]["static_configs"]
    assert exporter["targets"] == [f"exporter:{Settings.model_fields['exporter_port'].default}"]
    assert "BYOK_EXPORTER_PORT" not in services["exporter"]["environment"]
    (workers,) = jobs[WORKERS_JOB]["dns_sd_configs"]
    assert workers["names"] == ["worker"]
    assert str(workers["port"]) == services["worker"]["environment"]["BYOK_METRICS_PORT"]
    assert config["rule_files"] == ["byok-alerts.yml"]


def test_grafana_is_given_the_dashboard_and_its_prometheus() -> None:
    folder = ROOT / "deploy" / "grafana" / "provisioning"
    (provider,) = yaml.safe_load((folder / "dashboards" / "byok.yml").read_text())["providers"]
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())["datasources"]
    mounts = dict(one.split(":")[:2] for one in COMPOSE["services"]["grafana"]["volumes"])
    assert mounts["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"
    assert mounts["./deploy/grafana/byok.json"] == f"{provider['options']['path']}/byok.json"
    assert source["url"] == "http://prometheus:9090"
    assert (source["type"], source["access"]) == ("prometheus", "proxy")
