"""Simulated tasks through the real platform: the schedule, the errors, filled-in rows, and a short run."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from typer import Typer
from typer.testing import CliRunner

from nni_hyperfd.benchmark import lookup, measured, simulator, state, tables
from nni_hyperfd.benchmark.protocol import Protocol
from nni_hyperfd.benchmark.regime import Regime
from nni_hyperfd.benchmark.simulator import TablePlatform, World, by_chance, clustered, schedule, simulate, stretches
from nni_hyperfd.task import Phase, TaskSettings
from nni_hyperfd.wire import Description

MEASURED = Path(simulator.__file__).parent / "measured_faces"
app = Typer()
app.command()(simulator.main)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("faces")
    lookup.write(measured.read(MEASURED), out)
    return out


@pytest.fixture(scope="module")
def world(folder: Path) -> World:
    return World.of(tables.load(folder), seed=0)


@pytest.mark.parametrize("tasks", [1, 2, 9, 10, 11, 30, 31, 1000, 10_000])
def test_the_schedule_comes_to_every_stretchs_end(tasks: int) -> None:
    sizes = schedule(tasks)
    ends = np.cumsum(sizes)
    assert ends[-1] == tasks and set(stretches(tasks)) <= set(ends.tolist())
    for past, size in zip([0, *ends], sizes, strict=False):
        assert 1 <= size <= max(1, min(past // 10, simulator.SIDE_BY_SIDE))


def test_stretches_by_hand() -> None:
    assert stretches(2) == [2] and stretches(10) == [10] and stretches(31) == [10, 30, 31]
    assert stretches(10_000) == [10, 30, 100, 300, 1000, 3000, 10_000]


def test_the_standard_error_of_groups() -> None:
    values = [1.0, 4.0, 2.0, 7.0]
    alone = clustered([[value] for value in values])
    assert alone.mean == 3.5 and alone.error == pytest.approx(np.std(values, ddof=1) / 2)
    # Values that are repeated within their group say nothing new.
    repeated = clustered([[value] * 5 for value in values])
    assert (repeated.mean, repeated.error) == pytest.approx((alone.mean, alone.error))
    assert np.isnan(clustered([[1.0, 2.0]]).error)


def test_random_picks_by_drawing_many() -> None:
    rng = np.random.default_rng(0)
    best = [rng.permutation(20)[:4].min() + 1 for _ in range(20_000)]
    assert by_chance(20, 4) == pytest.approx(100 * np.mean(best) / 20, abs=0.5)
    assert by_chance(3, 4) == pytest.approx(100 / 3)


def test_filled_in_tasks_are_as_tasks_that_ran_side_by_side(world: World, tmp_path: Path) -> None:
    """The fifth and the sixth task together, once in earnest and once filled in: the same rows and the same picks."""
    settings, found = TaskSettings(budget=3, candidates=12), []
    for name in ("earnest", "filled in"):
        platform = TablePlatform(tmp_path / f"{name}.sqlite", world.vectors)
        state.add_offline_sets(platform)
        for number in range(4):
            simulator.live(platform, settings, number, *world.task(number))
        performance, h = world.task(5)
        if name == "earnest":
            with _side_by_side(platform, settings, 5, performance, h):
                simulator.live(platform, settings, 4, *world.task(4))
        else:
            simulator.live(platform, settings, 4, *world.task(4))
            own = platform.rows(settings.seed, 6, settings.candidates)
            picks = simulator.picks_of(platform.model, settings, platform.vectors[own], performance[own], h)
            simulator.fill(platform, 5, 5, [(own[picks].tolist(), performance, h)])
        task = platform.task(6)
        columns = ("experiment", "space", "settings", "meta_feature", "num_images", "num_boxes", "baseline")
        trials = [(t.phase, t.status, t.configuration, t.performance, t.parameter_id) for t in task.trials]
        assert task.closed is not None
        found.append(([getattr(task, column) for column in columns], trials, platform.counts()))
    assert found[0] == found[1]


@contextmanager
def _side_by_side(
    platform: TablePlatform, settings: TaskSettings, number: int, performance: np.ndarray, h: np.ndarray
) -> Iterator[None]:
    """A task whose picks are made before what happens in the block, and which is closed after it; the other task is
    opened first, so that the ids are as in the simulation."""
    platform.open_task("simulated 4", platform.space, settings)
    task_id = platform.open_task(f"simulated {number}", platform.space, settings)
    platform.start(platform.next_trial(task_id).id, 0)
    platform.describe(task_id, 0, Description(h.tolist(), 64, 100, 0.5))
    for parameter_id in range(1, settings.budget + 1):
        trial = platform.next_trial(task_id)
        assert trial.phase is Phase.FINE_TUNE
        platform.start(trial.id, parameter_id)
        platform.observe(task_id, parameter_id, float(performance[platform.place(trial.configuration)]))
    yield
    platform.close_task(task_id, simulator._update(number, h))


def test_the_same_seed_gives_the_same_run(world: World, tmp_path: Path) -> None:
    runs = [list(simulate(world, Protocol(offline=1), 3, tmp_path / f"{n}.sqlite")) for n in range(2)]
    assert [w.lived.picks for w in runs[0]] == [w.lived.picks for w in runs[1]]
    assert [w.rank_percent for w in runs[0]] == [w.rank_percent for w in runs[1]]


@pytest.mark.parametrize("regime", Regime)
def test_what_the_platform_knows_in_each_regime(
    world: World, tmp_path: Path, regime: Regime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulator, "schedule", lambda tasks: [1, tasks - 1])  # the last one is filled in
    offline = 0 if regime is Regime.COLD else 2
    waves = list(simulate(world, Protocol(regime, offline), 3, tmp_path / "state.sqlite"))
    platform = TablePlatform(tmp_path / "state.sqlite", world.vectors)
    tasks = platform.tasks()
    assert len(tasks) == offline + 3 and [task.dataset for task in tasks[:offline]] == ["0", "1"][:offline]
    assert sum(len(wave.rank_percent["platform"]) for wave in waves) == 3
    settings = TaskSettings(seed=world.seed)
    for number, task in enumerate(tasks):
        performance, h = world.task(number)
        rows = platform.rows(settings.seed, task.id, settings.candidates)
        known = [platform.place(configuration) for configuration in task.results.configurations]
        assert task.meta_feature == pytest.approx(h.tolist())
        assert task.results.performance == pytest.approx(performance[known].tolist())
        assert set(known) <= set(rows.tolist()) and len(set(known)) == len(known)
        whole = number < offline or regime is Regime.REVEALED
        assert len(known) == (len(rows) if whole else settings.budget), (regime, number)


def test_the_program_writes_what_it_says(folder: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(folder), "--tasks", "12", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    with (tmp_path / "simulator.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["first"], row["last"]) for row in rows] == [("1", "10"), ("11", "12")]
    assert all(float(row[name]) > 0 for row in rows for name in ("platform", "learn", "close", "size"))
    assert {(row["regime"], row["offline"]) for row in rows} == {("real", "8")}
    told = (tmp_path / "simulator.txt").read_text()
    assert told.startswith("SIMULATED tasks") and told.count("real regime, 8 offline data sets: Rank%") == 2
    assert (tmp_path / "simulator.png").stat().st_size > 10_000


def test_other_folders_are_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(tmp_path), "--regime", "cold", "--offline", "3"], env={"COLUMNS": "500"})
    assert result.exit_code == 2 and "cold regime has no offline data sets" in result.output
    result = CliRunner().invoke(app, [str(tmp_path)], env={"COLUMNS": "500"})
    assert result.exit_code != 0 and "meta.json cannot be read" in result.output
