"""The platform's own data sets, one by one and with a warm-up."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from nni_hyperfd.method import features, recipe, weights
from nni_hyperfd.platform import Platform, RefusedError, own_datasets
from nni_hyperfd.space import SearchSpace
from nni_hyperfd.task import Phase, Status, TaskSettings
from support.own_datasets import packed, results, untaught

OTHER = {"z": {"_type": "choice", "_value": [1, 2, 3, 4, 5, 6, 7]}}


# -- one by one -------------------------------------------------------------------------------------------------------


def test_data_sets_are_kept_by_name(lab):
    platform = Platform(lab.state)
    own_datasets.add(platform, "a", packed(seed=1))
    own_datasets.add(platform, "b", packed(seed=2))
    own_datasets.add(platform, "a", packed(seed=3))
    assert platform.counts()["offline data sets"] == 2
    images, _ = features.unpack(weights.loads(packed(seed=3)))
    assert torch.equal(platform.versions.offline()[weights.sha256(packed(seed=3))], images)


@pytest.mark.parametrize(
    "data, message",
    [
        (b"garbage", "offline data set bad: .*safetensors"),
        (weights.dumps({"features": torch.ones(2)}), "offline data set bad: .*lack present"),
        (packed(dim=9), "offline data set bad: its features have 9 entries, the ones in the state have 12"),
        (packed(count=0), "offline data set bad: .*images"),
        (packed(huge=True), "offline data set bad: .*out of range"),
    ],
    ids=["garbage", "other tensors", "another detector", "no images", "huge numbers"],
)
def test_a_data_set_that_would_break_a_later_task_is_refused(lab, data, message):
    platform = Platform(lab.state)
    own_datasets.add(platform, "good", packed())
    with pytest.raises(RefusedError, match=message):
        own_datasets.add(platform, "bad", data)
    assert platform.counts()["offline data sets"] == 1


def test_a_data_set_of_another_detector_than_the_clients_is_refused(lab):
    lab.run(lab.tuner("e", budget=2, preset="paper"))
    platform = Platform(lab.state)
    with pytest.raises(RefusedError, match="offline data set bad: .*the detector it was made for"):
        own_datasets.add(platform, "bad", packed(dim=9))
    own_datasets.add(platform, "good", packed(dim=12))
    lab.run(lab.tuner("next", budget=2))
    assert platform.counts()["offline data sets"] == 1


# -- with a warm-up ---------------------------------------------------------------------------------------------------


@pytest.fixture
def space(lab):
    return SearchSpace.from_nni(lab.space)


def test_a_warm_up_leaves_data_sets_closed_tasks_and_both_networks(lab, space):
    platform, sets, warm = Platform(lab.state), results(space, lab.score, 3), untaught(space)
    own_datasets.begin_with(platform, space, sets, warm, 0)
    assert platform.counts() == {"extractor versions": 2, "encoder versions": 1, "offline data sets": 3}
    for task, data_set in zip(platform.tasks(), sets, strict=True):
        assert task.dataset == data_set.name and task.experiment == f"warm-up {data_set.name} ({space.label})"
        assert task.closed is not None and task.settings == TaskSettings(budget=5, service=False)
        assert task.results.configurations == tuple(data_set.configurations)
        assert task.results.performance == tuple(data_set.performance)
        assert {(trial.phase, trial.status) for trial in task.trials} == {(Phase.IMPORT, Status.SUCCEEDED)}
        assert (task.num_images, task.num_boxes, task.baseline) == (20, 31, None)
        with torch.no_grad():
            assert task.meta_feature == tuple(warm.extractor(data_set.images).tolist())
    extractor, importance = platform.versions.tensors(platform.versions.head_id())
    assert weights.dumps(extractor) == weights.dumps(warm.extractor.state_dict())
    assert weights.dumps(importance) == weights.dumps(warm.importance)
    encoder = platform.versions.encoder(space).encoder
    assert weights.dumps(encoder.state_dict()) == weights.dumps(warm.encoder.state_dict())


def test_of_a_large_data_set_a_share_of_the_images_is_kept_drawn_by_the_seed(lab, space):
    sets = [
        replace(one, images=torch.cat([one.images] * 3) + torch.arange(60).view(-1, 1, 1, 1))
        for one in results(space, lab.score, 2)
    ]
    kept = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        platform = Platform(lab.folder / f"{name}.sqlite")
        own_datasets.begin_with(platform, space, sets, untaught(space), seed)
        kept[name] = platform.versions.offline()
        assert all(len(images) == recipe._KEPT_OF_EACH for images in kept[name].values())
    assert kept["a"].keys() == kept["b"].keys() and not kept["a"].keys() & kept["c"].keys()
    with torch.no_grad():
        described = untaught(space).extractor(sets[0].images).tolist()
    assert platform.tasks()[0].meta_feature == tuple(described), "all images describe it"


def test_a_second_space_begins_with_the_extractor_of_the_first(lab, space):
    platform, other = Platform(lab.state), SearchSpace.from_nni(OTHER)
    assert own_datasets.warm_extractor(platform, space) is None
    first = untaught(space)
    own_datasets.begin_with(platform, space, results(space, lab.score, 2), first, 0)
    given = own_datasets.warm_extractor(platform, other)
    assert weights.dumps(given.state_dict()) == weights.dumps(first.extractor.state_dict())

    sets = results(other, lambda configuration: 0.1 * configuration["z"], 3)
    with pytest.raises(RefusedError, match="its extractor is not the one of this warm-up; repeat it"):
        own_datasets.begin_with(platform, other, sets, untaught(other, seed=78), 0)
    assert platform.counts() == {"extractor versions": 2, "encoder versions": 1, "offline data sets": 2}
    own_datasets.begin_with(platform, other, sets, untaught(other), 0)
    assert platform.counts() == {"extractor versions": 2, "encoder versions": 2, "offline data sets": 3}
    assert [task.space.signature for task in platform.tasks()] == [space.signature] * 2 + [other.signature] * 3


def test_a_state_that_holds_more_is_no_place_for_a_warm_up(lab, space):
    platform, sets = Platform(lab.state), results(space, lab.score, 2)
    own_datasets.begin_with(platform, space, sets, untaught(space), 0)
    with pytest.raises(RefusedError, match="it holds more than warm-ups in other spaces; name a new file"):
        own_datasets.begin_with(platform, space, sets, untaught(space), 0)
    platform.open_task("a user's", SearchSpace.from_nni(OTHER), TaskSettings())
    for given in (space, SearchSpace.from_nni({"x": OTHER["z"]})):
        with pytest.raises(RefusedError, match="it holds more than warm-ups in other spaces"):
            own_datasets.warm_extractor(platform, given)
    described = Platform(lab.folder / "described.sqlite")
    described.versions.head_id()
    with pytest.raises(RefusedError, match="it holds more than warm-ups"):
        own_datasets.begin_with(described, space, sets, untaught(space), 0)


def test_a_warm_up_that_describes_a_data_set_by_no_number_leaves_no_trace(lab, space):
    platform, sets = Platform(lab.state), results(space, lab.score, 2)
    broken = replace(sets[1], images=torch.full_like(sets[1].images, 3e38))
    with pytest.raises(ValueError, match="meta_feature: every entry must be a finite number"):
        own_datasets.begin_with(platform, space, [sets[0], broken], untaught(space), 0)
    assert platform.counts() == {"extractor versions": 0, "encoder versions": 0, "offline data sets": 0}
    assert platform.tasks() == []
