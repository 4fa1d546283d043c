"""The client's side of eq. 11: the extractor learns next to the data, the encoder is fixed."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nni_hyperfd.method import synaptic
from nni_hyperfd.method.learning.draws import image_batches, shared, triplet_parts
from nni_hyperfd.method.learning.objective import check_finite, gradients, meta_features, ranking_loss, triplet_loss
from nni_hyperfd.method.learning.tasks import ClientTask
from nni_hyperfd.method.scoring import score
from nni_hyperfd.method.settings import RankerSettings
from nni_hyperfd.method.synaptic import PathIntegral, si_penalty
from nni_hyperfd.method.weights import WeightsError, check_like


@dataclass(frozen=True, eq=False)
class LearnedExtractor:
    """What an update of the extractor has made.

    Attributes:
        extractor: with the new weights.
        importance: of each of its parameters after this task (eq. 9), >= 0.
        meta_feature: (hidden,), of all images of the task, by the new weights.
        losses: the unweighted terms "rank", "triplet" and "si" in the first and in the last batch.
    """

    extractor: nn.Module
    importance: dict[str, Tensor]
    meta_feature: Tensor
    losses: dict[str, tuple[float, float]]


def update_extractor(
    extractor: nn.Module,
    importance: Mapping[str, Tensor] | None,
    task: ClientTask,
    settings: RankerSettings,
    seed: int,
) -> LearnedExtractor:
    """Minimise the ranking, triplet and SI losses of a task over the extractor's weights.

    Every batch ranks the whole list of the task by a random batch of its images. With offline data sets or replay there
    is also a triplet: anchor and positive from two image batches of one data set (current : offline by
    `settings.sampling`), negative from another, a past task's of the replay like any other.

    Args:
        extractor: left as it is.
        importance: of its parameters after the earlier tasks, None for the first.
        task: what the client has.
        settings: the ranker's constants.
        seed: of everything random.

    Returns:
        The updated extractor.

    Raises:
        WeightsError: the importance is not this extractor's.
        FloatingPointError: a loss is not finite.
    """
    start = {name: parameter.detach().clone() for name, parameter in extractor.named_parameters()}
    earlier = _checked_importance(importance, start)
    extractor = copy.deepcopy(extractor)
    parameters = dict(extractor.named_parameters())
    optimizer = torch.optim.Adam(parameters.values(), lr=settings.learning_rate)
    path = PathIntegral(parameters)
    generator = torch.Generator().manual_seed(seed)
    data_sets = [task.features, *task.offline]
    odds = shared(settings.sampling[0], 1) + shared(settings.sampling[2], len(data_sets) - 1)
    history = []

    for batch in range(settings.batches):
        ranked = image_batches(task.features, 1, settings.image_batch, generator)
        apart, replayed = triplet_parts(data_sets, odds, task.replay, settings, generator)
        meta_feature, *drawn = meta_features(extractor, [*ranked, *apart])
        scores = score(task.embeddings, meta_feature)
        terms = {
            "rank": ranking_loss(scores, task.performance, task.performance, settings),
            "triplet": triplet_loss([*drawn, *replayed], settings),
            "si": si_penalty(parameters, earlier, start),
        }
        for name, value in terms.items():
            check_finite(f"{name} loss", value, batch)
        history.append({name: value.item() for name, value in terms.items()})

        optimizer.zero_grad()
        (terms["rank"] + settings.triplet_weight * terms["triplet"]).backward()
        with path.step(gradients(parameters)):
            (settings.si_weight * terms["si"]).backward()
            optimizer.step()

    with torch.no_grad():
        meta_feature = extractor(task.features)
    check_finite("meta-feature", meta_feature, settings.batches)
    return LearnedExtractor(
        extractor=extractor,
        importance=synaptic.importance(earlier, path.omega, start, parameters, settings.damping),
        meta_feature=meta_feature,
        losses={name: (history[0][name], history[-1][name]) for name in history[0]},
    )


def _checked_importance(given: Mapping[str, Tensor] | None, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The importance so far, zeros before the first task."""
    if given is None:
        return {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    check_like(given, parameters, "the extractor's importance")
    for name, values in given.items():
        if not (values.isfinite().all() and (values >= 0).all()):
            raise WeightsError(f"{name!r} of the extractor's importance must be finite and 0 or greater.")
    return dict(given)
