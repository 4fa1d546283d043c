"""A small table as `hyperfd table` makes it: three client data sets and three of the server's, two of these whole."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from nni_hyperfd.benchmark import lookup, measured
from nni_hyperfd.benchmark.measured import COLUMNS, START
from nni_hyperfd.benchmark.regime import Regime
from nni_hyperfd.benchmark.reproduce import runs, warm_ups
from nni_hyperfd.benchmark.reproduce.arms import DEFAULT, FULL
from nni_hyperfd.benchmark.reproduce.plan import BUDGET, BUDGETS, ArmRun, Setting, settings, warm_up_of
from nni_hyperfd.cli import app
from nni_hyperfd.method.features import pack
from nni_hyperfd.method.weights import dumps
from nni_hyperfd.space import SearchSpace

SPACES = Path(__file__).resolve().parents[3] / "search_spaces"
SERVER, CLIENTS = ("general", "pets", "pets_a"), ("mask", "toon", "fisheye")
CONFIGURATIONS, CHANNELS = 8, 2
GAP = ("toon", "c0007")


def _row(domain: str, name: str, seed: int, val: float, reason: str = "") -> dict:
    numbers = ("", "", "") if reason else (val, val / 2 + 0.1, 3)
    values = (domain, name, seed, *numbers, 36.0, "", "cpu", "failed" if reason else "measured", reason)
    return dict(zip(COLUMNS, values, strict=True))


def _make(
    folder: Path,
    space: str = "hpo",
    server: tuple[str, ...] = SERVER,
    clients: tuple[str, ...] = CLIENTS,
    features: bool = True,
    shift: float = 0.0,
) -> Path:
    """A table in `folder`, made of measurements beside it. One trial of `GAP` after the other has failed."""
    source, domains = folder.parent / f"{folder.name}_measured", [*server, *clients]
    source.mkdir(parents=True)
    rng = np.random.default_rng(1)
    definition = json.loads((SPACES / f"{space}.json").read_text())
    own = SearchSpace.from_nni(definition)
    names = [f"c{place:04d}" for place in range(CONFIGURATIONS)]
    rows = [_row(domain, START, 0, 0.1) for domain in domains]
    for domain, name, seed in itertools.product(domains, names, (0, 1)):
        reason = "out of memory" if (domain, name) == GAP else ""
        rows.append(_row(domain, name, seed, rng.random() / 2 + shift, reason))
    contents = {
        "settings": {"format": 1, "space": own.label, "kind": own.kind, "seed": 0, "size": 160},
        "space": definition,
        "configurations": dict(zip(names, own.sample(CONFIGURATIONS, np.random.default_rng(0)), strict=True)),
        "domains": {name: {"images": 10 * (n + 1), "boxes": 15, "fingerprint": "x"} for n, name in enumerate(domains)},
    }
    for name, content in contents.items():
        (source / f"{name}.json").write_text(json.dumps(content))
    with (source / "trials.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    generator = torch.Generator().manual_seed(0)
    for place, name in enumerate(domains if features else ()):
        images = torch.randn(40, 3, 3, CHANNELS + 4, generator=generator) + 3 * place * torch.eye(CHANNELS + 4)[0]
        (source / f"{name}.safetensors").write_bytes(dumps(pack(images, torch.tensor([40.0, 15.0 + place]))))
    lookup.write(measured.read(source), folder, features=source if features else None, server=server)
    return folder


@pytest.fixture(scope="session")
def make():
    return _make


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    return _make(tmp_path_factory.mktemp("tables") / "faces_hpo")


@pytest.fixture(scope="session")
def setting(folder: Path) -> Setting:
    """The table in the real regime."""
    return settings([folder], Regime.REAL)[0]


@pytest.fixture(scope="session")
def warm(setting: Setting, tmp_path_factory) -> Path:
    """A folder of runs with what HyperFD's seed 0 starts from."""
    out, warm_up = tmp_path_factory.mktemp("warm"), warm_ups.warm_up
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warm_ups, "warm_up", lambda *arguments: warm_up(*arguments, max_batches=50))  # hundreds otherwise
        warm_ups.do_warm_up(warm_up_of(ArmRun(setting, FULL, BUDGET, 0), out))
    return out


@pytest.fixture(scope="session")
def reproduced(folder: Path, warm: Path, tmp_path_factory) -> tuple[Path, Result]:
    """The whole command with few of its runs: the folder that it has filled, and what it printed."""
    out = tmp_path_factory.mktemp("reproduced")
    shutil.copytree(warm / "warm-ups", out / "warm-ups")
    wanted = [("Random search", budget, seed) for budget in BUDGETS for seed in (0, 1)]
    wanted += [(FULL, 4, 0), (DEFAULT, 4, 0), ("w/o warm-up", 4, 0)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "planned", lambda setting, seeds, orders: [ArmRun(setting, *what) for what in wanted])
        arguments = ["reproduce", str(folder), "--seeds", "2", "--orders", "2", "--out", str(out)]
        return out, CliRunner().invoke(app, arguments, env={"COLUMNS": "500"})
