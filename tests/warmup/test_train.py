"""From measured pairs and described data sets to a state that experiments begin with."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nni_hyperfd.cli import state as cli
from nni_hyperfd.method import MetaFeatureExtractor, features, weights
from nni_hyperfd.platform.platform import OfflineResults, Platform
from nni_hyperfd.space import SearchSpace
from nni_hyperfd.state.versions import Versions
from nni_hyperfd.task import PRESETS, TaskSettings
from nni_hyperfd.warmup import train
from nni_hyperfd.warmup.pairs import PairFile, draw
from nni_hyperfd.wire import ReportError

DEFINITION = {name: {"_type": "choice", "_value": list(range(5))} for name in ("x", "y")}
SPACE = SearchSpace.from_nni(DEFINITION)
KINDS, EACH, IMAGES, WIDTH = 6, 8, 40, 12


def result(name: str, configuration: dict) -> float:
    """Half of the data sets want a large x, half a small one; which half shows in their images."""
    sign = 1 if int(name[-1]) % 2 else -1
    return round(0.5 + 0.05 * sign * configuration["x"] + 0.01 * configuration["y"], 6)


def describe(name: str, width: int = WIDTH) -> bytes:
    sign = 1 if int(name[-1]) % 2 else -1
    images = torch.randn(IMAGES, 3, 3, width, generator=torch.Generator().manual_seed(int(name[-1])))
    images += sign * torch.linspace(-2, 2, width)
    images[::3, :, 0] = torch.nan
    return weights.dumps(features.pack(images, torch.tensor([100.0 + int(name[-1]), 300.0])))


@pytest.fixture
def measured(tmp_path: Path) -> tuple[PairFile, Path]:
    """Pairs of six data sets, one of which failed on one pair and one of which is not measured at all."""
    names = [f"set-{number}" for number in range(KINDS)]
    out, folder = tmp_path / "out", tmp_path / "features"
    out.mkdir()
    folder.mkdir()
    file = PairFile(out / "pairs.sqlite")
    file.plan(draw(names, SPACE, KINDS * EACH, EACH, 0))
    file.begin("one", 8080, tmp_path)
    missed = file.pairs()[-1].data
    for number in range((KINDS - 1) * EACH):
        pair = file.claim("one", number)
        assert pair.data != missed
        if number == 3:
            file.fail("one", number, "crashed")
        else:
            file.succeed("one", number, result(pair.data, pair.configuration))
    for name in names:
        (folder / f"{name}.safetensors").write_bytes(describe(name))
    return file, folder


@pytest.fixture
def hyperfd(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hyperfd", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
            raise SystemExit(0)
        return (end.value.code or 0, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[OfflineResults], Any]:
    """Data sets and what the warm-up has learned from them, with as few batches as the test of ranking can do with."""
    sets = []
    for number in range(KINDS):
        configurations = SPACE.sample(EACH, np.random.default_rng(number))
        images, counts = features.unpack(weights.loads(describe(f"set-{number}")))
        performance = [result(f"set-{number}", configuration) for configuration in configurations]
        sets.append(OfflineResults(f"set-{number}", images, counts, configurations, performance))
    return sets, train.train(sets, SPACE, seed=0)


# -- what is read -----------------------------------------------------------------------------------------------------


def test_every_measured_data_set_is_read_with_its_own_results(measured: tuple[PairFile, Path]) -> None:
    file, folder = measured
    sets = train.read(file, folder, SPACE)
    assert [one.name for one in sets] == sorted({pair.data for pair in file.pairs()} - {file.pairs()[-1].data})
    assert sorted(len(one.performance) for one in sets) == [7, 8, 8, 8, 8]
    for one in sets:
        assert one.performance == [result(one.name, configuration) for configuration in one.configurations]
        images, counts = features.unpack(weights.loads(describe(one.name)))
        assert torch.equal(one.images.nan_to_num(9), images.nan_to_num(9)) and torch.equal(one.counts, counts)


def test_what_cannot_be_learned_from_is_named(measured: tuple[PairFile, Path], tmp_path: Path) -> None:
    file, folder = measured
    other = SearchSpace.from_nni({"x": DEFINITION["x"]})
    with pytest.raises(train.TrainError, match="it was measured in another search space: .*does not have y"):
        train.read(file, folder, other)
    name = train.read(file, folder, SPACE)[1].name
    for content, words in {describe(name, 13): "13 entries, those of set-. have 12", b"broken": "safetensors"}.items():
        (folder / f"{name}.safetensors").write_bytes(content)
        with pytest.raises(train.TrainError, match=f"{name}.safetensors: .*{words}"):
            train.read(file, folder, SPACE)
    (folder / f"{name}.safetensors").unlink()
    with pytest.raises(train.TrainError, match=f"{name}.safetensors: No such file.*describe.py --whole writes it"):
        train.read(file, folder, SPACE)
    empty = PairFile(tmp_path / "empty.sqlite")
    with pytest.raises(train.TrainError, match="no pair is measured yet"):
        train.read(empty, folder, SPACE)


# -- what is learned, and the state that begins with it ---------------------------------------------------------------


def test_the_warm_up_ranks_results_that_it_has_not_learned_from(trained: tuple) -> None:
    sets, warm = trained
    assert max(warm.ndcg) > warm.ndcg[0] and max(warm.ndcg) > 0.9
    again = train.train(sets[:2], SPACE, seed=0)
    assert weights.dumps(again.encoder.state_dict()) == weights.dumps(
        train.train(sets[:2], SPACE, 0).encoder.state_dict()
    )


@pytest.fixture
def state(lab: Any, trained: tuple) -> Platform:
    platform = Platform(lab.state)
    platform.begin_with(SPACE, *trained, seed=0)
    return platform


def test_a_state_begins_with_the_networks_the_data_sets_and_their_results(state: Platform, trained: tuple) -> None:
    sets, warm = trained
    assert state.counts() == {"extractor versions": 2, "ranker versions": 1, "offline data sets": KINDS}
    with state.store.read() as session:
        versions = Versions(state.store, session)
        head = versions.head()
        kept = versions.extractor_tensors(head.id)
        encoder, extractor_id = versions.encoder(SPACE)
        described = versions.describe_offline(head.id)
        offline = list(versions.offline().values())
    assert weights.dumps(weights.under(kept, "extractor")) == weights.dumps(warm.extractor.state_dict())
    assert weights.dumps(weights.under(kept, "importance")) == weights.dumps(warm.importance)
    assert weights.dumps(encoder.state_dict()) == weights.dumps(warm.encoder.state_dict()) and extractor_id == head.id
    assert len(described) == KINDS and all(len(images) == 32 for images, _ in offline)
    extractor = MetaFeatureExtractor.from_weights(warm.extractor.state_dict())
    for task, one in zip(state.tasks(), sets, strict=True):
        assert (
            task.closed is not None
            and task.settings["offline"]
            and task.experiment == f"warm-up {one.name} ({SPACE.label})"
        )
        assert [t.configuration for t in task.trials] == one.configurations
        assert [t.performance for t in task.trials] == one.performance
        assert {(t.phase, t.status) for t in task.trials} == {("import", "succeeded")}
        with torch.no_grad():
            assert task.meta_feature == extractor(one.images, one.counts).tolist()
        assert (task.num_images, task.num_boxes) == (int(one.counts[0]), 300)


@pytest.mark.parametrize("preset", PRESETS)
def test_both_presets_rank_by_what_the_warm_up_knows(state: Platform, preset: str) -> None:
    best = [state.rank(SPACE, like, TaskSettings(preset=preset)).recommendations[0].configuration for like in (1, 2)]
    assert best[0]["x"] < best[1]["x"], "data sets of even numbers want a small x, of odd ones a large x"
    assert len(state.rank(SPACE, 1, TaskSettings(preset=preset)).neighbours) == KINDS


def test_many_data_sets_leave_a_small_state(lab: Any, trained: tuple) -> None:
    sets, warm = trained
    platform = Platform(lab.state)
    many = [OfflineResults(f"{n}-{one.name}", *list(vars(one).values())[1:]) for n in range(20) for one in sets]
    platform.begin_with(SPACE, many, warm, seed=0)
    with platform.store.read() as session:
        sizes = {len(images) for images, _ in Versions(platform.store, session).offline().values()}
    assert sizes == {1024 // 120}


def test_a_state_with_more_than_warm_ups_in_other_spaces_is_not_begun_with(state: Platform, trained: tuple) -> None:
    def refused(space: SearchSpace) -> None:
        before = [task.id for task in state.tasks()]
        for call in (state.warm_extractor, lambda other: state.begin_with(other, *trained, seed=0)):
            with pytest.raises(ReportError, match="it holds more than warm-ups in other spaces; name a new file"):
                call(space)
        assert [task.id for task in state.tasks()] == before

    refused(SPACE)
    state.open_task("mine", SPACE, TaskSettings())
    refused(WIDE)


def test_a_state_with_an_extractor_and_nothing_else_is_not_begun_with(lab: Any, trained: tuple) -> None:
    platform = Platform(lab.state)
    platform.add_offline("set-0", describe("set-0"))
    with pytest.raises(ReportError, match="it holds more"):
        platform.begin_with(SPACE, *trained, seed=0)


# -- a second space ---------------------------------------------------------------------------------------------------

WIDE = SearchSpace.from_nni({name: {"_type": "choice", "_value": list(range(5))} for name in ("x", "y", "z")})


@pytest.fixture
def wide(trained: tuple) -> list[OfflineResults]:
    """Four of the data sets, and their results in another space."""
    sets = []
    for number, one in enumerate(trained[0][:4]):
        configurations = WIDE.sample(4 * EACH, np.random.default_rng(number))
        performance = [result(one.name, configuration) for configuration in configurations]
        sets.append(OfflineResults(one.name, one.images, one.counts, configurations, performance))
    return sets


def scores(state: Platform) -> dict[str, float]:
    ranking = state.rank(SPACE, 1, TaskSettings())
    return {SPACE.key(one.configuration): one.score for one in ranking.recommendations}


def test_a_second_space_leaves_the_extractor_and_the_first_space_as_they_are(
    state: Platform, wide: list[OfflineResults]
) -> None:
    extractor = state.warm_extractor(WIDE)
    before = weights.dumps(extractor.state_dict())
    scored = scores(state)
    warm = train.train(wide, WIDE, 0, extractor)
    assert max(warm.ndcg) > warm.ndcg[0]
    state.begin_with(WIDE, wide, warm, seed=0)
    assert weights.dumps(state.warm_extractor(SearchSpace.from_nni({"x": DEFINITION["x"]})).state_dict()) == before
    assert scores(state) == pytest.approx(scored)
    assert state.counts() == {"extractor versions": 2, "ranker versions": 2, "offline data sets": KINDS}
    added = state.tasks()[KINDS:]
    assert [task.experiment for task in added] == [f"warm-up {one.name} ({WIDE.label})" for one in wide]
    assert [task.meta_feature for task in added] == [task.meta_feature for task in state.tasks()[:4]]


@pytest.mark.parametrize("preset", PRESETS)
def test_both_presets_rank_in_the_second_space_by_its_warm_up(
    state: Platform, wide: list[OfflineResults], preset: str
) -> None:
    state.begin_with(WIDE, wide, train.train(wide, WIDE, 0, state.warm_extractor(WIDE)), seed=0)
    likes = (KINDS + 1, KINDS + 2)
    best = [state.rank(WIDE, like, TaskSettings(preset=preset)).recommendations[0].configuration for like in likes]
    assert best[0]["x"] < best[1]["x"]


def test_a_second_space_is_warmed_up_with_the_extractor_that_is_there(
    state: Platform, wide: list[OfflineResults]
) -> None:
    with pytest.raises(ReportError, match="its extractor is not the one of this warm-up; repeat it"):
        state.begin_with(WIDE, wide, train.train(wide, WIDE, 0), seed=0)
    images, counts = features.unpack(weights.loads(describe("set-0", 13)))
    other = [OfflineResults("set-0", images, counts, wide[0].configurations, wide[0].performance)]
    with pytest.raises(train.TrainError, match="extract them with the detector it was made for"):
        train.train(other, WIDE, 0, state.warm_extractor(WIDE))


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command_says_what_it_has_learned(hyperfd: Callable, measured: tuple, tmp_path: Path) -> None:
    file, folder = measured
    space, state = tmp_path / "space.json", tmp_path / "new" / "state.sqlite"
    space.write_text(json.dumps(DEFINITION))
    arguments = ("warmup", "train", file.path.parent, "--features", folder, "--space", space, "--state", state)
    code, out, err = hyperfd(*arguments)
    assert (code, err) == (0, "") and out.startswith("39 results on 5 sub-data-sets\n")
    assert "NDCG of the results held out, before and after every check: 0." in out and "at best" in out
    _, status, _ = hyperfd("status", "--state", state)
    assert "39 results on 5 data sets" in status and "│ tasks              │ 0, 0 of them closed" in status
    _, listed, _ = hyperfd("tasks", "--state", state)
    assert "warm-up of 5 tasks: --warm-up lists them" in listed and "set-" not in listed
    assert hyperfd("tasks", "--warm-up", "--state", state)[1].count("warm-up set-") == 5
    code, _, err = hyperfd(*arguments)
    assert code == 1 and "it holds more than warm-ups in other spaces" in err
    code, _, err = hyperfd("warmup", "train", tmp_path / "none", *arguments[3:])
    assert code == 1 and "run 'hyperfd warmup collect' first" in err
    assert not (tmp_path / "none").exists()
