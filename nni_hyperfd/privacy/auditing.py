"""The attacks of `nni_hyperfd.privacy.attacks` on data sets of one's own, without noise and with it."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from nni_hyperfd.privacy import attacks, mechanism
from nni_hyperfd.privacy.mechanism import Vectors
from nni_hyperfd.privacy.projection import Projection
from nni_hyperfd.privacy.release import Extractor, projection_for
from nni_hyperfd.privacy.settings import PrivacySettings

SIZES = (10, 30, 100, 300, 1000)
"""Numbers of images that data sets of an audit have, as far as there are twice as many."""
PAIRS = 2000
"""Descriptions of each of the two worst neighbouring data sets."""


class AuditError(ValueError):
    """An audit cannot be made from these files."""


@dataclass(frozen=True)
class DataSetVectors:
    """The image vectors of one data set.

    Attributes:
        exact: (n, h), as the extractor makes them.
        bounded: (n, k), projected and clipped.
    """

    exact: Vectors
    bounded: Vectors


@dataclass(frozen=True)
class Audited:
    """The data sets of an audit.

    Attributes:
        data_sets: by name.
        projection: by which they are described.
    """

    data_sets: Mapping[str, DataSetVectors]
    projection: Projection


@dataclass(frozen=True)
class Row:
    """What an attack brings.

    Attributes:
        attack: what is attacked, and by what figure it is scored.
        guessing: the figure of an attacker who sees nothing.
        off: the figure without noise; None where there is none.
        on: with noise.
        bound: what the guarantee allows at most; None where it says nothing about the figure.
    """

    attack: str
    guessing: float
    off: float | None
    on: float | None
    bound: float | None


def read(files: Sequence[Path], extractor_weights: bytes, settings: PrivacySettings) -> Audited:
    """Read image features of data sets, and make their vectors.

    Args:
        files: as trial_code/describe.py --whole writes them.
        extractor_weights: of the platform's extractor, safetensors.
        settings: the owner's, who may name a projection.

    Raises:
        AuditError: a file cannot be read, two have the same name, or there is no projection for the extractor.
    """
    import torch

    from nni_hyperfd.method import features, weights
    from nni_hyperfd.method.meta_feature import MetaFeatureExtractor

    extractor = MetaFeatureExtractor.from_weights(weights.loads(extractor_weights))
    projection = projection_for(Extractor(weights.sha256(extractor_weights)), extractor.feature_dim, settings)
    if projection is None:
        raise AuditError("there is no projection for the extractor of this state; name one in HYPERFD_PRIVACY")
    data_sets = {}
    for file in files:
        if file.stem in data_sets:
            raise AuditError(f"{file}: there are two data sets of this name; rename one of them")
        try:
            images, _ = features.unpack(weights.loads(file.read_bytes(), max_bytes=2**30))
            with torch.no_grad():
                exact = extractor.image_vectors(images).double().numpy()
        except OSError as error:
            raise AuditError(f"{file}: {error.strerror}") from None
        except ValueError as error:
            raise AuditError(f"{file}: {error}") from None
        data_sets[file.stem] = DataSetVectors(exact, projection.bounded(exact))
    return Audited(data_sets, projection)


def audit(audited: Audited, settings: PrivacySettings, runs: int, seed: int) -> list[Row]:
    """Run all attacks.

    Args:
        audited: the data sets.
        settings: the owner's, not off.
        runs: number of simulated data sets for each figure.
        seed: of everything but the mechanism's own noise.
    """
    multiplier, rng = mechanism.noise_multiplier(settings.epsilon, settings.delta), np.random.default_rng(seed)
    rows: list[Row] = []
    for size in SIZES:
        rows += _membership(audited, size, multiplier, runs, rng)
    worst = attacks.worst_case(audited.projection.radius, 100, multiplier, PAIRS, random.Random(seed))
    most = float(stats.norm.cdf(1 / (multiplier * math.sqrt(2))))
    rows.append(Row("one image, all others known: AUC", 0.5, 1.0, worst.auc, most))
    rows.append(Row("the same, epsilon that is proven", 0.0, None, worst.epsilon, settings.epsilon))
    rows += [_crafted(audited, size, multiplier, runs, rng) for size in SIZES[1:4]]
    if len(audited.data_sets) > 1:
        rows += [row for size in SIZES[1:] for row in _recognised(audited, size, multiplier, runs, rng)]
    return rows + _history(audited, settings, multiplier, runs, np.random.default_rng([seed, 1]))


def _scale(audited: Audited, size: int, multiplier: float) -> float:
    """The standard deviation of the noise of data sets of a size."""
    return multiplier * mechanism.sensitivity(audited.projection.radius, mechanism.bucket(size))


def _membership(audited: Audited, size: int, multiplier: float, runs: int, rng: np.random.Generator) -> list[Row]:
    """Membership in data sets of a size, the mean over the data sets with images enough."""
    enough = [one for one in audited.data_sets.values() if len(one.exact) // 2 > size]
    if not enough:
        return []
    scale = _scale(audited, size, multiplier)
    off = [attacks.membership_auc(one.exact, size, 0.0, runs, rng) for one in enough]
    on = [attacks.membership_auc(one.bounded, size, scale, runs, rng) for one in enough]
    bound = float(stats.norm.cdf(1 / (multiplier * math.sqrt(2))))
    return [Row(f"one of {size} images: AUC", 0.5, float(np.mean(off)), float(np.mean(on)), bound)]


def _history(
    audited: Audited, settings: PrivacySettings, multiplier: float, runs: int, rng: np.random.Generator
) -> list[Row]:
    """One image of a data set that grows by an image before each of ten tasks, all others known."""
    size, tasks = 100, 10
    enough = [one for one in audited.data_sets.values() if len(one.exact) > size + tasks]
    if not enough:
        return []
    total = mechanism.noise_multiplier(settings.total, settings.delta)
    times, scale = min(tasks, int((multiplier / total) ** 2 + 1e-9)), _scale(audited, size, multiplier)
    on = [attacks.history_auc(one.bounded, size, scale, times, runs, rng) for one in enough]
    bound = float(stats.norm.cdf(math.sqrt(times) / (multiplier * math.sqrt(2))))
    attack = f"one image, all others known, {times} descriptions of a set that grows from {size}: AUC"
    return [Row(attack, 0.5, 1.0, float(np.mean(on)), bound)]


def _crafted(audited: Audited, size: int, multiplier: float, runs: int, rng: np.random.Generator) -> Row:
    """One chosen image of a data set, by a crafted extractor."""
    figures = []
    for one in audited.data_sets.values():
        rows = one.bounded[:size]
        off = attacks.crafted_cosine(rows, None, 0.0, 1, rng)
        scale = _scale(audited, size, multiplier)
        figures.append((off, attacks.crafted_cosine(rows, audited.projection.radius, scale, runs, rng)))
    off, on = np.mean(figures, axis=0)
    return Row(f"a chosen image of {size}, crafted extractor: cosine", 0.0, float(off), float(on), None)


def _recognised(audited: Audited, size: int, multiplier: float, runs: int, rng: np.random.Generator) -> list[Row]:
    """How often a data set's description is nearest to one of the same kind; what descriptions are for, no attack."""
    scale = _scale(audited, size, multiplier)
    off = [_hits(audited, "exact", size, 0.0, rng) for _ in range(max(1, runs // 10))]
    on = [_hits(audited, "bounded", size, scale, rng) for _ in range(max(1, runs // 10))]
    guessing = 1 / len(audited.data_sets)
    return [
        Row(
            f"kind of a data set of {size} images: hits",
            round(guessing, 3),
            float(np.mean(off)),
            float(np.mean(on)),
            None,
        )
    ]


def _hits(audited: Audited, which: str, size: int, scale: float, rng: np.random.Generator) -> float:
    """Share of data sets nearest to their own kind, by two descriptions of `size` images, drawn from either half."""
    told: list[list[NDArray[np.float64]]] = [[], []]
    for one in audited.data_sets.values():
        rows: Vectors = getattr(one, which)
        for half, part in enumerate(np.array_split(rng.permutation(len(rows)), 2)):
            drawn = rows[rng.choice(part, size, replace=size > len(part))]
            told[half].append(drawn.mean(axis=0) + scale * rng.standard_normal(rows.shape[1]))
    first, second = (np.array(each) for each in told)
    distances = np.linalg.norm(first[:, None] - second[None], axis=-1)
    return float(np.mean(distances.argmin(axis=1) == np.arange(len(first))))
