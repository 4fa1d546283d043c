"""How the two networks learn from a task: the extractor next to the data, the encoder on the platform.

Both functions leave what they are given untouched, return trained copies, run on the CPU and draw every random number
from their `seed`: same inputs, same seed, same bytes.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from . import synaptic
from .config_encoder import MLPEncoder
from .losses import lambda_rank, relevance_span, triplet
from .meta_feature import MetaFeatureExtractor
from .ranker import score
from .settings import RankerSettings
from .synaptic import PathIntegral, si_penalty
from .weights import WeightsError, check_like


@dataclass(frozen=True, eq=False)
class ClientTask:
    """What the client has when it updates the extractor. Raises ValueError for what does not fit together.

    features: (N >= 1, 3, 3, D), image features of the task's data set, NaN for an empty anchor group.
    counts: (2,), number of images and of boxes of its training split, raw.
    embeddings: (n, hidden), the tried configurations as the platform's encoder sees them.
    performance: (n,), their results, finite, higher is better.
    offline_features, offline_counts: the same for the platform's own data sets, (M >= 1, 3, 3, D) and (2,) each.
    """

    features: Tensor
    counts: Tensor
    embeddings: Tensor
    performance: Tensor
    offline_features: list[Tensor] = field(default_factory=list)
    offline_counts: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        _check_list("embeddings", self.embeddings, self.performance)
        if len(self.offline_features) != len(self.offline_counts):
            raise ValueError(
                f"There are {len(self.offline_features)} offline data sets but counts for {len(self.offline_counts)}."
            )
        _check_images("the current task", self.features, self.counts)
        for index, (features, counts) in enumerate(zip(self.offline_features, self.offline_counts, strict=True)):
            _check_images(f"offline data set {index}", features, counts)


@dataclass(frozen=True, eq=False)
class ExtractorUpdate:
    """What the client returns.

    extractor: with the new weights. importance: of each of its parameters after this task, >= 0.
    meta_feature: (hidden,), of all images of the task, by the new weights.
    losses: the unweighted terms "rank", "triplet" and "si" in the first and in the last batch.
    """

    extractor: MetaFeatureExtractor
    importance: dict[str, Tensor]
    meta_feature: Tensor
    losses: dict[str, tuple[float, float]]


@dataclass(frozen=True, eq=False)
class TaskExperience:
    """What the platform knows of one task. Raises ValueError for what does not fit together.

    inputs: float32 (n, in_dim), the tried configurations as the space encodes them.
    performance: (n,), their results, finite, higher is better.
    meta_feature: (hidden,), finite, in the space of the newest extractor (already transformed).
    """

    inputs: Tensor
    performance: Tensor
    meta_feature: Tensor

    def __post_init__(self) -> None:
        _check_list("inputs", self.inputs, self.performance)
        _check_float32("meta_feature", self.meta_feature)
        if self.meta_feature.ndim != 1 or not self.meta_feature.isfinite().all():
            raise ValueError("A task's meta_feature must be one vector of finite numbers.")


def update_extractor(
    extractor: MetaFeatureExtractor,
    importance: Mapping[str, Tensor] | None,
    task: ClientTask,
    settings: RankerSettings,
    seed: int,
) -> ExtractorUpdate:
    """The client's side of eq. 11: ranking + triplet + SI losses, theta_c fixed.

    Every batch ranks the whole list of the task by a random batch of its images. With offline data sets there is also
    a triplet: anchor and positive from two image batches of one data set (current : offline by `settings.sampling`),
    negative from another. importance: after the earlier tasks, None for the first.
    Raises WeightsError for an importance that is not this extractor's, FloatingPointError when a loss is not finite.
    """
    start = {name: parameter.detach().clone() for name, parameter in extractor.named_parameters()}
    earlier = _checked_importance(importance, start)
    extractor = copy.deepcopy(extractor)
    parameters = dict(extractor.named_parameters())
    optimizer = torch.optim.Adam(parameters.values(), lr=settings.learning_rate)
    path = PathIntegral(parameters)
    generator = torch.Generator().manual_seed(seed)
    history = []

    for batch in range(settings.batches):
        (images,) = _image_batches(task.features, 1, settings.image_batch, generator)
        scores = score(task.embeddings, extractor(images, task.counts))
        terms = {
            "rank": _ranking_loss(scores, task.performance, task.performance, settings),
            "triplet": _triplet_of_drawn_images(extractor, task, settings, generator),
            "si": si_penalty(parameters, earlier, start),
        }
        for name, value in terms.items():
            _check_finite(f"{name} loss", value, batch)
        history.append({name: value.item() for name, value in terms.items()})

        optimizer.zero_grad()
        (terms["rank"] + settings.triplet_weight * terms["triplet"]).backward()
        with path.step({name: parameter.grad for name, parameter in parameters.items()}):
            (settings.si_weight * terms["si"]).backward()
            optimizer.step()

    with torch.no_grad():
        meta_feature = extractor(task.features, task.counts)
    _check_finite("meta-feature", meta_feature, settings.batches)
    return ExtractorUpdate(
        extractor=extractor,
        importance=synaptic.importance(earlier, path.omega, start, parameters, settings.damping),
        meta_feature=meta_feature,
        losses={name: (history[0][name], history[-1][name]) for name in history[0]},
    )


def update_encoder(
    encoder: MLPEncoder,
    current: TaskExperience,
    past: list[TaskExperience],
    offline: list[TaskExperience],
    settings: RankerSettings,
    seed: int,
) -> MLPEncoder:
    """The platform's side of eq. 11: the configuration encoder learns to rank in new and old tasks, theta_d fixed.

    Every batch is `settings.batch_size` configurations of one task, whose kind is drawn by `settings.sampling` among
    the kinds present. A task without two different performances has nothing to rank and is skipped; when all are,
    the copy is unchanged. Raises FloatingPointError when the loss is not finite.
    """
    encoder = copy.deepcopy(encoder)
    kinds = [[task for task in kind if task.performance.unique().numel() > 1] for kind in ([current], past, offline)]
    odds = [share if kind else 0 for share, kind in zip(settings.sampling, kinds, strict=True)]
    if not any(odds):
        return encoder
    optimizer = torch.optim.Adam(encoder.parameters(), lr=settings.learning_rate)
    generator = torch.Generator().manual_seed(seed)

    for batch in range(settings.batches):
        kind = kinds[_draw(odds, generator)]
        task = kind[_draw([1] * len(kind), generator)]
        items = torch.randperm(len(task.performance), generator=generator)[: settings.batch_size]
        scores = score(encoder(task.inputs[items]), task.meta_feature)
        loss = _ranking_loss(scores, task.performance[items], task.performance, settings)
        _check_finite("rank loss", loss, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return encoder


def _ranking_loss(scores: Tensor, performance: Tensor, whole: Tensor, settings: RankerSettings) -> Tensor:
    """The loss of a list's scores by `settings.loss`. performance: (n,); whole: all performances of its task."""
    if whole.unique().numel() < 2:
        return 0.0 * scores.sum()  # nothing to rank, and no spread to standardise by
    if settings.loss == "mse":
        standardised = (performance - whole.mean()) / whole.std(correction=0).clamp(min=1e-12)
        return (scores - standardised).square().mean()
    span = relevance_span(whole, settings.relevance_quantile)
    return lambda_rank(scores, performance, settings.sigma, span, settings.top_relevance)


