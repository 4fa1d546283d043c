"""How the two networks learn: both on the platform's own data sets (`warm_up`), then, from task to task, the extractor
next to the data (`update_extractor`) and the encoder on the platform (`update_encoder`).

All functions leave what they are given untouched, return trained copies, run on the CPU and draw every random number
from their `seed`: same inputs, same seed, same bytes.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nni_hyperfd.method import synaptic
from nni_hyperfd.method.config_encoder import MLPEncoder
from nni_hyperfd.method.losses import lambda_rank, ndcg, triplet
from nni_hyperfd.method.meta_feature import MetaFeatureExtractor
from nni_hyperfd.method.scoring import score
from nni_hyperfd.method.settings import RankerSettings
from nni_hyperfd.method.synaptic import PathIntegral, si_penalty
from nni_hyperfd.method.weights import WeightsError, check_like

LONGEST_LIST = 200
"""Results of one task in a list at most, as many as the paper has candidates: a list costs time by its square."""
HELD_OUT = 0.2
"""Share of every data set's results that the warm-up validates on (not given in the paper)."""
PATIENCE = 5
"""Checks without a better NDCG after which the warm-up ends (not given in the paper)."""


View = tuple[Tensor, Tensor]
"""Image features (N >= 1, 3, 3, D) of a data set or of a batch of it, and the counts (2,) of the data set."""


@dataclass(frozen=True, eq=False)
class ClientTask:
    """What the client has when it updates the extractor. Raises ValueError for what does not fit together.

    features: (N >= 1, 3, 3, D), image features of the task's data set, NaN for an empty anchor group.
    counts: (2,), number of images and of boxes of its training split, raw.
    embeddings: (n, hidden), the tried configurations as the platform's encoder sees them.
    performance: (n,), their results, finite, higher is better.
    offline_features, offline_counts: the same for the platform's own data sets, (M >= 1, 3, 3, D) and (2,) each.
    replay: float32 (k, hidden), finite: past tasks' meta-features, carried into the space of the extractor that is to
    be updated and without a name on them. They are further negatives of the triplets. None: there are none.
    """

    features: Tensor
    counts: Tensor
    embeddings: Tensor
    performance: Tensor
    offline_features: list[Tensor] = field(default_factory=list)
    offline_counts: list[Tensor] = field(default_factory=list)
    replay: Tensor | None = None

    def __post_init__(self) -> None:
        _check_list("embeddings", self.embeddings, self.performance)
        if self.replay is not None:
            _check_float32("replay", self.replay)
            if self.replay.ndim != 2 or not self.replay.isfinite().all():
                raise ValueError("A task's replay must be a table of finite numbers, a meta-feature a row.")
            if self.replay.shape[1] != self.embeddings.shape[1]:
                raise ValueError(
                    f"A task's replay has meta-features of {self.replay.shape[1]} numbers, "
                    f"the embeddings have {self.embeddings.shape[1]}."
                )
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


@dataclass(frozen=True, eq=False)
class OfflineTask:
    """One of the platform's own data sets and what configurations brought on it. ValueError for what does not fit.

    features: (N >= 1, 3, 3, D) and counts: (2,), as in `ClientTask`. inputs: float32 (n, in_dim) and
    performance: (n,), as in `TaskExperience`.
    """

    features: Tensor
    counts: Tensor
    inputs: Tensor
    performance: Tensor

    def __post_init__(self) -> None:
        _check_list("inputs", self.inputs, self.performance)
        _check_images("the offline data set", self.features, self.counts)


@dataclass(frozen=True, eq=False)
class WarmUp:
    """Both networks by the batch after which they ranked best.

    importance: of each of the extractor's parameters by then, >= 0 (eq. 9, with the warm-up as the first task).
    ndcg: of the results held out, before the first batch and after every `settings.batches`; NaN without such results.
    """

    extractor: MetaFeatureExtractor
    encoder: MLPEncoder
    importance: dict[str, Tensor]
    ndcg: list[float]


