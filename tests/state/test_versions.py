from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from sqlalchemy import select

from nni_hyperfd.method import MetaFeatureExtractor, fit_transform, weights
from nni_hyperfd.platform import Platform, RefusedError, StateError, own_datasets
from nni_hyperfd.space import SearchSpace
from nni_hyperfd.state.store import Store
from nni_hyperfd.state.tables import BlobRow, ExtractorRow
from nni_hyperfd.wire import ExtractorUpdate
from support.own_datasets import packed
from support.rows import add_task

SPACE = SearchSpace.from_nni({"x": {"_type": "choice", "_value": [1, 2, 3, 4]}})


def update(seed, dim=12, hidden=64):
    """What a client would send, had it learned these weights."""
    extractor = MetaFeatureExtractor.initial(dim, seed, hidden).state_dict()
    return ExtractorUpdate(extractor, {name: torch.ones_like(t) for name, t in extractor.items()}, [0.5] * 64)


def add_version(platform, parent_id, given):
    extractor = platform.versions.checked_update(given)
    with platform.store.write() as session:
        return platform.versions.add_extractor(session, parent_id, extractor).id


def kept_bytes(platform):
    with platform.store.read() as session:
        return sum(len(blob.data) for blob in session.scalars(select(BlobRow)))


# -- the newest version -----------------------------------------------------------------------------------------------


def test_an_empty_state_begins_with_the_initial_version_which_has_no_weights(lab):
    platform = Platform(lab.state)
    head_id = platform.versions.head_id()
    assert platform.versions.head_id() == head_id and platform.counts()["extractor versions"] == 1
    assert platform.versions.tensors(head_id) == ({}, {})
    assert platform.versions.extractor(head_id) is None, "nobody knows its width yet"
    own_datasets.add(platform, "a", packed(1))
    initial = MetaFeatureExtractor.initial(12, seed=0)
    assert weights.dumps(platform.versions.extractor(head_id).state_dict()) == weights.dumps(initial.state_dict())


def test_an_update_of_the_newest_version_becomes_the_newest_and_a_late_one_is_kept_beside(lab, caplog):
    platform = Platform(lab.state)
    first = platform.versions.head_id()
    second = add_version(platform, first, update(1))
    assert platform.versions.head_id() == second and not caplog.records
    late = add_version(platform, first, update(2))
    assert platform.versions.head_id() == second
    assert f"has updated the extractor since version {first}" in caplog.text
    for version_id, seed in ((second, 1), (late, 2)):
        extractor, importance = platform.versions.tensors(version_id)
        assert weights.dumps(extractor) == weights.dumps(update(seed).extractor)
        assert weights.dumps(importance) == weights.dumps(update(seed).importance)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (update(1, dim=9), "extractor update"),
        (ExtractorUpdate({"a": torch.zeros(2)}, {}, [0.5] * 64), "extractor update"),
        (ExtractorUpdate(update(1).extractor, {}, [0.5] * 64), "extractor importance"),
        (update(1, hidden=32), "extractor update"),
    ],
    ids=["another detector", "something else", "no importance", "narrower"],
)
def test_an_update_has_the_names_and_shapes_of_the_newest_version(lab, given, reason):
    platform = Platform(lab.state)
    add_version(platform, platform.versions.head_id(), update(0))
    with pytest.raises(RefusedError, match=reason):
        platform.versions.checked_update(given)


def test_the_first_update_must_make_meta_features_of_64_numbers(lab):
    platform = Platform(lab.state)
    platform.versions.checked_update(update(1, dim=9))
    with pytest.raises(RefusedError, match="its meta-features do not have 64 numbers"):
        platform.versions.checked_update(update(1, hidden=32))
    with pytest.raises(RefusedError, match="not the weights of a meta-feature extractor"):
        platform.versions.checked_update(ExtractorUpdate({"a": torch.zeros(2)}, {}, [0.5] * 64))


def test_a_version_that_is_replaced_and_dropped_meanwhile_is_no_reason_to_fail(lab, monkeypatch):
    """Between any two transactions another experiment may close."""
    platform, other = Platform(lab.state), Platform(lab.state)
    own_datasets.add(platform, "a", packed(1))
    add_version(platform, platform.versions.head_id(), update(1))
    own_datasets.add(platform, "b", packed(2))
    read, seeds = Store.read, iter(range(10, 100))

    @contextmanager
    def read_and_be_overtaken(store):
        with read(store) as session:
            yield session
        if store is platform.store:
            add_version(other, other.versions.head_id(), update(next(seeds)))
            other.versions.described([other.versions.head_id()])
            with other.store.write() as session:
                other.versions.drop_unneeded(session)

    monkeypatch.setattr(Store, "read", read_and_be_overtaken)
    assert platform.versions.checked_update(update(2)).weights == weights.dumps(update(2).extractor)
    platform.versions.describe_before_dropping()
    ids = range(1, 1 + platform.counts()["extractor versions"])
    assert platform.versions.described(ids).keys() >= {1, 2}
    assert next(seeds) > 15, "nothing was overtaken, so this test proves nothing"


