"""The steps of the paper's recipe (Appendix A) that the platform and the benchmark's recommender share.

Both number the tasks by their arrival, the platform's own data sets included, and draw everything random in a task from
the seed and that number.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from nni_hyperfd.method.config_encoder import ConfigurationEncoder
from nni_hyperfd.method.learning import TaskExperience, update_encoder
from nni_hyperfd.method.selection import explore_exploit
from nni_hyperfd.method.settings import RankerSettings
from nni_hyperfd.space import EncodedConfigurations

INITIAL_SEED = 0
"""Of every network's first weights, so that all clients begin with the same extractor."""
_OFFLINE_SETS, _OFFLINE_IMAGES = 8, 16  # what a learn job is given of D_off: about 0.4 MB
_KEPT_IMAGES, _KEPT_OF_EACH = 1024, 32  # what the platform keeps of D_off: about 2.5 MB with 64 channels


@dataclass(frozen=True, eq=False)
class PastTask:
    """What the encoder learns from one task.

    Attributes:
        configurations: the tried ones.
        performance: float32 (n,), their results, higher is better.
        meta_feature: float32 (64,), carried into the newest extractor's space (eq. 4); None for an unknown data set.
        offline: whether it is one of the platform's own data sets.
    """

    configurations: EncodedConfigurations
    performance: Tensor
    meta_feature: Tensor | None
    offline: bool = False


def task_seed(seed: int, number: int) -> int:
    """The seed of what is random in a task."""
    return (seed + number) % 2**32


def task_rng(seed: int, number: int) -> np.random.Generator:
    """The generator of a task's candidates, and of what its jobs are given."""
    return np.random.default_rng([seed, number])


def picks(scores: Tensor, budget: int, exploration: float, seed: int, number: int) -> list[int]:
    """Indices of the candidates to try, by their scores (n,): the top of the ranking, then some drawn at random."""
    return explore_exploit(scores, budget, exploration, task_seed(seed, number))


def kept_images(images: Tensor, data_sets: int, rng: np.random.Generator) -> Tensor:
    """The image features that the platform keeps of one of its `data_sets` own data sets, in their order."""
    most = min(_KEPT_OF_EACH, max(1, _KEPT_IMAGES // data_sets))
    return images[np.sort(rng.permutation(len(images))[:most])]


def images_for_client(offline: Sequence[Tensor], rng: np.random.Generator) -> list[Tensor]:
    """What a learn job is given of the platform's own data sets: features of a few images of a few of them."""
    sample = []
    for place in rng.permutation(len(offline))[:_OFFLINE_SETS]:
        images = offline[place]
        sample.append(images[rng.permutation(len(images))[:_OFFLINE_IMAGES]])
    return sample


def embedded(encoder: ConfigurationEncoder, configurations: EncodedConfigurations | None) -> Tensor:
    """The embeddings (n, 64) of configurations, without a gradient; none for None."""
    if configurations is None:
        return torch.zeros(0, RankerSettings.hidden)
    with torch.no_grad():
        return cast(Tensor, encoder(configurations))


def unknown_meta_feature(known: Iterable[Tensor]) -> Tensor:
    """What stands for a data set without meta-feature (64,).

    The mean of the known ones, else one fixed direction, so that the score is the same for all such data sets and still
    learns which configurations are good in general.
    """
    rows = list(known)
    return torch.stack(rows).mean(0) if rows else torch.full((RankerSettings.hidden,), RankerSettings.hidden**-0.5)


def learned_encoder(
    encoder: ConfigurationEncoder, current: PastTask, past: Sequence[PastTask], settings: RankerSettings, seed: int
) -> ConfigurationEncoder:
    """The encoder after a task, by the platform's side of eq. 11.

    Args:
        encoder: as it was before the task; left as it is.
        current: the task that ends.
        past: the tasks to learn from beside it (`method.drawing.tasks_to_learn_from`).
        settings: the ranker's constants.
        seed: of everything random (`task_seed`).
    """
    known = [task.meta_feature for task in [*past, current] if task.meta_feature is not None]
    unknown = unknown_meta_feature(known)

    def experience(task: PastTask) -> TaskExperience:
        meta_feature = unknown if task.meta_feature is None else task.meta_feature
        return TaskExperience(task.configurations, task.performance, meta_feature)

    clients = [experience(task) for task in past if not task.offline]
    offline = [experience(task) for task in past if task.offline]
    return update_encoder(encoder, experience(current), clients, offline, settings, seed)