def warm_up(
    extractor: MetaFeatureExtractor,
    encoder: MLPEncoder,
    tasks: list[OfflineTask],
    settings: RankerSettings,
    seed: int,
    max_batches: int = 5000,
    frozen: bool = False,
) -> WarmUp:
    """Train both networks jointly on (configuration, data set, performance) of offline data sets, before any task.

    Every batch is `settings.batch_size` lists, each of a data set drawn at random and seen through a random batch of
    its images, and a triplet where there are two data sets. A fifth of each data set's results is held out; every
    `settings.batches` batches these are ranked, and when their NDCG, the mean over the data sets, has not risen for
    `PATIENCE` times or `max_batches` are through, the best networks so far are returned. Results too few or too equal
    to be held out are all trained on, for `settings.batches` batches; without anything to rank nothing is learned.
    frozen: the extractor stays as it is, for it has described what it cannot describe again.
    Raises ValueError without a data set, FloatingPointError when a loss is not finite.
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
    lists = [(task, kept) for task, (kept, _) in zip(tasks, split, strict=True) if _rankable(task.performance[kept])]
    validation = [(task, out) for task, (_, out) in zip(tasks, split, strict=True) if len(out)]
    data_sets = [(task.features, task.counts) for task in tasks]
    best, waited = copy.deepcopy((extractor, encoder, path.omega)), 0
    history = [_mean_ndcg(extractor, encoder, validation)]
    for batch in range(0 if not lists else max_batches if validation else settings.batches):
        drawn, views, items_of = _draws([1] * len(lists), settings.batch_size, generator), [], {}
        for place in drawn:
            task, kept = lists[place]
            (images,) = _image_batches(task.features, 1, settings.image_batch, generator)
            views.append((images, task.counts))
            items_of[place] = kept[_list_of(len(kept), generator)]
        triplet_views, _ = _drawn_triplet(data_sets, [1] * len(data_sets), None, settings, generator)
        meta_features = _meta_features(extractor, [*views, *triplet_views])
        ranked, apart = meta_features[: len(views)], meta_features[len(views) :]
        loss = settings.triplet_weight * _triplet_loss(apart, settings)
        for (place, times), meta_feature in zip(drawn.items(), ranked, strict=True):
            (task, kept), items = lists[place], items_of[place]
            scores = score(encoder(task.inputs[items]), meta_feature)
            ranking = _ranking_loss(scores, task.performance[items], task.performance[kept], settings)
            loss = loss + times / settings.batch_size * ranking
        _check_finite("warm-up loss", loss, batch)
        optimizer.zero_grad()
        loss.backward()
        with path.step(_gradients(parameters)):
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
    return WarmUp(extractor, encoder, synaptic.importance(none, omega, start, after, settings.damping), history)


def update_extractor(
    extractor: MetaFeatureExtractor,
    importance: Mapping[str, Tensor] | None,
    task: ClientTask,
    settings: RankerSettings,
    seed: int,
) -> ExtractorUpdate:
    """The client's side of eq. 11: ranking + triplet + SI losses, theta_c fixed.

    Every batch ranks the whole list of the task by a random batch of its images. With offline data sets or replay there
    is also a triplet: anchor and positive from two image batches of one data set (current : offline by
    `settings.sampling`), negative from another, a past task's of the replay like any other.
    importance: after the earlier tasks, None for the first.
    Raises WeightsError for an importance that is not this extractor's, FloatingPointError when a loss is not finite.
    """
    start = {name: parameter.detach().clone() for name, parameter in extractor.named_parameters()}
    earlier = _checked_importance(importance, start)
    extractor = copy.deepcopy(extractor)
    parameters = dict(extractor.named_parameters())
    optimizer = torch.optim.Adam(parameters.values(), lr=settings.learning_rate)
    path = PathIntegral(parameters)
    generator = torch.Generator().manual_seed(seed)
    data_sets = [(task.features, task.counts), *zip(task.offline_features, task.offline_counts, strict=True)]
    odds = _shared(settings.sampling[0], 1) + _shared(settings.sampling[2], len(data_sets) - 1)
    history = []

    for batch in range(settings.batches):
        (images,) = _image_batches(task.features, 1, settings.image_batch, generator)
        apart, replayed = _drawn_triplet(data_sets, odds, task.replay, settings, generator)
        meta_feature, *drawn = _meta_features(extractor, [(images, task.counts), *apart])
        scores = score(task.embeddings, meta_feature)
        terms = {
            "rank": _ranking_loss(scores, task.performance, task.performance, settings),
            "triplet": _triplet_loss([*drawn, *replayed], settings),
            "si": si_penalty(parameters, earlier, start),
        }
        for name, value in terms.items():
            _check_finite(f"{name} loss", value, batch)
        history.append({name: value.item() for name, value in terms.items()})

        optimizer.zero_grad()
        (terms["rank"] + settings.triplet_weight * terms["triplet"]).backward()
        with path.step(_gradients(parameters)):
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

    Every batch is `settings.batch_size` lists, the results of one task each (`LONGEST_LIST` at most, drawn at random),
    whose kind is drawn by `settings.sampling` among the kinds present. A task without two different performances has
    nothing to rank and is skipped; when all are, the copy is unchanged. Raises FloatingPointError when the loss is not
    finite.
    """
    encoder = copy.deepcopy(encoder)
    kinds = [[task for task in kind if _rankable(task.performance)] for kind in ([current], past, offline)]
    tasks = [task for kind in kinds for task in kind]
    odds = [part for share, kind in zip(settings.sampling, kinds, strict=True) for part in _shared(share, len(kind))]
    if not any(odds):
        return encoder
    optimizer = torch.optim.Adam(encoder.parameters(), lr=settings.learning_rate)
    generator = torch.Generator().manual_seed(seed)

    for batch in range(settings.batches):
        loss = torch.zeros(())
        for place, times in _draws(odds, settings.batch_size, generator).items():
            task = tasks[place]
            items = _list_of(len(task.performance), generator)
            scores = score(encoder(task.inputs[items]), task.meta_feature)
            ranking = _ranking_loss(scores, task.performance[items], task.performance, settings)
            loss = loss + times / settings.batch_size * ranking
        _check_finite("rank loss", loss, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return encoder


def _gradients(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Zeros for the parameters of a part that the extractor goes without."""
    return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in parameters.items()}


def _ranking_loss(scores: Tensor, performance: Tensor, whole: Tensor, settings: RankerSettings) -> Tensor:
    """The loss of a list's scores by `settings.loss`. performance: (n,); whole: all performances of its task."""
    if not _rankable(whole):
        return 0.0 * scores.sum()  # nothing to rank, and no spread to standardise by
    if settings.loss == "mse":
        standardised = (performance - whole.mean()) / whole.std(correction=0).clamp(min=1e-12)
        return (scores - standardised).square().mean()
    return lambda_rank(scores, performance, settings.sigma, (whole.min().item(), whole.max().item()))


def _drawn_triplet(
    data_sets: list[View],
    odds: list[float],
    replay: Tensor | None,
    settings: RankerSettings,
    generator: torch.Generator,
) -> tuple[list[View], list[Tensor]]:
    """A random triplet of eq. 7, anchor, positive, negative: what is still to be made into meta-features, and the
    negative if it is a meta-feature already. Empty for a single data set, as there is no negative then.

    data_sets: image features and counts, the anchor's drawn by `odds`. replay: (k, hidden), further negatives or None.
    """
    past = 0 if replay is None else len(replay)
    if len(data_sets) + past == 1:
        return [], []
    drawn = _draw(odds, generator)
    (features, counts), others = data_sets[drawn], data_sets[:drawn] + data_sets[drawn + 1 :]
    other = _draw([1] * (len(others) + past), generator)
    views = [(images, counts) for images in _image_batches(features, 2, settings.image_batch, generator)]
    if other >= len(others):
        return views, [replay[other - len(others)]]
    features, counts = others[other]
    (images,) = _image_batches(features, 1, settings.image_batch, generator)
    return [*views, (images, counts)], []


def _triplet_loss(meta_features: Sequence[Tensor], settings: RankerSettings) -> Tensor:
    """Of anchor, positive and negative, (hidden,) each; 0 for none."""
    return triplet(*meta_features, settings.margin) if meta_features else torch.zeros(())


def _meta_features(extractor: MetaFeatureExtractor, views: Sequence[View]) -> list[Tensor]:
    """(hidden,) of each view; those with equally many images pass the extractor together, which saves its overhead."""
    sizes = [len(images) for images, _ in views]
    result: dict[int, Tensor] = {}
    for size in set(sizes):
        places = [place for place, other in enumerate(sizes) if other == size]
        images, counts = (torch.stack(part) for part in zip(*(views[place] for place in places), strict=True))
        result |= zip(places, extractor(images, counts), strict=True)
    return [result[place] for place in range(len(views))]


def _mean_ndcg(extractor: MetaFeatureExtractor, encoder: MLPEncoder, lists: list[tuple[OfflineTask, Tensor]]) -> float:
    """Mean over (data set, which of its results) of the NDCG that the scores order them with; NaN for no list."""
    with torch.no_grad():
        values = [
            ndcg(score(encoder(task.inputs[items]), extractor(task.features, task.counts)), task.performance[items])
            for task, items in lists
        ]
    return float(torch.tensor(values).mean())


def _held_out(performance: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Places of the results to learn from and of those to validate on; none of the latter unless they can be ranked."""
    order = torch.randperm(len(performance), generator=generator)
    out = order[: round(HELD_OUT * len(order))]
    return (order[len(out) :], out) if _rankable(performance[out]) else (order, order[:0])


def _rankable(performance: Tensor) -> bool:
    return performance.unique().numel() > 1


def _list_of(results: int, generator: torch.Generator) -> Tensor:
    """Places of at most `LONGEST_LIST` of a task's results, drawn at random."""
    return torch.randperm(results, generator=generator)[:LONGEST_LIST]


def _shared(share: float, count: int) -> list[float]:
    """`count` equal parts of a share; with none there is nothing to share."""
    return [share / count] * count if count else []


def _image_batches(features: Tensor, count: int, size: int, generator: torch.Generator) -> list[Tensor]:
    """`count` disjoint random batches of at most `size` images; too few images are repeated."""
    order = torch.randperm(len(features), generator=generator)
    if len(order) < count:
        order = order.repeat(count)
    return [features[indices] for indices in order[: count * size].tensor_split(count)]


def _draw(odds: list[float], generator: torch.Generator) -> int:
    """An index, drawn in proportion to `odds`."""
    return int(torch.multinomial(torch.tensor(odds, dtype=torch.float64), 1, generator=generator))


def _draws(odds: list[float], count: int, generator: torch.Generator) -> Counter[int]:
    """How often each index came up in `count` independent draws in proportion to `odds`."""
    weights = torch.tensor(odds, dtype=torch.float64)
    return Counter(torch.multinomial(weights, count, replacement=True, generator=generator).tolist())


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