def _triplet_of_drawn_images(
    extractor: MetaFeatureExtractor, task: ClientTask, settings: RankerSettings, generator: torch.Generator
) -> Tensor:
    """Eq. 7 for one drawn pair of data sets; 0 without offline data sets, as there is no negative then."""
    data_sets = [
        (task.features, task.counts),
        *zip(task.offline_features, task.offline_counts, strict=True),
    ]
    if len(data_sets) == 1:
        return torch.zeros(())
    current_share, _, offline_share = settings.sampling
    offline = len(data_sets) - 1
    features, counts = data_sets.pop(_draw([current_share] + [offline_share / offline] * offline, generator))
    other_features, other_counts = data_sets[_draw([1] * offline, generator)]
    first, second = _image_batches(features, 2, settings.image_batch, generator)
    (other,) = _image_batches(other_features, 1, settings.image_batch, generator)
    return triplet(extractor(first, counts), extractor(second, counts), extractor(other, other_counts), settings.margin)


def _image_batches(features: Tensor, count: int, size: int, generator: torch.Generator) -> list[Tensor]:
    """`count` disjoint random batches of at most `size` images; too few images are repeated."""
    order = torch.randperm(len(features), generator=generator)
    if len(order) < count:
        order = order.repeat(count)
    return [features[indices] for indices in order[: count * size].tensor_split(count)]


def _draw(odds: list[float], generator: torch.Generator) -> int:
    """An index, drawn in proportion to `odds`."""
    return int(torch.multinomial(torch.tensor(odds, dtype=torch.float64), 1, generator=generator))


def _checked_importance(given: Mapping[str, Tensor] | None, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The importance so far, zeros before the first task."""
    if given is None:
        return {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    check_like(given, parameters, "the extractor's importance")
    for name, values in given.items():
        if not (values.isfinite().all() and (values >= 0).all()):
            raise WeightsError(f"{name!r} of the extractor's importance must be finite and 0 or greater.")
    return dict(given)


def _check_list(name: str, rows: Tensor, performance: Tensor) -> None:
    if rows.ndim != 2 or performance.ndim != 1 or len(rows) != len(performance):
        raise ValueError(
            f"A task needs one row of {name} and one performance for each tried configuration, "
            f"got shapes {tuple(rows.shape)} and {tuple(performance.shape)}."
        )
    _check_float32(name, rows)
    for what, values in ((name, rows), ("performance", performance)):
        if not values.isfinite().all():
            raise ValueError(f"A task's {what} must be finite: leave failed trials out.")


def _check_images(where: str, features: Tensor, counts: Tensor) -> None:
    _check_float32("image features", features)
    missing = features.isnan()
    if features.isinf().any() or (missing.any(dim=-1) != missing.all(dim=-1)).any():
        raise ValueError(
            f"The image features of {where} must be finite, or NaN throughout for an anchor group without anchors."
        )
    if counts.shape != (2,) or not (counts.isfinite().all() and (counts >= 0).all()):
        raise ValueError(f"The counts of {where} must be two numbers (images, boxes), 0 or greater, got {counts}.")


def _check_float32(what: str, values: Tensor) -> None:
    if values.dtype != torch.float32:
        raise ValueError(f"A task's {what} must be float32, not {str(values.dtype).removeprefix('torch.')}.")


def _check_finite(what: str, value: Tensor, batch: int) -> None:
    if not value.isfinite().all():
        raise FloatingPointError(
            f"The {what} is not finite after {batch} batches of learning: the inputs of this task are too large, "
            "or the learning rate is too high."
        )
