"""Measurements as pairs of a warm-up."""

from __future__ import annotations

from pathlib import Path

from typer import Typer
from typer.testing import CliRunner

from nni_hyperfd.benchmark import measured
from nni_hyperfd.benchmark.warm_pairs import main
from nni_hyperfd.task import Status
from nni_hyperfd.warmup.collect import PAIRS
from nni_hyperfd.warmup.pairs import PairFile

from .test_measured import ROWS, fill

app = Typer()
app.command()(main)
WIDE = {"COLUMNS": "500"}


def test_the_servers_results_become_pairs(tmp_path: Path) -> None:
    """Without the start, other seeds, failed trials and the data set that is not the server's."""
    folder, out = fill(tmp_path / "measured", ROWS), tmp_path / "out"
    result = CliRunner().invoke(app, [str(folder), str(out), "--server", "mask,toon"], env=WIDE)
    assert result.exit_code == 0 and result.output.startswith("3 pairs: "), result.output
    drawn, pairs = measured.read(folder).configurations, PairFile(out / PAIRS).pairs()
    assert [(pair.data, pair.configuration, pair.performance) for pair in pairs] == [
        ("mask", drawn["c0000"], 0.5),
        ("toon", drawn["c0000"], 0.6),
        ("mask", drawn["c0001"], 0.7),
    ]
    assert {pair.status for pair in pairs} == {Status.SUCCEEDED}
    again = CliRunner().invoke(app, [str(folder), str(out), "--server", "mask"], env=WIDE)
    assert again.exit_code != 0 and "exists; name another folder" in again.output


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    folder = fill(tmp_path / "measured", [])
    for server, message in (("moon", "moon was not measured"), ("mask", "None of these data sets has a result")):
        result = CliRunner().invoke(app, [str(folder), str(tmp_path / "out"), "--server", server], env=WIDE)
        assert result.exit_code != 0 and message in result.output
