"""The docs say what the code does: generated pages are fresh, and nothing is left out."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from byok import queue
from byok.core.metric_list import METRICS
from byok.errors import ByokError
from byok.settings import Settings
from tests.unit.test_errors import tree
from workers.app import WORKER_SETTINGS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *DOCS.rglob("*.md")]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_settings_and_cli_pages_are_fresh(generate: ModuleType) -> None:
    assert (DOCS / "settings.md").read_text() == generate.settings_page()
    assert (DOCS / "cli.md").read_text() == generate.cli_page()


def test_what_is_generated_of_other_pages_is_fresh(generate: ModuleType) -> None:
    for name, fill in generate.FILLED.items():
        page = (DOCS / name).read_text()
        assert page == fill(page), name


def test_the_generated_parts_are_there() -> None:
    tables = re.findall(r"^<!-- [\w-]+ -->\n\| .*\n\| ---", (DOCS / "capacity.md").read_text(), re.MULTILINE)
    assert len(tables) == 6
    assert (DOCS / "concepts.md").read_text().count("stateDiagram") == 3
    assert (DOCS / "migration.md").read_text().count("stateDiagram") == 1
    shown = re.findall(r"^\| `(byok_\w+)` \| (\w+) \|", (DOCS / "metrics.md").read_text(), re.MULTILINE)
    assert sorted(shown) == sorted((one.exposed_name, one.kind.value) for one in METRICS)
    tables = re.findall(r"^<!-- [\w-]+ -->\n\| .*\n\| ---", (DOCS / "watch.md").read_text(), re.MULTILINE)
    assert len(tables) == 3


def test_every_setting_says_what_it_is_for() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_the_runbook_has_an_entry_for_every_error_and_no_other() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d+) \|", (DOCS / "runbook.md").read_text(), re.MULTILINE)
    wanted: dict[str, type[ByokError]] = {kind.code: kind for kind in tree()}
    assert {code: int(exit_code) for code, exit_code in rows} == {
        code: kind.exit_code for code, kind in wanted.items()
    }


def test_every_task_queue_and_setting_of_celery_is_documented() -> None:
    text = (DOCS / "celery.md").read_text()
    named = {value for name, value in vars(queue).items() if name.isupper() and isinstance(value, str)}
    assert {name for name in named if f"`{name}`" not in text} == set()
    quiet = {"worker_hijack_root_logger", "worker_redirect_stdouts", "broker_connection_retry_on_startup"}
    settings = set(WORKER_SETTINGS) - quiet - {"worker_cancel_long_running_tasks_on_connection_loss"}
    assert {name for name in settings if f"`{name}`" not in text} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tests_that_a_page_rests_on_are_there(page: Path) -> None:
    for name, target in re.findall(r"\[`(test_\w+)`\]\(([^)]+)\)", page.read_text()):
        assert f"def {name}(" in (page.parent / target).read_text(), f"{target}::{name}"


def test_each_attacker_of_the_threat_model_is_held_against_a_test() -> None:
    text = (DOCS / "threat-model.md").read_text()
    rows = [row for row in text.splitlines() if row.startswith("| ") and not row.startswith("| does not get")]
    assert len(rows) > 30
    assert [row for row in rows if "](../tests/" not in row] == []


def test_the_readme_names_places_that_exist() -> None:
    for place in re.findall(r"\| `((?:byok|workers)/[^`]*)`", (ROOT / "README.md").read_text()):
        assert (ROOT / place).exists(), place
