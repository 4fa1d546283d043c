"""What the platform does with what owners allow: who may be learned from, and what others are given of it."""

from __future__ import annotations

import json

import pytest
import torch

from nni_hyperfd.method import weights
from nni_hyperfd.platform import Platform, moving, own_datasets
from nni_hyperfd.platform.jobs import extract_job, learn_job
from nni_hyperfd.space import SearchSpace
from nni_hyperfd.task import Phase, TaskSettings
from nni_hyperfd.wire import Description, ExtractorUpdate
from support.own_datasets import begin_warm, packed
from support.rows import add_task

PAPER = TaskSettings(budget=1, preset="paper", replay="meta-features")


def described(platform, space, name, description, settings=PAPER):
    """A task after its extract trial."""
    task_id = platform.open_task(name, space, settings)
    platform.start(platform.next_trial(task_id).id, 0)
    platform.describe(task_id, 0, description)
    return task_id


def tried(platform, task_id):
    """The phase of what follows when the budget is spent."""
    platform.start(platform.next_trial(task_id).id, 1)
    platform.observe(task_id, 1, 0.5)
    following = platform.next_trial(task_id)
    return None if following is None else following.phase


@pytest.fixture
def space(lab):
    return SearchSpace.from_nni(lab.space)


@pytest.fixture
def platform(lab, space):
    """A state that began with a warm-up."""
    begin_warm(lab.state, space, lab.score, 2)
    return Platform(lab.state)


def test_the_default_preset_never_asks_for_an_update(platform, space):
    for preset, among, phase in (("paper", 5, Phase.LEARN), ("paper", 0, None), ("default", 5, None)):
        settings = TaskSettings(budget=1, preset=preset)
        description = Description([0.5] * 64, 100, None, 0.5, among=among)
        task_id = described(platform, space, f"{preset} {among}", description, settings)
        assert tried(platform, task_id) is phase


def test_a_data_set_that_is_not_described_is_ranked_without(platform, space, caplog):
    withheld = Description(None, None, None, 0.5, withheld="few", among=1)
    task_id = described(platform, space, "e", withheld)
    task = platform.task(task_id)
    assert (task.meta_feature, task.num_images, task.baseline) == (None, None, 0.5)
    assert "its data set is not described (it has fewer images than its owner's minimum)" in caplog.text
    assert tried(platform, task_id) is None and platform.task(task_id).closed is not None


def test_a_data_set_that_is_not_described_leaves_the_warm_up_alone(platform, space):
    """It must not be given up for one whose detector is another."""
    described(platform, space, "e", Description(None, None, None, 0.5, withheld="unknown"))
    assert len(platform.versions.offline()) == 2 and platform.versions.tensors(platform.versions.head_id())[0]


# -- versions ----------------------------------------------------------------------------------------------------------


def update_of(platform, value, **others):
    """An update that adds a number to every weight of the newest extractor."""
    given, importance = platform.versions.tensors(platform.versions.head_id())
    changed = {name: tensor + value for name, tensor in given.items()}
    return ExtractorUpdate(changed, {name: tensor + 1 for name, tensor in importance.items()}, [value] * 64, **others)


def updated(platform, space, name, among, value, parent=None):
    """A task whose owner has sent an update."""
    task_id = described(platform, space, name, Description([0.5] * 64, 100, None, 0.5, among=among))
    assert tried(platform, task_id) is Phase.LEARN
    platform.start(platform.next_trial(task_id).id, 2)
    platform.close_task(task_id, update_of(platform, value) if parent is None else parent)
    return platform.task(task_id)


def test_a_description_by_an_earlier_version_is_kept_as_that(platform, space):
    old = platform.versions.head_id()
    (digest,) = platform.versions.digests()
    updated(platform, space, "moves the head", 1, 0.25)
    assert platform.versions.head_id() != old
    task_id = platform.open_task("e", space, PAPER)
    assert set(extract_job(platform, task_id).versions) == set(platform.versions.digests()) > {digest}
    platform.start(platform.next_trial(task_id).id, 0)
    platform.describe(task_id, 0, Description([0.5] * 64, 100, None, 0.5, extractor=digest))
    task = platform.task(task_id)
    assert task.extractor_id == old and task.meta_feature == (0.5,) * 64
    assert platform.versions.carried([task], platform.versions.head_id())[task_id].shape == (64,)


