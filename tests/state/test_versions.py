from __future__ import annotations

import torch
from sqlalchemy import select

from nni_hyperfd.method import features, weights
from nni_hyperfd.platform.platform import Platform
from nni_hyperfd.state.store import Blob
from nni_hyperfd.state.versions import Versions


def offline_bytes(seed):
    images = torch.randn(20, 3, 3, 12, generator=torch.Generator().manual_seed(seed))
    return weights.dumps(features.pack(images, torch.tensor([20.0, 31.0])))


def kept_bytes(platform):
    with platform.store.read() as session:
        return sum(len(blob.data) for blob in session.scalars(select(Blob)))


def test_the_weights_kept_do_not_grow_with_the_number_of_tasks(lab):
    platform = Platform(lab.state)
    platform.add_offline("a", offline_bytes(1))
    kept = []
    for number in range(4):
        lab.run(lab.tuner(f"e{number}", budget=2), lab.dataset(number))
        kept.append(kept_bytes(platform))
    assert kept == kept[:1] * 4
    assert platform.counts() == {"extractor versions": 5, "ranker versions": 4, "offline data sets": 1}


def test_an_open_task_keeps_the_version_that_it_started_from(lab):
    slow = lab.tuner("slow", budget=2)
    lab.run(lab.tuner("first", budget=2))
    slower = lab.tuner("slower", budget=2)
    lab.step(slower)
    for number in range(2):
        lab.run(lab.tuner(f"e{number}", budget=2), lab.dataset(number))
    assert slower.platform.extractor_weights(slower.task_id)
    lab.run(slower)
    lab.run(slow)
    versions = [task.extractor_id for task in slow.platform.tasks()]
    assert sorted(versions) == [2, 3, 4, 5, 6] and all(task.closed for task in slow.platform.tasks())


def test_a_version_without_weights_still_knows_the_offline_data_sets_that_it_has_seen(lab):
    platform = Platform(lab.state)
    platform.add_offline("a", offline_bytes(1))
    platform.add_offline("b", offline_bytes(2))
    lab.run(lab.tuner("one", budget=2))
    lab.run(lab.tuner("two", budget=2), lab.dataset(2))
    platform.add_offline("a", offline_bytes(3))
    platform.add_offline("c", offline_bytes(4))
    with platform.store.write() as session:
        versions = Versions(platform.store, session)
        described = {number: versions.describe_offline(number) for number in (1, 2, 3)}
        current = versions.offline().keys()
    assert current <= described[1].keys() and current <= described[3].keys(), "the seeded and the newest version"
    assert len(described[2]) == 2 and len(described[2].keys() & current) == 1
    assert not torch.equal(described[2][min(described[2])], described[3].get(min(described[2]), torch.zeros(64)))
    lab.run(lab.tuner("three", budget=2), lab.dataset(3))
    assert len(Platform(lab.state).tasks()) == 3
