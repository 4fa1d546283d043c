"""The steps of the paper's recipe, each against what it says."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from nni_hyperfd.method import ConfigurationEncoder, RankerSettings, TaskExperience, recipe, update_encoder
from nni_hyperfd.method.selection import explore_exploit
from nni_hyperfd.platform import planning
from nni_hyperfd.space import SearchSpace
from nni_hyperfd.task import TaskSettings
from support.encoded import KINDS, bytes_of, configurations

SETTINGS = RankerSettings(batches=5)


def rng(seed=0):
    return np.random.default_rng(seed)


def numbered(count, first=0):
    """Images whose every feature is their own number."""
    return torch.arange(first, first + count).float().reshape(-1, 1, 1, 1).expand(count, 3, 3, 2)


def numbers(images):
    return images[:, 0, 0, 0].int().tolist()


# -- seeds -------------------------------------------------------------------------------------------------------------


def test_each_task_has_a_seed_of_its_own_that_every_generator_takes():
    assert len({recipe.task_seed(7, number) for number in range(100)}) == 100
    assert recipe.task_seed(2**32 - 1, 3) == 2
    np.random.default_rng(recipe.task_seed(2**32 - 1, 1))
    torch.Generator().manual_seed(recipe.task_seed(2**32 - 1, 2**31))


def test_a_tasks_generator_is_that_of_its_candidates():
    space = SearchSpace.from_nni({"x": {"_type": "uniform", "_value": [0, 1]}})
    assert space.sample(5, recipe.task_rng(3, 8)) == planning.candidates(space, TaskSettings(seed=3), 8, 5)
    assert recipe.task_rng(3, 8).random() != recipe.task_rng(8, 3).random()


def test_picks_are_half_the_top_of_the_ranking_and_half_drawn_by_the_tasks_seed():
    scores = torch.tensor([0.1, 0.9, -0.5, 0.7, 0.3, 0.2])
    chosen = recipe.picks(scores, 4, 0.5, seed=5, number=2)
    assert chosen[:2] == [1, 3] and len(set(chosen)) == 4
    assert chosen == explore_exploit(scores, 4, 0.5, 7)
    assert {tuple(recipe.picks(scores, 4, 0.5, 5, number)) for number in range(30)} > {tuple(chosen)}


# -- the platform's own data sets --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "data_sets", "kept"),
    [(100, 1, 32), (100, 32, 32), (100, 33, 31), (100, 120, 8), (100, 5000, 1), (5, 3, 5), (32, 3, 32)],
)
def test_a_share_of_an_own_data_sets_images_is_kept_in_order(images, data_sets, kept):
    drawn = numbers(recipe.kept_images(numbered(images), data_sets, rng()))
    assert len(drawn) == kept and drawn == sorted(set(drawn)) and set(drawn) <= set(range(images))
    assert drawn == numbers(recipe.kept_images(numbered(images), data_sets, rng()))


def test_every_image_may_be_kept():
    kept = Counter(number for seed in range(300) for number in numbers(recipe.kept_images(numbered(64), 9, rng(seed))))
    assert len(kept) == 64 and all(abs(count - 150) < 45 for count in kept.values())  # standard deviation 8.7


@pytest.mark.parametrize("count", [0, 1, 8, 20])
def test_a_client_is_given_8_data_sets_of_16_images(count):
    own = [numbered(40, first=100 * place) for place in range(count)]
    sample = recipe.images_for_client(own, rng())
    places = [int(numbers(images)[0]) // 100 for images in sample]
    assert len(places) == len(set(places)) == min(8, count)
    for images, place in zip(sample, places, strict=True):
        drawn, first = numbers(images), 100 * place
        assert images.shape == (16, 3, 3, 2)
        assert len(set(drawn)) == 16 and set(drawn) <= set(range(first, first + 40))


def test_small_data_sets_are_given_whole():
    (images,) = recipe.images_for_client([numbered(3)], rng())
    assert sorted(numbers(images)) == [0, 1, 2]


def test_which_data_sets_and_images_a_client_is_given_is_drawn_evenly():
    own = [numbered(32, first=100 * place) for place in range(16)]
    sets, images = Counter(), Counter()
    for seed in range(300):
        for shown in recipe.images_for_client(own, rng(seed)):
            sets[int(numbers(shown)[0]) // 100] += 1
            images.update(number % 100 for number in numbers(shown))
    assert len(sets) == 16 and all(abs(count - 150) < 45 for count in sets.values())  # standard deviation 8.7
    assert len(images) == 32 and all(abs(count - 1200) < 125 for count in images.values())  # standard deviation 24


# -- embeddings and what is not known ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_have_no_gradient(kind):
    encoder = ConfigurationEncoder.initial(configurations(kind, 1), 0)
    embeddings = recipe.embedded(encoder, configurations(kind, 5))
    assert not embeddings.requires_grad
    assert torch.equal(embeddings, encoder(configurations(kind, 5)).detach())
    assert recipe.embedded(encoder, None).shape == (0, 64)


def test_the_mean_stands_for_an_unknown_data_set_or_else_one_direction():
    known = [torch.full((64,), 1.0), torch.full((64,), 4.0)]
    assert torch.equal(recipe.unknown_meta_feature(iter(known)), torch.full((64,), 2.5))
    nothing = recipe.unknown_meta_feature([])
    assert torch.equal(nothing, recipe.unknown_meta_feature([])) and nothing.norm().item() == pytest.approx(1)


# -- the encoder after a task ------------------------------------------------------------------------------------------


def past(kind, seed, known=True, offline=False):
    encoded = configurations(kind, 6, seed)
    performance = torch.from_numpy(encoded.vectors[:, 0] + 0.01 * np.arange(6, dtype=np.float32))
    meta_feature = torch.randn(64, generator=torch.Generator().manual_seed(seed)) if known else None
    return recipe.PastTask(encoded, performance, meta_feature, offline)


def learned(kind, current, others):
    encoder = ConfigurationEncoder.initial(configurations(kind, 1), 0)
    before = bytes_of(encoder)
    after = recipe.learned_encoder(encoder, current, others, SETTINGS, seed=3)
    assert bytes_of(encoder) == before and not after.training
    return after


def experience(task, meta_feature):
    return TaskExperience(task.configurations, task.performance, meta_feature)


@pytest.mark.parametrize("kind", KINDS)
def test_the_encoder_learns_from_clients_and_own_data_sets_by_eq_11(kind):
    current, own = past(kind, 0), [past(kind, 1, offline=True), past(kind, 2, offline=True)]
    clients = [past(kind, 3), past(kind, 4, known=False)]
    after = learned(kind, current, [own[0], clients[0], clients[1], own[1]])
    mean = torch.stack([task.meta_feature for task in (own[0], clients[0], own[1], current)]).mean(0)
    expected = update_encoder(
        ConfigurationEncoder.initial(configurations(kind, 1), 0),
        experience(current, current.meta_feature),
        [experience(clients[0], clients[0].meta_feature), experience(clients[1], mean)],
        [experience(task, task.meta_feature) for task in own],
        SETTINGS,
        seed=3,
    )
    assert bytes_of(after) == bytes_of(expected)
    without = learned(kind, current, clients)
    assert bytes_of(without) != bytes_of(after)


def test_a_task_that_is_not_described_teaches_by_the_mean_of_the_others():
    current, other = past("hpo", 0, known=False), past("hpo", 1)
    after = learned("hpo", current, [other])
    expected = learned("hpo", recipe.PastTask(current.configurations, current.performance, other.meta_feature), [other])
    assert bytes_of(after) == bytes_of(expected)
    alone = learned("hpo", current, [])
    fixed = recipe.unknown_meta_feature([])
    assert bytes_of(alone) == bytes_of(
        learned("hpo", recipe.PastTask(current.configurations, current.performance, fixed), [])
    )
