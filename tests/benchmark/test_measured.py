"""Folders of measurements, and the tables that are made of them."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from nni_hyperfd.benchmark import measured, tables
from nni_hyperfd.benchmark.measured import COLUMNS, START
from nni_hyperfd.benchmark.tables import TableError
from nni_hyperfd.cli import app
from nni_hyperfd.method.features import pack
from nni_hyperfd.method.weights import dumps
from nni_hyperfd.space import SearchSpace

SPACES = Path(__file__).resolve().parents[2] / "search_spaces"
DOMAINS = ("mask", "toon", "fisheye")


def row(domain: str, name: str, seed: int = 0, val: float | str = "", test: float | str = "", reason: str = "") -> dict:
    status = "failed" if reason else "measured"
    values = (domain, name, seed, val, test, "" if reason else 3, 36.0, "", "cpu", status, reason)
    return dict(zip(COLUMNS, values, strict=True))


def fill(folder: Path, rows: list[dict], space: str = "hpo", configurations: int = 4) -> Path:
    """As measure.py leaves it; the numbers are what the tests are about."""
    folder.mkdir(exist_ok=True)
    definition = json.loads((SPACES / f"{space}.json").read_text())
    own = SearchSpace.from_nni(definition)
    drawn = own.sample(configurations, np.random.default_rng(0))
    settings = {"format": 1, "space": own.label, "kind": own.kind, "seed": 0, "size": 160}
    contents = {"settings": settings, "space": definition}
    contents["configurations"] = {f"c{place:04d}": found for place, found in enumerate(drawn)}
    contents["domains"] = {
        name: {"images": 10 * (n + 1), "boxes": 15, "fingerprint": "x"} for n, name in enumerate(DOMAINS)
    }
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    with (folder / "trials.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return folder


ROWS = [
    *(row(domain, START, val=0.1, test=0.2) for domain in DOMAINS),
    *(row(domain, "c0000", val=0.5 + n / 10, test=0.4 + n / 10) for n, domain in enumerate(DOMAINS)),
    row("mask", "c0001", val=0.7, test=0.6),
    row("toon", "c0001", reason="the loss became nan in step 3; lower the learning rate."),
    row("mask", "c0000", seed=1, val=0.52, test=0.44),
    row("mask", "c0002", seed=0, reason="its process was killed, as happens when memory runs out"),
]  # c0003 has not been begun


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill(tmp_path / "measured", ROWS)


def test_a_table_has_the_first_seeds_validation_ap_and_its_gaps(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "about.md").write_text("## Images\nA licence.\n")
    out = tmp_path / "faces"
    result = CliRunner().invoke(app, ["table", str(folder), str(out), "--about", str(tmp_path / "about.md")])
    assert result.exit_code == 0, result.output
    gaps = "5 of 9 results are missing (toon 2, fisheye 2, mask 1)."
    assert gaps in " ".join(result.output.split())
    table = tables.load(out)
    assert table.name == "faces" and table.tasks == list(DOMAINS) and table.missing == 5 and table.gaps == gaps
    nan = np.nan
    np.testing.assert_allclose(table.performance, [[0.5, 0.7, nan], [0.6, nan, nan], [0.7, nan, nan]])
    with np.load(out / "performance.npz") as arrays:
        np.testing.assert_allclose(arrays["test"], [[0.4, 0.6, nan], [0.5, nan, nan], [0.6, nan, nan]])
        assert arrays["configs"].tolist() == ["c0000", "c0001", "c0002"]
    assert table.meta_features.tolist() == pytest.approx(np.float32([[10, 15, 0.1], [20, 15, 0.1], [30, 15, 0.1]]))
    readme = (out / "README.md").read_text()
    assert f"{gaps} Configurations that the run has not come to: 1." in readme
    assert "lower the learning rate" in readme and readme.endswith("## Images\nA licence.\n")
    assert "10 trials (2 failed), 0.1 process hours on cpu" in readme
    assert [trial.row for trial in measured.read_trials(out / "trials.csv.gz")] == [
        trial.row for trial in measured.read(folder).trials
    ]


def test_a_table_takes_image_features_along_and_names_the_servers_data_sets(folder: Path, tmp_path: Path) -> None:
    features, out = tmp_path / "features", tmp_path / "out"
    features.mkdir()
    options = ["--features", str(features), "--server", "toon"]
    result = CliRunner().invoke(app, ["table", str(folder), str(out), *options], env={"COLUMNS": "500"})
    assert result.exit_code != 0 and "has no mask.safetensors" in result.output
    for place, name in enumerate(DOMAINS):
        packed = pack(torch.full((2, 3, 3, 6), float(place)), torch.tensor([2.0, 3.0]))
        (features / f"{name}.safetensors").write_bytes(dumps(packed))
    assert CliRunner().invoke(app, ["table", str(folder), str(out), *options]).exit_code == 0
    table = tables.load(out)
    assert table.server == (1,) and table.task(2, 4).images.max() == 2
    assert "The server's own data sets: toon." in (out / "README.md").read_text()
    result = CliRunner().invoke(app, ["table", str(folder), str(out), "--server", "moon"], env={"COLUMNS": "500"})
    assert result.exit_code != 0 and "moon is to be the server's but was not measured" in result.output
    benchmark = ["benchmark", str(out), "--recommenders", "mean_rank,hyperfd_paper", "--seeds", "1"]
    assert CliRunner().invoke(app, [*benchmark, "--out", str(tmp_path / "runs")]).exit_code == 0


def test_a_table_may_be_of_some_of_the_data_sets(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["table", str(folder), str(out), "--only", "fisheye, mask"])
    assert result.exit_code == 0, result.output
    table = tables.load(out)
    assert table.tasks == ["mask", "fisheye"]  # in the order of the folder
    np.testing.assert_allclose(table.performance[:, 0], [0.5, 0.7])
    assert {trial.domain for trial in measured.read_trials(out / "trials.csv.gz")} == {"mask", "fisheye"}
    command = ["table", str(folder), str(tmp_path / "other"), "--only", "mask,moon"]
    result = CliRunner().invoke(app, command, env={"COLUMNS": "500"})
    assert result.exit_code != 0 and "moon was not measured; there are mask, toon, fisheye" in result.output
    assert not (tmp_path / "other").exists()


def test_its_configurations_are_encoded_as_the_platform_does_it(folder: Path, tmp_path: Path) -> None:
    """One-hot, so distances between configurations are the same; columns may come in another order."""
    CliRunner().invoke(app, ["table", str(folder), str(tmp_path / "out")])
    found = measured.read(folder)
    expected = found.space.encode(list(found.configurations.values())[:3]).vectors
    vectors = tables.load(tmp_path / "out").configurations.vectors
    used = expected.T[np.ptp(expected, axis=0) > 0]
    assert sorted(map(tuple, vectors.T[np.ptp(vectors, axis=0) > 0])) == sorted(map(tuple, used))


def test_architectures_come_with_their_graphs(tmp_path: Path) -> None:
    folder = fill(tmp_path / "nas", ROWS, "proxylessnas")
    assert CliRunner().invoke(app, ["table", str(folder), str(tmp_path / "out")]).exit_code == 0
    found, table = measured.read(folder), tables.load(tmp_path / "out")
    expected = found.space.encode(list(found.configurations.values())[:3]).graphs
    np.testing.assert_array_equal(table.configurations.graphs.ops, expected.ops)
    np.testing.assert_array_equal(table.configurations.graphs.adjacency, expected.adjacency)


def test_the_benchmark_runs_on_it_and_states_its_gaps(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "faces"
    CliRunner().invoke(app, ["table", str(folder), str(table)])
    options = ["--recommenders", "random,mean_rank", "--seeds", "2", "--budget", "1,2", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, ["benchmark", str(table), *options])
    assert result.exit_code == 0, result.output
    assert "faces: 5 of 9 results are missing" in result.output
    with (tmp_path / "out" / "outcomes.csv").open(newline="") as file:
        assert {line["missing"] for line in csv.DictReader(file)} == {"5"}
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["tables"]["faces"]["missing"] == 5


def test_a_folder_that_is_being_filled_is_read(folder: Path) -> None:
    with (folder / "trials.csv").open("a") as file:
        file.write("toon,c0000,1,0.")
    assert len(measured.read(folder).trials) == 10
    (folder / "trials.csv").unlink()
    assert measured.read(folder).trials == []


def test_the_table_of_another_space_is_not_replaced(folder: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    CliRunner().invoke(app, ["table", str(folder), out])
    other = fill(tmp_path / "nas", ROWS, "proxylessnas")
    result = CliRunner().invoke(app, ["table", str(other), out], env={"COLUMNS": "500"})
    assert result.exit_code != 0 and "holds a table of the space hpo " in result.output and "not nas " in result.output
    assert CliRunner().invoke(app, ["table", str(folder), out]).exit_code == 0  # its own is written again


def change(folder: Path, name: str, **changes) -> None:
    content = json.loads((folder / f"{name}.json").read_text())
    (folder / f"{name}.json").write_text(json.dumps(content | changes))


def test_other_versions_and_spaces_are_refused_by_name(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    CliRunner().invoke(app, ["table", str(folder), str(out)])
    change(out, "meta", format=2)
    with pytest.raises(TableError, match="of format 2, this version reads 1"):
        tables.load(out)
    change(folder, "settings", space="hpo 0123456789ab")
    with pytest.raises(TableError, match="measured in the space hpo 0123456789ab, not in hpo "):
        measured.read(folder)
    change(folder, "settings", format=2)
    with pytest.raises(TableError, match=r"settings\.json is of format 2, this version reads 1"):
        measured.read(folder)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (row("mask", "c0001", val=1.5, test=0.5), "line 2 of its trials"),
        (row("mask", "c0001", val=0.5), "line 2 of its trials"),
        (row("mask", "c0001", val="high", test=0.5), "line 2 of its trials"),
        (row("moon", "c0001", val=0.5, test=0.5), "moon, c0001 is not described"),
        (row("mask", "c0009", val=0.5, test=0.5), "mask, c0009 is not described"),
    ],
)
def test_rows_that_are_none_are_named(tmp_path: Path, bad: dict, message: str) -> None:
    with pytest.raises(TableError, match=message):
        measured.read(fill(tmp_path / "measured", [bad]))


def test_broken_folders_are_named(folder: Path, tmp_path: Path) -> None:
    change(folder, "configurations", c0001={"optimizer": "SGD"})
    with pytest.raises(TableError, match=r"not of the space in space\.json: the configuration lacks"):
        measured.read(folder)
    (folder / "domains.json").write_text("[]")
    with pytest.raises(TableError, match=r"domains\.json must hold a JSON object"):
        measured.read(folder)
    shutil.rmtree(folder)
    result = CliRunner().invoke(app, ["table", str(folder), str(tmp_path / "out")], env={"COLUMNS": "500"})
    assert result.exit_code != 0 and "settings.json cannot be read" in result.output
    alone = fill(tmp_path / "alone", ROWS[:1] + [ROWS[3]])
    result = CliRunner().invoke(app, ["table", str(alone), str(tmp_path / "out")], env={"COLUMNS": "500"})
    assert "Fewer than two data sets have a result" in result.output


def test_trials_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "trials.csv.gz").write_bytes(gzip.compress(b"x")[:-3])
    with pytest.raises(TableError, match=r"trials\.csv\.gz cannot be read"):
        measured.read_trials(tmp_path / "trials.csv.gz")
