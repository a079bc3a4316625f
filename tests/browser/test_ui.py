"""The Dagster UI as a person uses it: materialise the demo, wait for green, read the pages. `make browser` runs it.

Pictures of every page go into `var/screenshots/`.
"""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

ROOT = Path(__file__).parents[2]
SCREENSHOTS = ROOT / "var" / "screenshots"
RECIPE = "demo"
MINUTE = 60_000
"""In milliseconds, as playwright counts."""


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`stella ui` on a fresh workspace; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    workspace = tmp_path_factory.mktemp("workspace")
    log = (workspace / "ui.log").open("w")
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("stella")), "ui", "--port", str(port)],
        cwd=ROOT,
        env={**os.environ, "STELLA_HOME": str(workspace)},
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 120
    while not _answers(address):
        assert process.poll() is None, (workspace / "ui.log").read_text()
        assert time.monotonic() < deadline, (workspace / "ui.log").read_text()
        time.sleep(0.5)
    yield address
    family = [process, *psutil.Process(process.pid).children(recursive=True)]
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()  # killing it does no harm: see the tests of runs that are killed
    process.wait()
    log.close()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/server_info", timeout=5) as answer:  # noqa: S310 (our own)
            return answer.status == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium of the system, else playwright's own."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("google-chrome"),
            args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A window of its own; each element has a minute to appear."""
    page = browser.new_page(viewport={"width": 1600, "height": 1100})
    page.set_default_timeout(MINUTE)
    yield page
    page.close()


def shoot(page: Page, name: str) -> None:
    """Keep a picture of the page."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


def test_the_demo_is_materialised_and_all_assets_are_green(ui: str, page: Page):
    page.goto(f"{ui}/locations/stella_assets.pipelines.definitions/jobs/distil_{RECIPE}")
    button = page.get_by_role("button", name=re.compile("Materialize all"))
    button.wait_for()
    shoot(page, "1_job")
    button.click()
    page.get_by_text(re.compile("Launched run")).wait_for()
    page.goto(f"{ui}/runs")
    success = page.get_by_text("Success", exact=True)
    failure = page.get_by_text("Failure", exact=True)
    expect(success.or_(failure).first).to_be_visible(timeout=25 * MINUTE)
    shoot(page, "2_runs")
    assert failure.count() == 0


def test_the_release_is_promoted_from_the_launchpad(ui: str, page: Page):
    page.goto(f"{ui}/locations/stella_assets.pipelines.definitions/jobs/promote_{RECIPE}/playground")
    launch = page.get_by_role("button", name="Launch Run")
    expect(launch).to_be_enabled()
    shoot(page, "3_launchpad")
    launch.click()
    expect(page.get_by_text("Success", exact=True).first).to_be_visible(timeout=3 * MINUTE)
    page.goto(f"{ui}/assets/{RECIPE}/release?view=events")
    expect(page.get_by_text("mean_score").first).to_be_visible()
    shoot(page, "4_promoted")


@pytest.mark.parametrize(
    ("name", "path", "expected"),
    [
        ("5_groups", "asset-groups", f"{RECIPE}_1_corpus"),
        ("6_report", f"assets/{RECIPE}/evaluation_report?view=overview", "score_by_dimension"),
        ("7_corpus", f"assets/{RECIPE}/corpus?view=overview", "funnel"),
        ("8_stage", f"assets/{RECIPE}/stage_2?view=overview", "made because"),
        ("9_checks", f"assets/{RECIPE}/stage_2?view=checks", "dev_loss_fell"),
        ("10_gate", f"assets/{RECIPE}/release_gate?view=checks&checkDetail=retention", "retention"),
    ],
)
def test_pages_show_what_was_made(name: str, path: str, expected: str, ui: str, page: Page):
    page.goto(f"{ui}/{path}")
    expect(page.get_by_text(expected, exact=False).first).to_be_visible()
    page.wait_for_load_state("networkidle")
    shoot(page, name)
    plots = page.get_by_role("button", name="Plots")
    if plots.count():
        plots.click()
        page.locator("canvas").first.wait_for()
        shoot(page, f"{name}_plots")
    assert page.get_by_text("Something went wrong").count() == 0
