"""The platform's side of eq. 11: the configuration encoder learns, the extractor is fixed."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch

from nni_hyperfd.method.config_encoder import ConfigurationEncoder
from nni_hyperfd.method.learning.draws import list_of, shared, times_drawn
from nni_hyperfd.method.learning.objective import check_finite, rankable, ranking_loss
from nni_hyperfd.method.learning.tasks import TaskExperience
from nni_hyperfd.method.scoring import score
from nni_hyperfd.method.seeding import seeded
from nni_hyperfd.method.settings import RankerSettings


def update_encoder(
    encoder: ConfigurationEncoder,
    current: TaskExperience | None,
    past: Sequence[TaskExperience],
    offline: Sequence[TaskExperience],
    settings: RankerSettings,
    seed: int,
) -> ConfigurationEncoder:
    """Minimise the ranking loss of new and old tasks over the encoder's weights.

    Every batch is `settings.batch_size` lists, the results of one task each (`draws.LONGEST_LIST` at most, drawn at
    random), whose kind is drawn by `settings.sampling` among the kinds present. A task without two different
    performances has nothing to rank and is skipped; when all are, the copy is unchanged.

    Args:
        encoder: left as it is.
        current: the task that has just ended, or None where it has no results.
        past: earlier tasks of clients.
        offline: the platform's own data sets.
        settings: the ranker's constants.
        seed: of everything random, dropout included.

    Returns:
        A trained copy.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    encoder = copy.deepcopy(encoder)
    given = ([] if current is None else [current], past, offline)
    kinds = [[task for task in kind if rankable(task.performance)] for kind in given]
    tasks = [task for kind in kinds for task in kind]
    odds = [part for share, kind in zip(settings.sampling, kinds, strict=True) for part in shared(share, len(kind))]
    if not any(odds):
        return encoder
    optimizer = torch.optim.Adam(encoder.parameters(), lr=settings.learning_rate)
    generator = torch.Generator().manual_seed(seed)
    encoder.train()

    with seeded(seed):
        for batch in range(settings.batches):
            loss = torch.zeros(())
            for place, times in times_drawn(odds, settings.batch_size, generator).items():
                task = tasks[place]
                items = list_of(len(task.performance), generator)
                scores = score(encoder(task.configurations[items.numpy()]), task.meta_feature)
                ranking = ranking_loss(scores, task.performance[items], task.performance, settings)
                loss = loss + times / settings.batch_size * ranking
            check_finite("rank loss", loss, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return encoder.eval()
