"""Chromium of the system before a real fleet with `byok flower`."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from byok.cli import processes
from byok.embedded.stack import Stack
from byok.embedded.supervisor import Child
from byok.settings import load_settings, use_environment
from byok.wiring import Runtime, build
from tests.conftest import empty
from tests.debian import is_missing

ARTEFACTS = Path(__file__).parents[2] / "artefacts"
# No probe: what fails here fails by the task that a test looks at.
PACE = {"BYOK_DISPATCH_INTERVAL_SECONDS": "1", "BYOK_PROBE_INTERVAL_SECONDS": "3600"}
FLAGS = (
    "--headless",
    "--no-sandbox",  # root has none, and the pages are our own
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",  # a container's is often too small
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,900",
)


@dataclass(frozen=True)
class Watch:
    """A fleet, its Flower, and who may look at it."""

    stack: Stack
    runtime: Runtime
    worker: Child
    url: str
    user: str
    password: str

    def signing_in(self, path: str) -> str:
        """An address that holds name and password, as they are typed into the browser's own form."""
        return re.sub("^http://", f"http://{self.user}:{self.password}@", self.url) + path


@pytest.fixture(scope="session")
def programs() -> tuple[str, str]:
    """The browser and its driver, looked for before anything is started."""
    if is_missing("chromium") or is_missing("chromedriver"):
        pytest.skip("no browser here: apt-get install chromium chromium-driver")
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    assert browser is not None
    assert driver is not None
    return browser, driver


@pytest.fixture(scope="module")
def watch(programs: tuple[str, str], stack: Stack, engine: sa.Engine) -> Iterator[Watch]:
    empty(engine)
    environment = stack.environment | PACE
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        use_environment(environment)
        runtime = build(load_settings())
        flower, url = processes.start_flower(stack, environment)
        processes.wait_for_flower(stack, flower)
        worker = processes.start_worker(stack, environment)
        beat = processes.start_beat(stack, environment)
        processes.wait_for_worker(stack, worker)
        yield Watch(stack, runtime, worker, url, "byok", stack.home.secret("flower"))
        stack.supervisor.stop([worker, beat, flower])
        runtime.close()


@pytest.fixture
def browser(programs: tuple[str, str], tmp_path: Path) -> Iterator[Chrome]:
    """A browser that has seen nothing yet."""
    options = ChromeOptions()
    options.binary_location, driver = programs
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    # The driver's path is given, so that Selenium looks for none to download.
    service = Service(driver, env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)})
    browser = Chrome(options, service)
    browser.set_page_load_timeout(30)
    yield browser
    browser.quit()
