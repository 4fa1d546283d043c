"""The warm-up: both networks learn on the platform's own data sets before any task."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nni_hyperfd.method import synaptic
from nni_hyperfd.method.config_encoder import ConfigurationEncoder
from nni_hyperfd.method.learning.draws import image_batches, list_of, times_drawn, triplet_parts
from nni_hyperfd.method.learning.objective import (
    check_finite,
    gradients,
    meta_features,
    rankable,
    ranking_loss,
    triplet_loss,
)
from nni_hyperfd.method.learning.tasks import OfflineTask
from nni_hyperfd.method.losses import ndcg
from nni_hyperfd.method.scoring import score
from nni_hyperfd.method.seeding import seeded
from nni_hyperfd.method.settings import RankerSettings
from nni_hyperfd.method.synaptic import PathIntegral

HELD_OUT = 0.2
"""Share of every data set's results that the warm-up validates on (not given in the paper)."""
PATIENCE = 5
"""Checks without a better NDCG after which the warm-up ends (not given in the paper)."""

_Lists = list[tuple[OfflineTask, Tensor]]
"""Data sets, and the places of some of their results."""


@dataclass(frozen=True, eq=False)
class WarmUp:
    """Both networks as they were after the batch from which they ranked best.

    Attributes:
        extractor: the extractor.
        encoder: the configuration encoder.
        importance: of each of the extractor's parameters by then, >= 0 (eq. 9, with the warm-up as the first task).
        ndcg: of the results held out, before the first batch and after every `settings.batches`; NaN without such
            results.
    """

    extractor: nn.Module
    encoder: ConfigurationEncoder
    importance: dict[str, Tensor]
    ndcg: list[float]


def warm_up(
    extractor: nn.Module,
    encoder: ConfigurationEncoder,
    tasks: Sequence[OfflineTask],
    settings: RankerSettings,
    seed: int,
    max_batches: int = 5000,
    frozen: bool = False,
) -> WarmUp:
    """Train both networks jointly on (configuration, data set, performance) of the platform's own data sets.

    Every batch is `settings.batch_size` lists, each of a data set drawn at random and seen through a random batch of
    its images, and a triplet where there are two data sets. A fifth of each data set's results is held out; every
    `settings.batches` batches these are ranked, and when their NDCG, the mean over the data sets, has not risen for
    `PATIENCE` times or `max_batches` are through, the best networks so far are returned. Results too few or too equal
    to be held out are all trained on, for `settings.batches` batches; without anything to rank nothing is learned.

    Args:
        extractor: left as it is.
        encoder: left as it is.
        tasks: one or more data sets.
        settings: the ranker's constants.
        seed: of everything random, dropout included.
        max_batches: maximum number of batches.
        frozen: whether the extractor stays as it is, for it has described what it cannot describe again.

    Returns:
        Trained copies of both networks.

    Raises:
        ValueError: there is no data set.
        FloatingPointError: a loss is not finite.
    """
    if not tasks:
        raise ValueError("The warm-up needs at least one data set with results.")
    extractor, encoder = copy.deepcopy(extractor).requires_grad_(not frozen), copy.deepcopy(encoder)
    parameters = dict(extractor.named_parameters())
    start = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    path = PathIntegral(parameters)
    optimizer = torch.optim.Adam([*parameters.values(), *encoder.parameters()], lr=settings.learning_rate)
    generator = torch.Generator().manual_seed(seed)
    split = [_held_out(task.performance, generator) for task in tasks]
    lists = [(task, kept) for task, (kept, _) in zip(tasks, split, strict=True) if rankable(task.performance[kept])]
    validation = [(task, out) for task, (_, out) in zip(tasks, split, strict=True) if len(out)]
    data_sets = [task.features for task in tasks]
    best, waited = copy.deepcopy((extractor, encoder, path.omega)), 0
    history = [_mean_ndcg(extractor, encoder, validation)]
    with seeded(seed):
        for batch in range(0 if not lists else max_batches if validation else settings.batches):
            encoder.train()
            loss = _loss(extractor, encoder, lists, data_sets, settings, generator)
            check_finite("warm-up loss", loss, batch)
            optimizer.zero_grad()
            loss.backward()
            with path.step(gradients(parameters)):
                optimizer.step()

            if (batch + 1) % settings.batches == 0:
                history.append(_mean_ndcg(extractor, encoder, validation))
                waited += 1
                if not validation or history[-1] > max(history[:-1]):
                    best, waited = copy.deepcopy((extractor, encoder, path.omega)), 0
                if waited == PATIENCE:
                    break
    extractor, encoder, omega = best
    none = {name: torch.zeros_like(parameter) for name, parameter in start.items()}
    after = dict(extractor.named_parameters())
    importance = synaptic.importance(none, omega, start, after, settings.damping)
    return WarmUp(extractor, encoder.eval(), importance, history)


def _loss(
    extractor: nn.Module,
    encoder: ConfigurationEncoder,
    lists: _Lists,
    data_sets: Sequence[Tensor],
    settings: RankerSettings,
    generator: torch.Generator,
) -> Tensor:
    """The ranking and triplet losses of one batch."""
    drawn = times_drawn([1] * len(lists), settings.batch_size, generator)
    batches: list[Tensor] = []
    items_of: dict[int, Tensor] = {}
    for place in drawn:
        task, kept = lists[place]
        batches += image_batches(task.features, 1, settings.image_batch, generator)
        items_of[place] = kept[list_of(len(kept), generator)]
    apart, _ = triplet_parts(data_sets, [1] * len(data_sets), None, settings, generator)
    described = meta_features(extractor, [*batches, *apart])
    loss = settings.triplet_weight * triplet_loss(described[len(batches) :], settings)
    for (place, times), meta_feature in zip(drawn.items(), described, strict=False):
        (task, kept), items = lists[place], items_of[place]
        scores = score(encoder(task.configurations[items.numpy()]), meta_feature)
        ranking = ranking_loss(scores, task.performance[items], task.performance[kept], settings)
        loss = loss + times / settings.batch_size * ranking
    return loss


def _mean_ndcg(extractor: nn.Module, encoder: ConfigurationEncoder, lists: _Lists) -> float:
    """Mean over (data set, which of its results) of the NDCG that the scores order them with; NaN for no list."""
    encoder.eval()
    with torch.no_grad():
        values = [
            ndcg(score(encoder(task.configurations[items.numpy()]), extractor(task.features)), task.performance[items])
            for task, items in lists
        ]
    return float(torch.tensor(values).mean())


def _held_out(performance: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Places of the results to learn from and of those to validate on; none of the latter unless they can be ranked."""
    order = torch.randperm(len(performance), generator=generator)
    out = order[: round(HELD_OUT * len(order))]
    return (order[len(out) :], out) if rankable(performance[out]) else (order, order[:0])
