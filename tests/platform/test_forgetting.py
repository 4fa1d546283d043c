"""A task that its owner wants deleted."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sqlalchemy import delete, select

from nni_hyperfd.experiment.class_args import WARM_STATE
from nni_hyperfd.method import MetaFeatureExtractor, weights
from nni_hyperfd.platform import EmbeddedPlatform, Platform, RefusedError, forgetting
from nni_hyperfd.state.tables import EncoderRow, ExtractorRow, TaskRow, TrialRow
from nni_hyperfd.task import Phase, Preset, TaskSettings
from nni_hyperfd.wire import Description, ExtractorUpdate
from support.platform_contract import SPACE, opened, run_next
from support.rows import add_task, all_rows


def test_a_forgotten_task_is_gone_from_the_file_and_the_rest_is_learned_anew(lab):
    for number, name in enumerate(("first", "second")):
        lab.run(lab.tuner(name, budget=2, preset="paper"), lab.dataset(number + 1))
    platform = Platform(lab.state)
    first, second = platform.tasks()
    gone = json.dumps(list(first.meta_feature)).encode()
    assert gone in lab.content() and platform.counts()["encoder versions"] == 2

    deleted = forgetting.forget(platform, ["first", "elsewhere"])
    assert deleted.experiments == ("first",) and deleted.newest, "the second has gone on from its update"
    assert platform.tasks() == [second] and gone not in lab.content()
    assert platform.counts()["encoder versions"] == 0
    assert forgetting.forget(platform, ["first"]).sentences() == ["Nothing was deleted: there are no such tasks."]

    lab.run(lab.tuner("third", budget=2, preset="paper"), lab.dataset(3))
    assert [task.experiment for task in platform.tasks()] == ["second", "third"]
    assert platform.counts()["encoder versions"] >= 1


def numbers(seed):
    return [float(number) for number in np.random.default_rng(seed).normal(size=64)]


def updated(platform, experiment, seed, among=1):
    """A whole task with an update of the extractor."""
    task_id = opened(platform, experiment, preset=Preset.PAPER)
    run_next(platform, task_id, 0)
    platform.describe(task_id, 0, Description(numbers(seed), 20, 30, 0.25, initial=False, among=among))
    for parameter_id in (1, 2):
        trial = run_next(platform, task_id, parameter_id)
        platform.observe(task_id, parameter_id, trial.configuration["x"] / 20 + seed / 1000)
    platform.settle(task_id)
    assert run_next(platform, task_id, 3).phase is Phase.LEARN
    network = MetaFeatureExtractor.initial(8, seed).state_dict()
    importance = {name: tensor * 0 + 1 for name, tensor in network.items()}
    platform.close_task(task_id, ExtractorUpdate(network, importance, numbers(seed + 100)))
    return task_id


def bytes_of(*numbers_of_tasks):
    return [repr(number).encode() for own in numbers_of_tasks for number in own]


@pytest.fixture(params=["file", "postgresql"])
def state(request, tmp_path):
    return tmp_path / "state.sqlite" if request.param == "file" else request.getfixturevalue("cluster").new_database()


def test_nothing_of_a_deleted_task_is_left_but_what_the_answer_says(state):
    platform = EmbeddedPlatform(state)
    first, gone, last = (updated(platform, f"experiment-{seed}", seed) for seed in (1, 2, 3))
    with platform.store.read() as session:
        own = session.get_one(TaskRow, gone).extractor_id
        newest = platform.versions.head_id()
    deleted = forgetting.forget_tasks(platform, [gone, 77])
    assert (deleted.task_ids, deleted.experiments) == ((gone,), ("experiment-2",))
    assert deleted.extractors == (own, newest) and deleted.newest and deleted.spaces == (SPACE.signature,)
    assert any(f"versions {own}, {newest} of the extractor, among them the newest" in s for s in deleted.sentences())
    rows = repr(all_rows(platform.store))
    assert "experiment-2" not in rows and "experiment-3" in rows
    assert not any(digits.decode() in rows for digits in bytes_of(numbers(2), numbers(102)))
    assert [task.id for task in platform.tasks()] == [first, last]
    if deleted.where.startswith("On the disk: earlier copies"):
        content = b"".join(path.read_bytes() for path in state.parent.iterdir())
        assert b"experiment-3" in content and bytes_of(numbers(103))[0] in content
        assert b"experiment-2" not in content
        assert not any(digits in content for digits in bytes_of(numbers(2), numbers(102)))
    assert forgetting.forget_tasks(platform, [gone]).task_ids == ()
    platform.close()


def test_the_ranker_is_then_the_one_that_had_never_seen_the_task(tmp_path):
    rankers = []
    for name, never in (("forgot", False), ("never", True)):
        platform = Platform(tmp_path / f"{name}.sqlite")
        ids = [
            add_task(platform, SPACE, f"e{number}", np.random.default_rng(number).random(4).tolist(), closed=False)
            for number in range(4)
        ]
        if never:
            with platform.store.write() as session:
                session.execute(delete(TrialRow).where(TrialRow.task_id == ids[1]))
                session.execute(delete(TaskRow).where(TaskRow.id == ids[1]))
        for task_id in set(ids) - ({ids[1]} if never else set()):
            platform.learning.close(task_id)
        if not never:
            platform.rank(SPACE, None, TaskSettings())
            assert forgetting.forget_tasks(platform, [ids[1]]).extractors == ()
            assert platform.learning.due() == [SPACE.signature] and not platform.learning.learn_next(SPACE.signature)
            assert platform.learning.due() == []
        platform.learning.learn_anew(SPACE)
        encoder = weights.dumps(platform.versions.encoder(SPACE).encoder.state_dict())
        rankers.append((encoder, platform.rank(SPACE, None, TaskSettings())))
    assert rankers[0] == rankers[1]


def test_an_update_that_waits_to_be_averaged_goes_without_a_trace(tmp_path):
    platform = EmbeddedPlatform(tmp_path / "state.sqlite")
    waiting = [updated(platform, f"experiment-{seed}", seed, among=2) for seed in (1,)]
    assert forgetting.forget_tasks(platform, waiting).extractors == ()
    assert platform.counts()["extractor versions"] == 1, "the initial one"
    pair = [updated(platform, f"experiment-{seed}", seed, among=2) for seed in (2, 3)]
    with platform.store.read() as session:
        head = session.scalars(select(ExtractorRow.id).where(ExtractorRow.head)).one()
    deleted = forgetting.forget_tasks(platform, pair[:1])
    assert deleted.extractors == (head,) and deleted.newest, "the mean has it"
    platform.close()


def test_the_extractor_can_be_the_packages_again(tmp_path):
    platform = EmbeddedPlatform(tmp_path / "state.sqlite", WARM_STATE)
    before = platform.versions.tensors(platform.versions.head_id())
    with platform.store.write() as session:
        given = platform.versions.head(session)
        session.add(ExtractorRow(head=True, parent_id=given.id, weights=given.weights, importance=given.importance))
        given.head = False
    version_id = forgetting.begin_extractor_again(platform, WARM_STATE)
    assert platform.versions.head_id() == version_id
    after = platform.versions.tensors(version_id)
    assert all(weights.dumps(one) == weights.dumps(other) for one, other in zip(before, after, strict=True))
    with platform.store.read() as session:
        assert session.scalars(select(EncoderRow)).all() == []
    with pytest.raises(RefusedError, match="it has no extractor"):
        forgetting.begin_extractor_again(platform, tmp_path / "none.sqlite")
    platform.close()
