"""The web page of a server, in a real browser. Screenshots go to HYPERFD_ARTEFACTS, by default `artefacts/`."""

from __future__ import annotations

import os
import re
import shutil
import socket
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra `server` is not installed")
import httpx
import uvicorn
from sqlalchemy import select

from nni_hyperfd.platform import EmbeddedPlatform
from nni_hyperfd.server.app import application
from nni_hyperfd.space import SearchSpace
from nni_hyperfd.state.tables import TaskRow, TenantRow, TrialRow
from nni_hyperfd.task import Phase, Scope, Status
from support import ROOT
from support.rows import add_task

SPACE = SearchSpace.from_nni(
    {
        "lr": {"_type": "loguniform", "_value": [0.0001, 0.1]},
        "anchors": {"_type": "choice", "_value": ["few", "many"]},
    }
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A server with the tasks of two tenants, one of them with a hostile name."""
    platform = EmbeddedPlatform(tmp_path_factory.mktemp("pages") / "state.sqlite")
    tokens = {name: platform.tenants.add(name) for name in ("hospital", "shop", "new")}
    tokens["operator"] = platform.tenants.add("operator", Scope.ADMIN)
    rng = np.random.default_rng(0)
    with platform.store.read() as session:
        ids = {row.name: row.id for row in session.scalars(select(TenantRow))}
    for number in range(12):
        name = "hospital" if number % 2 else "shop"
        experiment = "<script>alert(1)</script>" if number == 11 else f"{name}-{number}"
        task_id = add_task(
            platform,
            SPACE,
            experiment,
            rng.uniform(0.4, 0.6, 4).tolist(),
            closed=number < 11,
            tenant_id=ids[name],
            num_images=800 + number,
            baseline=0.4,
            meta_feature=rng.normal(size=64).tolist(),
        )
        with platform.store.write() as session:
            task = session.get_one(TaskRow, task_id)
            for rank, trial in enumerate(task.trials, 1):
                trial.rank, trial.score = rank, 1.5 - 0.1 * rank
            if task.closed is None:
                configuration = {"lr": 0.01, "anchors": "few"}
                task.trials.append(TrialRow(phase=Phase.FINE_TUNE, status=Status.RUNNING, configuration=configuration))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(application(platform), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield SimpleNamespace(port=listening.getsockname()[1], tokens=tokens)
        server.should_exit = True
        thread.join()
    platform.close()


def page(place, name):
    return httpx.get(f"http://127.0.0.1:{place.port}/ui", auth=("anybody", place.tokens[name]))


def test_each_sees_his_own(place):
    hospital, shop, operator, new = (page(place, name).text for name in ("hospital", "shop", "operator", "new"))
    assert "hospital-1<" in hospital and "shop-" not in hospital and "hospital-" not in shop
    assert hospital.count("<circle") == shop.count("<circle") == 6, "of own data sets alone"
    assert "&lt;script&gt;alert(1)" in hospital and "<script" not in hospital
    assert "The platform</h2>" not in hospital and "hospital" in operator and "hospital-" not in operator
    assert "<td>hospital</td><td>1</td><td>5</td><td>24</td>" in operator
    assert "There is none yet" in new and "too few for a map" in new
    assert "place of mean rank" in hospital and "<polyline" in hospital


def test_a_browser_is_asked_for_the_token_and_trusts_nothing_but_the_page(place):
    refused = httpx.get(f"http://127.0.0.1:{place.port}/ui")
    assert refused.status_code == 401 and "Basic" in refused.headers["www-authenticate"]
    headers = page(place, "hospital").headers
    assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in headers["content-security-policy"]
    assert (headers["x-content-type-options"], headers["x-frame-options"]) == ("nosniff", "DENY")
    assert headers["cache-control"] == "no-store" and headers["referrer-policy"] == "no-referrer"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
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
    yield opened
    opened.quit()


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "light"), (1280, "dark"), (400, "dark")])
def test_it_fits_the_screen_in_both_schemes(browser, place, width, scheme):
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    artefacts = Path(os.environ.get("HYPERFD_ARTEFACTS") or ROOT / "artefacts")
    artefacts.mkdir(parents=True, exist_ok=True)
    for name in ("hospital", "operator"):
        metrics = {"width": width, "height": 1900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.get(f"http://anybody:{place.tokens[name]}@127.0.0.1:{place.port}/ui")
        assert browser.find_element("css selector", "h1").text == name
        shown = [entry for entry in browser.get_log("browser") if "favicon" not in entry["message"]]
        assert shown == [], "the policy allows the style of the page"
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        colours = "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
        ink, paper = (sum(map(int, re.findall(r"\d+", text)[:3])) for text in browser.execute_script(colours))
        assert (ink < paper) == (scheme == "light")
        browser.save_screenshot(str(artefacts / f"server_{name}_{width}_{scheme}.png"))