# -- what is kept -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_weights_kept_do_not_grow_with_the_number_of_tasks(lab):
    platform = Platform(lab.state)
    own_datasets.add(platform, "a", packed(1))
    kept = []
    for number in range(4):
        lab.run(lab.tuner(f"e{number}", budget=2, preset="paper"), lab.dataset(number))
        kept.append(kept_bytes(platform))
    assert kept == kept[:1] * 4
    assert platform.counts() == {"extractor versions": 5, "encoder versions": 4, "offline data sets": 1}


@pytest.mark.slow
def test_an_open_task_keeps_the_version_that_it_started_from(lab):
    slow = lab.tuner("slow", budget=2, preset="paper")
    lab.run(lab.tuner("first", budget=2, preset="paper"))
    slower = lab.tuner("slower", budget=2, preset="paper")
    lab.step(slower)
    for number in range(2):
        lab.run(lab.tuner(f"e{number}", budget=2, preset="paper"), lab.dataset(number))
    assert slower.platform.versions.tensors(slower.platform.task(slower.task_id).extractor_id)[0]
    lab.run(slower)
    lab.run(slow)
    versions = [task.extractor_id for task in slow.platform.tasks()]
    assert sorted(versions) == [2, 3, 4, 5, 6] and all(task.closed for task in slow.platform.tasks())


def test_weights_that_were_dropped_are_missed_by_name(lab):
    platform = Platform(lab.state)
    first = add_version(platform, platform.versions.head_id(), update(1))
    add_version(platform, first, update(2))
    with platform.store.write() as session:
        platform.versions.drop_unneeded(session)
    with pytest.raises(StateError, match="the weights [0-9a-f]{12} are missing or damaged; restore the file"):
        platform.versions.extractor(first)


# -- maps between versions --------------------------------------------------------------------------------------------


def test_a_version_without_weights_still_knows_the_data_sets_that_it_has_seen(lab):
    platform = Platform(lab.state)
    for name, seed in (("a", 1), ("b", 2)):
        own_datasets.add(platform, name, packed(seed))
    first = platform.versions.head_id()
    second = add_version(platform, first, update(1))
    third = add_version(platform, second, update(2))
    with platform.store.write() as session:
        platform.versions.drop_unneeded(session)
    for name, seed in (("a", 3), ("c", 4)):
        own_datasets.add(platform, name, packed(seed))
    described = platform.versions.described([first, second, third])
    current = platform.versions.offline().keys()
    assert current <= described[first].keys() and current <= described[third].keys(), "the seeded and the newest one"
    assert len(described[second]) == 2 and len(described[second].keys() & current) == 1
    for version_id, seed in ((second, 1), (third, 2)):
        with torch.no_grad():
            expected = MetaFeatureExtractor.from_weights(update(seed).extractor)(platform.versions.offline()[sha(2)])
        torch.testing.assert_close(described[version_id][sha(2)], expected)


def sha(seed):
    return weights.sha256(packed(seed))


def test_old_meta_features_are_carried_over_by_the_map_that_fits_the_data_sets(lab):
    """Also from versions whose weights have been dropped."""
    platform = Platform(lab.state)
    for number in range(3):
        own_datasets.add(platform, f"off{number}", packed(number + 50))
    ids, tasks = [platform.versions.head_id()], []
    for seed in (1, 2, 3):
        ids.append(add_version(platform, ids[-1], update(seed)))
        h = torch.randn(64, generator=torch.Generator().manual_seed(seed)).tolist()
        tasks.append(add_task(platform, SPACE, str(seed), [0.1, 0.2], meta_feature=h, extractor_id=ids[-1]))
    add_task(platform, SPACE, "not described", [0.1, 0.2], extractor_id=ids[1])
    with platform.store.write() as session:
        platform.versions.drop_unneeded(session)
        kept = set(session.scalars(select(BlobRow.sha256)))
        dropped = [row.weights not in kept for row in session.scalars(select(ExtractorRow).where(ExtractorRow.id > 1))]
    assert dropped == [True, True, False]

    carried = platform.versions.carried(platform.tasks(), ids[-1])
    assert list(carried) == tasks
    extractors = [MetaFeatureExtractor.from_weights(update(seed).extractor) for seed in (1, 2, 3)]
    data_sets = list(platform.versions.offline().values())
    with torch.no_grad():
        described = [torch.stack([extractor(images) for images in data_sets]) for extractor in extractors]
    for place, task in enumerate(platform.tasks()[:3]):
        h = torch.tensor(task.meta_feature)
        expected = h if place == 2 else fit_transform(described[place], described[2]) @ h
        torch.testing.assert_close(carried[task.id], expected)
    mapped = described[0] @ fit_transform(described[0], described[2]).T
    assert (mapped - described[2]).norm() < (described[0] - described[2]).norm()


def test_without_data_sets_of_the_platforms_own_meta_features_are_taken_as_they_are(lab):
    platform = Platform(lab.state)
    head_id = platform.versions.head_id()
    add_task(platform, SPACE, "a", [0.1, 0.2], meta_feature=[0.25] * 64)
    newest = add_version(platform, head_id, update(1))
    (carried,) = platform.versions.carried(platform.tasks(), newest).values()
    assert carried.tolist() == [0.25] * 64
