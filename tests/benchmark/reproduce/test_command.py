"""`hyperfd reproduce` as a whole: the page that it leaves, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from nni_hyperfd.benchmark import tables
from nni_hyperfd.benchmark.protocol import Protocol
from nni_hyperfd.benchmark.reproduce import runs
from nni_hyperfd.benchmark.reproduce.arms import ARMS, unavailable
from nni_hyperfd.benchmark.reproduce.plan import BUDGETS, ArmRun, Setting
from nni_hyperfd.benchmark.reproduce.warm_ups import warm_ups
from nni_hyperfd.cli import app
from nni_hyperfd.cli import reproduce as command
from nni_hyperfd.files import locked


def refused(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["reproduce", *map(str, arguments)], env={"COLUMNS": "500"})
    assert result.exit_code == 2, result.output
    return result.output


def test_one_page_with_everything_on_it(reproduced, folder: Path) -> None:
    out, result = reproduced
    assert result.exit_code == 0, result.output
    page = (out / "reproduced.html").read_text()
    assert not re.search(r"https?:|<script|<link|@import|url\(", page), "it must need no network"
    assert set(re.findall(r'src="(.{15})', page)) == {"data:image/png;"}
    assert page.count("<img ") == len(list(out.glob("*.png"))) == 4
    titles = re.findall(r'<h2 id="(.*?)">(.*?)</h2>', page)
    wanted = [*(f"Table {n}" for n in range(1, 7)), "Figure 3", "Figure 4", "Figure 5", "Figures 7 to 9"]
    assert [title for _, title in titles] == [*wanted, "Table 13, hpo", "Table 14"]
    assert re.findall(r'href="#(.*?)"', page) == [place for place, _ in titles]
    assert f"hyperfd reproduce {folder} --regime real --seeds 2 --orders 2" in page
    how = "hpo, real regime, 3 offline data sets"
    assert f"{how}: 3 client data sets, 3 of the server&#39;s, 8 configurations." in page
    assert page.count(f"<caption>{how}</caption>") == 7, "Tables 1 to 6 and Figure 5"
    for name in ("table_1_hpo", "table_6_hpo", "table_13_rank_percent_hpo", "figure_5_hpo"):
        assert {",real,3"} == {line[-7:] for line in (out / f"{name}.csv").read_text().splitlines()[1:]}, name
    assert "hpo: 1 of 48 results are missing (toon 1)." in page
    assert f"Table 1: {how}: The default preset's Rank% is" in result.output
    assert str(out / "reproduced.html") in result.output


def test_runs_were_made_side_by_side_as_they_are_alone(reproduced, setting: Setting) -> None:
    out, _ = reproduced
    found = runs.outcomes(out)
    assert len(found) == 3 * (2 * len(BUDGETS) + 3)
    one = ArmRun(setting, "Random search", 6, 1)
    own = found[(found.arm == one.arm) & (found.budget == 6) & (found.seed == 1)]
    wanted = runs.do_run(one, None).outcomes
    assert own.rank_percent.tolist() == pytest.approx([each.rank_percent[-1] for each in wanted])
    assert own.gain.tolist() == pytest.approx([each.gain for each in wanted])
    assert own.task.tolist() == [each.task for each in wanted]
    assert all(picked in each.picks for picked, each in zip(own.picked, wanted, strict=True))
    assert set(warm_ups(setting, out).arm) >= {"HyperFD", "w/o warm-up"}


def test_what_shows_nothing_is_refused(folder: Path, make, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out")
    other = make(tmp_path / "other", server=())
    message = refused(folder, other, *out)
    assert f"{folder} and {other} are both of the space hpo; name one" in message
    assert "other names no data sets of the server's own" in refused(other, *out)
    assert "meta.json cannot be read" in refused(tmp_path / "missing", *out)
    meta = json.loads((other / "meta.json").read_text())
    (other / "meta.json").write_text(json.dumps(meta | {"space": None}))
    assert "other is of the space None; name tables that hyperfd table made" in refused(other, *out)
    assert "cold regime has no offline data sets" in refused(folder, "--regime", "cold", "--offline", 1, *out)
    assert "cannot be 4 offline ones" in refused(folder, "--offline", 4, *out)
    assert "no task 'dogs' to be the server's" in refused(folder, "--server", "general,dogs", *out)
    with locked(tmp_path / "out"):
        assert "another process is working on it" in refused(folder, *out)
    assert not (tmp_path / "out" / "outcomes.csv").exists()


def test_the_packages_own_tables_can_be_reproduced() -> None:
    found = {command.space_of(folder): tables.load(folder) for folder in command.shipped()}
    assert {space: len(table.configurations) for space, table in found.items()} == {"hpo": 60, "nas": 100}
    assert [table.configurations.graphs is None for table in found.values()] == [True, False]
    assert {space: len(table.clients) for space, table in found.items()} == {"hpo": 10, "nas": 9}
    for table in found.values():
        assert len(table.images) == len(table.tasks)
        assert not any(unavailable(arm, table, Protocol().on(table)) for arm in ARMS.values())
        assert np.isfinite(table.performance[table.clients]).mean() > 0.8
