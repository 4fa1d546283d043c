"""From measured pairs and described data sets to a state that experiments begin with."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from nni_hyperfd import cli
from nni_hyperfd.cli import state as state_commands
from nni_hyperfd.method import MetaFeatureExtractor, features, recipe, weights
from nni_hyperfd.platform import Platform, own_datasets
from nni_hyperfd.platform.own_datasets import OfflineResults
from nni_hyperfd.privacy import projection
from nni_hyperfd.space import Architecture, SearchSpace
from nni_hyperfd.state.store import RefusedError
from nni_hyperfd.task import Phase, Preset, Status, TaskSettings
from nni_hyperfd.warmup import train
from nni_hyperfd.warmup.pairs import PairFile, draw
from support.encoded import bytes_of

DEFINITION = {name: {"_type": "choice", "_value": list(range(5))} for name in ("x", "y")}
SPACE = SearchSpace.from_nni(DEFINITION)
SPACES = Path(__file__).resolve().parents[2] / "search_spaces"
KINDS, EACH, WHOLE, IMAGES, WIDTH = 6, 8, 20, 40, 12


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
    monkeypatch.setattr(state_commands, "console", Console())

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
        configurations = SPACE.sample(WHOLE, np.random.default_rng(number))
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
    one, two = (train.train(sets[:2], SPACE, seed=0) for _ in range(2))
    assert bytes_of(one.encoder) == bytes_of(two.encoder) and bytes_of(one.extractor) == bytes_of(two.extractor)


@pytest.fixture
def state(lab: Any, trained: tuple) -> Platform:
    platform = Platform(lab.state)
    own_datasets.begin_with(platform, SPACE, *trained, seed=0)
    return platform


def test_a_state_begins_with_the_networks_the_data_sets_and_their_results(state: Platform, trained: tuple) -> None:
    sets, warm = trained
    assert state.counts() == {"extractor versions": 2, "encoder versions": 1, "offline data sets": KINDS}
    head = state.versions.head_id()
    extractor, importance = state.versions.tensors(head)
    assert weights.dumps(extractor) == bytes_of(warm.extractor)
    assert weights.dumps(importance) == weights.dumps(warm.importance)
    encoder = state.versions.encoder(SPACE)
    assert bytes_of(encoder.encoder) == bytes_of(warm.encoder) and encoder.extractor_id == head
    offline = state.versions.offline()
    assert set(state.versions.described([head])[head]) == set(offline) and len(offline) == KINDS
    assert all(len(images) == 32 for images in offline.values())
    for task, one in zip(state.tasks(), sets, strict=True):
        assert task.closed is not None and task.dataset == one.name and not task.settings.service
        assert task.experiment == f"warm-up {one.name} ({SPACE.label})"
        assert [t.configuration for t in task.trials] == one.configurations
        assert [t.performance for t in task.trials] == one.performance
        assert {(t.phase, t.status) for t in task.trials} == {(Phase.IMPORT, Status.SUCCEEDED)}
        with torch.no_grad():
            assert task.meta_feature == tuple(warm.extractor(one.images).tolist())
        assert (task.num_images, task.num_boxes) == (int(one.counts[0]), 300)


def test_of_each_data_set_a_seeded_share_of_the_images_is_kept(state: Platform, trained: tuple) -> None:
    rng = np.random.default_rng(0)
    kept = {name: images for name, (_, images) in state.versions.offline_by_name().items()}
    for one in trained[0]:
        expected = recipe.kept_images(one.images, KINDS, rng)
        assert torch.equal(kept[one.name].nan_to_num(9), expected.nan_to_num(9))


@pytest.mark.parametrize("preset", list(Preset))
def test_both_presets_rank_by_what_the_warm_up_knows(state: Platform, preset: str) -> None:
    best = [state.rank(SPACE, like, TaskSettings(preset=preset)).recommendations[0].configuration for like in (1, 2)]
    assert best[0]["x"] < best[1]["x"], "data sets of even numbers want a small x, of odd ones a large x"
    assert len(state.rank(SPACE, 1, TaskSettings(preset=preset)).neighbours) == KINDS


def test_many_data_sets_leave_a_small_state(lab: Any, trained: tuple) -> None:
    sets, warm = trained
    platform = Platform(lab.state)
    many = [OfflineResults(f"{n}-{one.name}", *list(vars(one).values())[1:]) for n in range(20) for one in sets]
    own_datasets.begin_with(platform, SPACE, many, warm, seed=0)
    sizes = {len(images) for images in platform.versions.offline().values()}
    assert sizes == {1024 // 120}


def test_a_state_with_more_than_warm_ups_in_other_spaces_is_not_begun_with(state: Platform, trained: tuple) -> None:
    def refused(space: SearchSpace) -> None:
        before = [task.id for task in state.tasks()]
        for call in (
            lambda other: own_datasets.warm_extractor(state, other),
            lambda other: own_datasets.begin_with(state, other, *trained, seed=0),
        ):
            with pytest.raises(RefusedError, match="it holds more than warm-ups in other spaces; name a new file"):
                call(space)
        assert [task.id for task in state.tasks()] == before

    refused(SPACE)
    state.open_task("mine", SPACE, TaskSettings())
    refused(WIDE)


def test_a_state_with_an_extractor_and_nothing_else_is_not_begun_with(lab: Any, trained: tuple) -> None:
    platform = Platform(lab.state)
    own_datasets.add(platform, "set-0", describe("set-0"))
    with pytest.raises(RefusedError, match="it holds more"):
        own_datasets.begin_with(platform, SPACE, *trained, seed=0)


# -- a second space ---------------------------------------------------------------------------------------------------

WIDE = SearchSpace.from_nni({name: {"_type": "choice", "_value": list(range(5))} for name in ("x", "y", "z")})


@pytest.fixture(scope="module")
def wide(trained: tuple) -> tuple[list[OfflineResults], Any]:
    """Four of the data sets, their results in another space, and what the encoder has learned from these."""
    sets = []
    for number, one in enumerate(trained[0][:4]):
        configurations = WIDE.sample(4 * EACH, np.random.default_rng(number))
        performance = [result(one.name, configuration) for configuration in configurations]
        sets.append(OfflineResults(one.name, one.images, one.counts, configurations, performance))
    return sets, train.train(sets, WIDE, 0, trained[1].extractor)


def scores(state: Platform) -> dict[str, float]:
    ranking = state.rank(SPACE, 1, TaskSettings())
    return {SPACE.key(one.configuration): one.score for one in ranking.recommendations}


def test_a_second_space_leaves_the_extractor_and_the_first_space_as_they_are(state: Platform, wide: tuple) -> None:
    sets, warm = wide
    before, scored = bytes_of(own_datasets.warm_extractor(state, WIDE)), scores(state)
    assert bytes_of(warm.extractor) == before and max(warm.ndcg) > warm.ndcg[0]
    own_datasets.begin_with(state, WIDE, sets, warm, seed=0)
    third = SearchSpace.from_nni({"x": DEFINITION["x"]})
    assert bytes_of(own_datasets.warm_extractor(state, third)) == before
    assert scores(state) == pytest.approx(scored)
    assert state.counts() == {"extractor versions": 2, "encoder versions": 2, "offline data sets": KINDS}
    added = state.tasks()[KINDS:]
    assert [task.experiment for task in added] == [f"warm-up {one.name} ({WIDE.label})" for one in sets]
    assert [task.meta_feature for task in added] == [task.meta_feature for task in state.tasks()[:4]]


@pytest.mark.parametrize("preset", list(Preset))
def test_both_presets_rank_in_the_second_space_by_its_warm_up(state: Platform, wide: tuple, preset: Preset) -> None:
    own_datasets.begin_with(state, WIDE, *wide, seed=0)
    likes = (KINDS + 1, KINDS + 2)
    best = [state.rank(WIDE, like, TaskSettings(preset=preset)).recommendations[0].configuration for like in likes]
    assert best[0]["x"] < best[1]["x"]


def test_a_second_space_is_warmed_up_with_the_extractor_that_is_there(state: Platform, wide: tuple) -> None:
    sets, warm = wide
    images, counts = features.unpack(weights.loads(describe("set-0", 13)))
    other = [OfflineResults("set-0", images, counts, sets[0].configurations, sets[0].performance)]
    with pytest.raises(train.TrainError, match="extract them with the detector it was made for"):
        train.train(other, WIDE, 0, own_datasets.warm_extractor(state, WIDE))
    elsewhere = dataclasses.replace(warm, extractor=MetaFeatureExtractor.initial(WIDTH, seed=99))
    with pytest.raises(RefusedError, match="its extractor is not the one of this warm-up; repeat it"):
        own_datasets.begin_with(state, WIDE, sets, elsewhere, seed=0)
    assert len(state.tasks()) == KINDS


# -- architectures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["proxylessnas", "joint"])
def test_a_warm_up_on_architectures_trains_the_graph_network(lab: Any, trained: tuple, file: str) -> None:
    space = SearchSpace.from_nni(json.loads((SPACES / f"{file}.json").read_text()))
    sets = []
    for number, one in enumerate(trained[0][:2]):
        configurations = space.sample(EACH, np.random.default_rng(number))
        flops = [Architecture.of(configuration).flops / 1e9 for configuration in configurations]
        sets.append(OfflineResults(one.name, one.images, one.counts, configurations, flops))
    warm = train.train(sets, space, seed=0)
    parts = {name.split(".")[0] for name in warm.encoder.state_dict()}
    assert parts == {"gin"} | ({"mlp"} if space.kind == "joint" else set())
    assert not warm.encoder.training
    platform = Platform(lab.state)
    own_datasets.begin_with(platform, space, sets, warm, seed=0)
    assert bytes_of(platform.versions.encoder(space).encoder) == bytes_of(warm.encoder)
    ranking = platform.rank(space, 1, TaskSettings(preset=Preset.PAPER, candidates=20))
    assert len(ranking.recommendations) == 20 and len(ranking.neighbours) == 2


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command_says_what_it_has_learned(hyperfd: Callable, measured: tuple, tmp_path: Path) -> None:
    file, folder = measured
    space, state = tmp_path / "space.json", tmp_path / "new" / "state.sqlite"
    space.write_text(json.dumps(DEFINITION))
    arguments = ("warmup", "train", file.path.parent, "--features", folder, "--space", space, "--state", state)
    code, out, err = hyperfd(*arguments)
    assert (code, err) == (0, "") and out.startswith("39 results on 5 sub-data-sets\n")
    assert "NDCG of the results held out, before and after every check: 0." in out and "at best" in out
    head = Platform(state).versions.tensors(2)[0]
    made = projection.load(state.with_name("state.projection.json"))
    assert (made.extractor, made.width) == (weights.sha256(weights.dumps(head)), WIDTH)
    with torch.no_grad():
        vectors = MetaFeatureExtractor.from_weights(head).image_vectors(train.read(file, folder, SPACE)[0].images)
    assert Platform(state).tasks()[0].meta_feature == tuple(made.described(vectors.numpy()).tolist())
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
