"""NNI's web UI in a real browser, after an experiment and after one that could not start.

Screenshots go to the folder named by the environment variable HYPERFD_ARTEFACTS, by default `artefacts/`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support import ROOT
from support.harness import Experiment

pytestmark = pytest.mark.nni

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--window-size=1500,1500",
]  # fmt: skip


class Browser:
    """Chromium on the web UI of one experiment."""

    def __init__(self, driver: Any, port: int, artefacts: Path) -> None:
        self.driver, self._url, self._artefacts = driver, f"http://localhost:{port}", artefacts

    def open(self, page: str, shows: str) -> None:
        """Open a page and wait for its heading and a text on it: a React error leaves the page blank."""
        self.driver.get(f"{self._url}/{page}")
        self.wait(shows)

    def wait(self, *texts: str) -> str:
        """The page's text, as soon as it shows all these."""
        from selenium.common.exceptions import TimeoutException
        from selenium.webdriver.support.ui import WebDriverWait

        try:
            WebDriverWait(self.driver, 30).until(lambda _: all(text in self.text() for text in texts))
        except TimeoutException:
            self.screenshot("failed")
            raise AssertionError(f"the page does not show {texts} but\n{self.text()!r}") from None
        return self.text()

    def text(self) -> str:
        return self.driver.execute_script("return document.body.innerText")

    def click(self, tag: str, text: str) -> None:
        self.driver.find_element("xpath", f"//{tag}[normalize-space(.)='{text}']").click()

    def screenshot(self, name: str) -> None:
        self.driver.save_screenshot(str(self._artefacts / f"web_ui_{name}.png"))

    def table(self) -> list[dict[str, str]]:
        """The rows of the trial table, column title -> text."""
        headers = self.driver.find_elements("css selector", "[role=columnheader]")
        titles = [header.text.strip() for header in headers]
        rows = self.driver.find_elements("css selector", ".ms-DetailsRow")
        cells = [[cell.text.strip() for cell in row.find_elements("css selector", "[role=gridcell]")] for row in rows]
        assert cells and all(len(row) == len(titles) for row in cells), (titles, cells)
        return [dict(zip(titles, row, strict=True)) for row in cells]

    def errors(self) -> list[str]:
        """What the page's own code has complained of (fonts come from a server that cannot be reached here)."""
        log = self.driver.get_log("browser")
        return [e["message"] for e in log if e["level"] == "SEVERE" and e["source"] != "network"]


@pytest.fixture(scope="module")
def browse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Experiment], Browser]]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("there is no chromium with chromedriver on this machine")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    artefacts = Path(os.environ.get("HYPERFD_ARTEFACTS") or ROOT / "artefacts")
    artefacts.mkdir(parents=True, exist_ok=True)
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield lambda experiment: Browser(browser, experiment.port, artefacts)
    finally:
        browser.quit()


@pytest.fixture
def page(browse: Callable[[Experiment], Browser], two_data_sets: list[Experiment]) -> Browser:
    return browse(two_data_sets[1])


def test_the_overview_shows_the_end_and_the_best(page: Browser, two_data_sets: list[Experiment]) -> None:
    page.open("oview", shows="Top trials")
    best = max(pick.performance for pick in two_data_sets[1].picks())
    page.wait("DONE", f"{best:.6f}", "nni_hyperfd.HyperFDAdvisor", "Succeeded")
    page.screenshot("overview")
    assert page.errors() == []


def test_the_trial_table_tells_the_phases_apart(page: Browser, two_data_sets: list[Experiment]) -> None:
    page.open("detail", shows="Trial jobs")
    page.click("button", "Add/Remove columns")
    page.wait("Customize columns")
    for column in ("x (space)", "kind (space)", "phase (space)"):
        page.click("span", column)
    page.screenshot("columns")
    page.click("button", "Save")
    page.wait("phase (space)")
    page.screenshot("trials")
    rows = page.table()
    assert [row["phase (space)"] for row in rows] == ["extract", "", "", "", "learn"]
    assert rows[0]["Default metric"] == "0.25 (FINAL)"
    shown = {row["ID"].split()[0]: row for row in rows}
    for job in two_data_sets[1].trial_jobs()[1:-1]:
        row = shown[job["trialJobId"]]
        assert row["Default metric"] == f"{job['final']['default']} (FINAL)"
        assert (row["x (space)"], row["kind (space)"]) == tuple(map(str, job["record"]["parameters"].values()))
    assert page.errors() == []


@pytest.mark.parametrize("tab", ["Hyper-parameter", "Duration", "Intermediate result"])
def test_every_chart_of_the_trials_is_drawn(page: Browser, tab: str) -> None:
    page.open("detail", shows="Trial jobs")
    page.driver.find_element("xpath", f"//button[contains(., '{tab}')]").click()
    page.wait("Trial jobs")
    assert page.driver.find_elements("css selector", "canvas, svg"), "no chart"
    page.screenshot(tab.lower().replace(" ", "_"))
    assert page.errors() == []


def test_the_reason_of_a_failed_start_is_on_the_page(
    browse: Callable[[Experiment], Browser], experiments: Callable[..., Experiment]
) -> None:
    failed = experiments({"budget": 0}).create()
    failed.wait_for("status ERROR", lambda: failed.status() == "ERROR")
    page = browse(failed)
    page.open("oview", shows="ERROR")
    page.wait("budget: 0 is no whole number from 1 up")
    page.screenshot("failed_start")
    assert page.errors() == []
