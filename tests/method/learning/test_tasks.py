"""What the networks learn from is checked when it is made."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from nni_hyperfd.method import ClientTask, OfflineTask, TaskExperience
from support.encoded import KINDS, configurations, images

NAN = float("nan")


def client_task():
    return ClientTask(
        features=images(40),
        embeddings=torch.ones(4, 64),
        performance=torch.arange(4.0),
        offline=[images(30, seed=1), images(30, seed=2)],
        replay=torch.zeros(2, 64),
    )


@pytest.mark.parametrize(
    "change, message",
    [
        ({"performance": torch.zeros(3)}, "one row of embeddings and one performance"),
        ({"performance": torch.zeros(4, 1)}, r"got shapes \(4, 64\) and \(4, 1\)"),
        ({"performance": torch.tensor([1.0, 2.0, NAN, 0.0])}, "performance must be finite: leave failed trials out"),
        ({"embeddings": torch.full((4, 64), NAN)}, "embeddings must be finite"),
        ({"embeddings": torch.zeros(4, 64).double()}, "embeddings must be float32, not float64"),
        ({"features": images(40).double()}, "image features must be float32"),
        ({"features": images(40) / 0}, "image features of the current task must be finite"),
        ({"features": images(40).index_fill(3, torch.tensor([1]), NAN)}, "image features of the current task"),
        ({"replay": torch.full((2, 64), NAN)}, "replay must be a table of finite numbers"),
        ({"replay": torch.zeros(64)}, "replay must be a table"),
        ({"replay": torch.zeros(2, 32)}, "replay has meta-features of 32 numbers, the embeddings have 64"),
        ({"replay": torch.zeros(2, 64).double()}, "replay must be float32"),
        ({"offline": [images(3), images(3) / 0]}, "image features of offline data set 1 must be finite"),
        ({"offline": [images(3).double()]}, "image features must be float32"),
    ],
)
def test_client_tasks(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(client_task(), **change)


def test_a_client_task_may_have_no_results_and_no_neighbours():
    task = ClientTask(images(1), torch.zeros(0, 64), torch.zeros(0))
    assert task.offline == () and task.replay is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "change, message",
    [
        ({"performance": torch.zeros(3)}, r"one performance for each of its 20 tried configurations, got shape \(3,\)"),
        ({"performance": torch.zeros(20, 1)}, r"got shape \(20, 1\)"),
        ({"performance": torch.full((20,), NAN)}, "performance must be finite"),
        ({"performance": torch.full((20,), float("inf"))}, "performance must be finite: leave failed trials out"),
        ({"meta_feature": torch.full((64,), NAN)}, "one vector of finite numbers"),
        ({"meta_feature": torch.zeros(1, 64)}, "one vector of finite numbers"),
        ({"meta_feature": torch.zeros(64).double()}, "meta_feature must be float32"),
    ],
)
def test_experience(kind, change, message):
    experience = TaskExperience(configurations(kind, 20), torch.arange(20.0), torch.ones(64))
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(experience, **change)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"performance": torch.zeros(3)}, "one performance for each of its 20 tried configurations"),
        ({"performance": torch.full((20,), NAN)}, "performance must be finite"),
        ({"features": images(4).double()}, "image features must be float32"),
        ({"features": images(4) / 0}, "image features of the offline data set must be finite"),
    ],
)
def test_offline_tasks(change, message):
    task = OfflineTask(images(4), configurations("hpo", 20), torch.arange(20.0))
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(task, **change)
