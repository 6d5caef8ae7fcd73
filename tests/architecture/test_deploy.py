"""What ships beside the code: compose file, Procfile, image, CI script."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from byok import health
from byok.settings import FlowerSettings
from workers.app import WORKER_SETTINGS

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name for name, service in SERVICES.items() if "build" in service}


def test_the_health_checks_of_worker_and_beat_ask_whether_they_live() -> None:
    """Not whether they are ready: who restarts what is not, restarts all workers when a server is away."""
    assert "BYOK_HEALTH_FOLDER=/tmp" in (ROOT / "Dockerfile").read_text()
    for role in health.ROLES:
        assert SERVICES[role]["healthcheck"]["test"] == ["CMD", "byok-health", "live", role]
        assert SERVICES[role]["tmpfs"] == ["/tmp"]  # noqa: S108  # the container's own
    assert '\nbyok-health = "byok.health:main"\n' in (ROOT / "pyproject.toml").read_text()


def test_the_services_are_those_that_the_design_names() -> None:
    assert set(SERVICES) == {
        "postgres", "broker", "cache", "migrate", "worker", "beat", "flower", "simulator",
        "exporter", "prometheus", "grafana",
    }  # fmt: skip
    assert SERVICES["simulator"]["profiles"] == ["dev"]
    for name in ("prometheus", "grafana"):
        assert SERVICES[name]["profiles"] == ["monitoring"]


@pytest.mark.parametrize("name", sorted(set(SERVICES) - OURS))
def test_foreign_images_are_pinned_to_a_version(name: str) -> None:
    assert re.fullmatch(r"[\w/.-]+:v?\d+\.\d+[\w.-]*", SERVICES[name]["image"])


@pytest.mark.parametrize("name", sorted(set(SERVICES) - {"migrate"}))
def test_every_lasting_service_has_a_healthcheck(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"]


@pytest.mark.parametrize("name", sorted(OURS | {"prometheus", "grafana"}))
def test_our_containers_have_no_more_rights_than_they_need(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "USER 10001" in (ROOT / "Dockerfile").read_text()


def test_secrets_are_asked_for_and_never_written_down() -> None:
    for service in SERVICES.values():
        for variable, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD$|_AUTH$|MASTER_KEYS$|_URL$", variable):
                assert "${" in str(value), variable


def test_the_worker_gets_longer_to_stop_than_it_asks_for() -> None:
    grace_seconds = int(SERVICES["worker"]["stop_grace_period"].removesuffix("s"))
    assert grace_seconds > WORKER_SETTINGS["worker_soft_shutdown_timeout"]


def test_flower_never_starts_open_and_is_published_on_loopback_only() -> None:
    flower = SERVICES["flower"]
    assert flower["command"] == ["byok", "flower"]
    assert "FLOWER_BASIC_AUTH:?" in flower["environment"]["FLOWER_BASIC_AUTH"]
    assert all(port.startswith("127.0.0.1:") for port in flower["ports"])
    assert "flower: byok flower\n" in (ROOT / "Procfile").read_text()


def test_flower_gets_the_broker_and_no_other_secret() -> None:
    environment = SERVICES["flower"]["environment"]
    told = {name for name in environment if not name.startswith(("FLOWER_", "BYOK_FLOWER_"))}
    assert told == {"BYOK_ENV", "BYOK_BROKER_URL"}
    ours = {name for name in environment if name.startswith("BYOK_")}
    assert ours <= {f"BYOK_{name.upper()}" for name in FlowerSettings.model_fields}


def test_all_that_is_published_is_published_on_loopback_only() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"flower", "exporter", "prometheus", "grafana"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)


def test_grafana_does_not_start_with_its_default_password() -> None:
    """Nor is its password asked for where it is not started, as compose does with ``:?`` of any service."""
    grafana = SERVICES["grafana"]
    shell, option, script = grafana["entrypoint"]
    script = script.replace("$$", "$").replace("exec /run.sh", "echo started")
    for password, starts in (("", False), ("x", True)):
        environment = {"PATH": os.defpath, "GF_SECURITY_ADMIN_PASSWORD": password}
        ran = subprocess.run(
            [shell, option, script], env=environment, capture_output=True, text=True, check=False
        )
        assert (ran.stdout == "started\n") is starts
        assert (ran.returncode == 0) is starts
    assert grafana["environment"]["GF_SECURITY_ADMIN_PASSWORD"] == "${GRAFANA_PASSWORD:-}"
    assert "\nGRAFANA_PASSWORD=\n" in (ROOT / "deploy" / "example.env").read_text()


def test_the_broker_never_evicts_and_the_cache_never_persists() -> None:
    assert "--maxmemory-policy noeviction" in SERVICES["broker"]["command"]
    assert "--maxmemory-policy volatile-ttl" in SERVICES["cache"]["command"]
    assert "--appendonly no" in SERVICES["cache"]["command"]


def commands() -> list[list[str]]:
    found = [service["command"] for name, service in SERVICES.items() if name in OURS]
    for line in (ROOT / "Procfile").read_text().splitlines():
        words = shlex.split(line.partition(": ")[2])
        found.append(shlex.split(words[2]) if words[0] == "sh" else words)
    return found


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_names_what_exists(command: list[str]) -> None:
    match command:
        case ["byok", "db", "upgrade"] | ["byok", "flower" | "exporter"]:
            pass
        case ["celery", "-A", "workers", "worker" | "beat", *_]:
            assert importlib.util.find_spec("workers.celery") is not None
        case ["python", "-m", module, *_]:
            assert importlib.util.find_spec(module) is not None
        case _:
            pytest.fail(f"unknown command {command}")


def test_the_image_installs_by_hash_and_pins_its_base() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert "--require-hashes -r requirements.lock" in text
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert all(re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+|build|runtime", base) for base in bases)


def test_compose_itself_accepts_the_file() -> None:
    if shutil.which("docker") is None:
        pytest.skip("there is no docker client")
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode != 0:
        pytest.skip("the docker client has no compose plugin")
    given = dict.fromkeys(
        ("POSTGRES_PASSWORD", "BROKER_PASSWORD", "CACHE_PASSWORD", "FLOWER_BASIC_AUTH", "BYOK_MASTER_KEYS"),
        "x",
    )
    command = ["docker", "compose", "--profile", "dev", "--profile", "monitoring", "config", "--quiet"]
    subprocess.run(command, cwd=ROOT, env=given | {"PATH": "/usr/bin:/usr/local/bin"}, check=True)


def test_ci_runs_what_a_developer_runs() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert "make check" in script
    assert "make test" in script
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100