def test_a_description_by_an_extractor_that_nobody_knows_is_refused(lab, platform, space):
    tuner = lab.tuner("e")
    tuner.ask(0)
    strange = Description([0.5] * 64, 100, None, 0.5, extractor="a" * 64)
    tuner.receive_intermediate(0, {"hyperfd": strange.pack()})
    task = platform.task(tuner.task_id)
    assert task.meta_feature is None and "extractor that this state does not have" in task.trials[0].reason


def test_an_update_waits_until_enough_others_are_there_and_only_their_mean_is_handed_on(platform, space):
    head = platform.versions.head_id()
    given, _ = platform.versions.tensors(head)
    for number, value in enumerate([0.1, 0.2]):
        task = updated(platform, space, f"e{number}", 3, value)
        assert platform.versions.head_id() == head and task.extractor_id not in (head, None)
        assert task.meta_feature == pytest.approx((value,) * 64)
        next_id = platform.open_task(f"after {number}", space, PAPER)
        assert weights.dumps(extract_job(platform, next_id).extractor) == weights.dumps(given)
    updated(platform, space, "e2", 3, 0.6)
    newest, importance = platform.versions.tensors(platform.versions.head_id())
    for name, tensor in newest.items():
        torch.testing.assert_close(tensor, given[name] + 0.3)
    assert importance and platform.versions.head_id() != head
    assert len(platform.versions.described([platform.versions.head_id()])[platform.versions.head_id()]) == 2


def test_the_most_careful_owner_decides_how_many_are_averaged(platform, space):
    head = platform.versions.head_id()
    for number, among in enumerate([2, 4, 2]):
        updated(platform, space, f"e{number}", among, 0.1)
        assert platform.versions.head_id() == head
    updated(platform, space, "e3", 2, 0.1)
    assert platform.versions.head_id() != head


def test_an_owner_who_does_not_care_moves_the_head_and_nobody_waits_any_more(platform, space):
    updated(platform, space, "careful", 2, 0.5)
    given, _ = platform.versions.tensors(platform.versions.head_id())
    updated(platform, space, "open", 1, 0.1)
    head = platform.versions.head_id()
    newest, _ = platform.versions.tensors(head)
    torch.testing.assert_close(newest["image.bias"], given["image.bias"] + 0.1)
    updated(platform, space, "careful, too", 2, 0.5)
    assert platform.versions.head_id() == head, "the first one was made from an earlier version"


def test_a_waiting_update_is_not_exported(platform, space):
    task = updated(platform, space, "e", 3, 0.1)
    document = moving.export(platform)
    version = document["extractors"][str(task.extractor_id)]
    assert version["weights"] not in document["blobs"] and version["importance"] not in document["blobs"]
    assert document["extractors"][str(platform.versions.head_id())]["weights"] in document["blobs"]


# -- what others are given ---------------------------------------------------------------------------------------------


def test_only_shared_meta_features_are_replayed(platform, space):
    head = platform.versions.head_id()
    for number, share in enumerate([True, False, None]):
        row = {"meta_feature": [float(number)] * 64, "extractor_id": head, "share": share}
        add_task(platform, space, f"e{number}", [0.1, 0.2], **row)
    replay = learn_job(platform, platform.open_task("last", space, PAPER)).replay
    assert replay.tolist() == [[0.0] * 64]


def test_private_data_sets_of_the_platforms_own_never_leave(platform, space, lab):
    own_datasets.add(platform, "secret", packed(seed=5, count=7), private=True)
    task_id = platform.open_task("e", space, PAPER)
    assert sorted(len(images) for images in learn_job(platform, task_id).offline) == [16, 16]
    assert len(platform.versions.offline()) == 3, "the platform itself uses it"
    document = json.dumps(moving.export(platform))
    assert "secret" not in document and weights.sha256(packed(seed=5, count=7)) not in json.loads(document)["blobs"]
    own_datasets.add(platform, "secret", packed(seed=5, count=7))
    assert len(learn_job(platform, task_id).offline) == 3


def test_the_initial_extractor_has_no_version_to_be_carried_over(lab, space):
    platform = Platform(lab.state)
    task_id = platform.open_task("e", space, PAPER)
    job = extract_job(platform, task_id)
    assert (job.extractor, list(job.versions)) == ({}, [])
