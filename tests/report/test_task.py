"""The page of a real experiment: complete, self-contained, readable in a browser, honest where data are missing."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from nni_hyperfd import Platform
from nni_hyperfd.files import FolderError
from nni_hyperfd.report import of_platform
from nni_hyperfd.report import task as of_task
from nni_hyperfd.report.page import MissingError, panel
from support import ROOT
from support.finished import ID, Finished
from support.lab import Lab

TITLES = (
    "Before and after",
    "Precision and recall",
    "Which faces are found",
    "Trials and time",
    "Configurations",
    "Parallel coordinates",
    "Importance of the parameters",
    "Nearest data sets",
    "What left this machine",
    "Time and cost",
)


@pytest.fixture(scope="module")
def page(finished: Finished, tmp_path_factory) -> Path:
    return of_task.write(finished.folder, tmp_path_factory.mktemp("report") / "report.html", finished.state, price=3.6)


def panels_of(page: Path) -> dict[str, str]:
    parts = re.split(r"<section[^>]*>\s*<h2>", page.read_text())[1:]
    return {title: content for title, _, content in (part.partition("</h2>") for part in parts)}


def missing_in(page: Path) -> set[str]:
    return {title for title, content in panels_of(page).items() if 'class="missing"' in content}


def test_every_panel_has_its_data(page: Path, finished: Finished) -> None:
    panels = panels_of(page)
    assert tuple(panels) == TITLES and missing_in(page) == set()
    task = Platform(finished.state).task(finished.task)
    for performance in task.results.performance:
        assert f"<td>{performance:.4f}</td>" in panels["Configurations"]
    assert panels["Before and after"].count("data:image/jpeg") == 2 * 8
    assert panels["Precision and recall"].count("<svg") == 2
    assert "this one (1)" in panels["Nearest data sets"]
    assert "64 numbers" in panels["What left this machine"]
    assert "No price" not in panels["Time and cost"]


def test_worst_misses_come_first(page: Path) -> None:
    missed = re.findall(r"<span>after: \d+ found, (\d+) missed", panels_of(page)["Before and after"])
    assert missed == sorted(missed, key=int, reverse=True)


def test_the_page_needs_nothing_but_itself(page: Path, finished: Finished) -> None:
    text = page.read_text()
    sources = re.findall(r"""(?:src|href|url)[=(]["']?([^"')\s]+)""", text)
    assert sources and all(source.startswith(("data:", "#")) for source in sources)
    assert "<script" not in text and str(finished.data) not in text
    assert page.stat().st_size < 2 * 2**20


def test_bytes_that_trials_have_sent_are_counted(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    with closing(sqlite3.connect(tmp_path / "db" / "nni.sqlite")) as connection:
        connection.execute("CREATE TABLE MetricData (trialJobId text, type text, data text)")
        rows = [("a", "PERIODICAL", "0.123"), ("b", "PERIODICAL", "0.1"), ("a", "FINAL", "1.0")]
        connection.executemany("INSERT INTO MetricData VALUES (?, ?, ?)", rows)
        connection.commit()
    table = of_platform._sent(tmp_path)
    assert not isinstance(table, str)
    assert sorted(table.rows) == [["final results", "1", "1", "3"], ["intermediate results", "2", "2", "8"]]


def test_a_task_of_another_machine_has_no_images(finished: Finished, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    page = of_task.write(ID, tmp_path / "report.html", finished.state)
    of_images = {"Before and after", "Precision and recall", "Which faces are found"}
    assert missing_in(page) == of_images
    assert "not on this machine" in panels_of(page)["Before and after"]
    assert "shows images of the data set" not in page.read_text()


def test_an_experiment_of_another_state_has_no_task(finished: Finished, tmp_path: Path) -> None:
    page = of_task.write(finished.folder, tmp_path / "report.html", tmp_path / "none.sqlite")
    assert missing_in(page) == {"Importance of the parameters", "Nearest data sets"}


def test_before_anything_ended_the_page_is_refused(lab: Lab, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    lab.step(lab.tuner("begun", budget=2))
    with pytest.raises(FolderError, match="experiment begun: no trial has a result yet"):
        of_task.write("begun", tmp_path / "report.html", lab.state)
    with pytest.raises(FolderError, match="experiment other: it is not in the state"):
        of_task.write("other", tmp_path / "report.html", lab.state)
    assert not (tmp_path / "report.html").exists()


def test_what_is_missing_is_said_in_its_place() -> None:
    def make():
        raise MissingError("It is not here.")

    made = panel("Title", "About.", make)
    assert made.content is None and made.missing == "It is not here."


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("there is no chromium with chromedriver on this machine")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    profile = f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", profile):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield opened
    finally:
        opened.quit()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_it_fits_the_screen_in_both_schemes(browser, page: Path, width: int, scheme: str) -> None:
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(page.as_uri())
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    colours = "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
    ink, paper = (sum(map(int, re.findall(r"\d+", text)[:3])) for text in browser.execute_script(colours))
    assert (ink < paper) == (scheme == "light")
    text = "return getComputedStyle(document.querySelector('svg text')).fill"
    assert sum(map(int, re.findall(r"\d+", browser.execute_script(text))[:3])) == ink, "figures follow the page"
    artefacts = Path(os.environ.get("HYPERFD_ARTEFACTS") or ROOT / "artefacts")
    artefacts.mkdir(parents=True, exist_ok=True)
    browser.save_screenshot(str(artefacts / f"report_{width}_{scheme}.png"))
