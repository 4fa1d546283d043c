"""What the two networks learn from, checked when it is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nni_hyperfd.space import EncodedConfigurations


@dataclass(frozen=True, eq=False)
class ClientTask:
    """What the client has when it updates the extractor.

    Attributes:
        features: float32 (N >= 1, 3, 3, D), image features of the task's data set, NaN for an empty anchor group.
        embeddings: float32 (n, hidden), the tried configurations as the platform's encoder sees them.
        performance: (n,), their results, finite, higher is better.
        offline: `features` of data sets of the platform's own.
        replay: float32 (k, hidden), finite: past tasks' meta-features, carried into the space of the extractor that is
            to be updated and without a name on them. They are further negatives of the triplets. None: there are none.

    Raises:
        ValueError: the parts do not fit together, or hold numbers that are not finite.
    """

    features: Tensor
    embeddings: Tensor
    performance: Tensor
    offline: Sequence[Tensor] = ()
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
        _check_images("the current task", self.features)
        for index, features in enumerate(self.offline):
            _check_images(f"offline data set {index}", features)


@dataclass(frozen=True, eq=False)
class TaskExperience:
    """What the platform knows of one task when it updates the encoder.

    Attributes:
        configurations: the n tried ones.
        performance: float32 (n,), their results, finite, higher is better.
        meta_feature: float32 (hidden,), finite, in the space of the newest extractor (already transformed, eq. 4).

    Raises:
        ValueError: the parts do not fit together, or hold numbers that are not finite.
    """

    configurations: EncodedConfigurations
    performance: Tensor
    meta_feature: Tensor

    def __post_init__(self) -> None:
        _check_performance(self.configurations, self.performance)
        _check_float32("meta_feature", self.meta_feature)
        if self.meta_feature.ndim != 1 or not self.meta_feature.isfinite().all():
            raise ValueError("A task's meta_feature must be one vector of finite numbers.")


@dataclass(frozen=True, eq=False)
class OfflineTask:
    """One of the platform's own data sets and what configurations brought on it.

    Attributes:
        features: float32 (N >= 1, 3, 3, D), as in `ClientTask`.
        configurations: the n measured ones.
        performance: float32 (n,), their results, finite, higher is better.

    Raises:
        ValueError: the parts do not fit together, or hold numbers that are not finite.
    """

    features: Tensor
    configurations: EncodedConfigurations
    performance: Tensor

    def __post_init__(self) -> None:
        _check_performance(self.configurations, self.performance)
        _check_images("the offline data set", self.features)


def _check_performance(configurations: EncodedConfigurations, performance: Tensor) -> None:
    if performance.shape != (len(configurations),):
        raise ValueError(
            f"A task needs one performance for each of its {len(configurations)} tried configurations, "
            f"got shape {tuple(performance.shape)}."
        )
    _check_finite("performance", performance)


def _check_list(name: str, rows: Tensor, performance: Tensor) -> None:
    if rows.ndim != 2 or performance.ndim != 1 or len(rows) != len(performance):
        raise ValueError(
            f"A task needs one row of {name} and one performance for each tried configuration, "
            f"got shapes {tuple(rows.shape)} and {tuple(performance.shape)}."
        )
    _check_float32(name, rows)
    _check_finite(name, rows)
    _check_finite("performance", performance)


def _check_images(where: str, features: Tensor) -> None:
    _check_float32("image features", features)
    missing = features.isnan()
    if features.isinf().any() or (missing.any(dim=-1) != missing.all(dim=-1)).any():
        raise ValueError(
            f"The image features of {where} must be finite, or NaN throughout for an anchor group without anchors."
        )


def _check_float32(what: str, values: Tensor) -> None:
    if values.dtype != torch.float32:
        raise ValueError(f"A task's {what} must be float32, not {str(values.dtype).removeprefix('torch.')}.")


def _check_finite(what: str, values: Tensor) -> None:
    if not values.isfinite().all():
        raise ValueError(f"A task's {what} must be finite: leave failed trials out.")
