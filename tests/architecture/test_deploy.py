"""What ships beside the code: compose file, Procfile, image, CI script."""

import importlib.util
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from workers.app import WORKER_SETTINGS

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name for name, service in SERVICES.items() if "build" in service}


def test_the_services_are_those_that_the_design_names() -> None:
    assert set(SERVICES) == {
        "postgres", "broker", "cache", "migrate", "worker", "beat", "flower", "exporter", "simulator",
    }  # fmt: skip
    assert SERVICES["simulator"]["profiles"] == ["dev"]


@pytest.mark.parametrize("name", sorted(set(SERVICES) - OURS))
def test_foreign_images_are_pinned_to_a_version(name: str) -> None:
    assert re.fullmatch(r"[\w/.-]+:\d+\.\d+[\w.-]*", SERVICES[name]["image"])


@pytest.mark.parametrize("name", sorted(set(SERVICES) - {"migrate"}))
def test_every_lasting_service_has_a_healthcheck(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"]


@pytest.mark.parametrize("name", sorted(OURS))
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
    assert "FLOWER_BASIC_AUTH:?" in SERVICES["flower"]["environment"]["FLOWER_BASIC_AUTH"]
    assert all(port.startswith("127.0.0.1:") for port in SERVICES["flower"]["ports"])
    assert "FLOWER_BASIC_AUTH:?" in (ROOT / "Procfile").read_text()


def test_the_exporter_is_published_on_loopback_only() -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES["exporter"]["ports"])


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
        case ["byok", "db", "upgrade"] | ["byok", "exporter"]:
            pass
        case ["celery", "-A", "workers", "worker" | "beat" | "flower", *_]:
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
    command = ["docker", "compose", "--profile", "dev", "config", "--quiet"]
    subprocess.run(command, cwd=ROOT, env=given | {"PATH": "/usr/bin:/usr/local/bin"}, check=True)


def test_ci_runs_what_a_developer_runs() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert "make check" in script
    assert "make test" in script
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100
