"""Surrogate-based collaborative tuning (Bardenet et al., ICML 2013)."""

from __future__ import annotations

import warnings

import numpy as np
from scipy.special import ndtr

from nni_hyperfd.belief.distances import distances
from nni_hyperfd.belief.targets import relative_rank
from nni_hyperfd.recommenders.base import ScoringRecommender, Task
from nni_hyperfd.space.encoded import EncodedConfigurations

_PAIRS = 30
"""Pairs per task that the ranker learns from: all of them would be quadratic."""
_TASKS = 16
"""Past tasks that are looked at, the newest ones."""
_NEAREST = 3
_POINTS = 60
"""Visited points per near task that enter the Gaussian process, whose cost is cubic."""


class SCoT(ScoringRecommender):
    """A ranking SVM with an RBF kernel on (configuration, task) makes results comparable over data sets: it learns from
    pairs within a task only. A Gaussian process is fitted to the ranker's values of the visited points, those of this
    task and of the 3 nearest past ones, and the expected improvement picks; both are refitted after each result.

    A simplification for the cost: 30 random pairs of each of the 16 newest tasks, and at most 60 visited points of each
    near one.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.past: list[tuple[np.ndarray, np.ndarray, np.ndarray | None]] = []

    def start_task(self, task: Task, candidates: EncodedConfigurations) -> None:
        super().start_task(task, candidates)
        width = candidates.vectors.shape[1]
        self._past = [past for past in self.past if past[0].shape[1] == width][-_TASKS:]
        described = [*(past[2] for past in self._past), task.meta_feature]
        self._apart = distances(described)
        # The tasks' features enter by their distances alone, embedded so that Euclid gives them back.
        self._places = _embedded(self._apart)
        self._pairs = [self._drawn(vectors, ranks, place) for place, (vectors, ranks, _) in enumerate(self._past)]

    def scores(self) -> np.ndarray:
        vectors = self.candidates.vectors
        own = len(self._past)
        tried = np.array(sorted(self.results), dtype=int)
        values = np.array([self.results[index] for index in tried])
        pairs = list(self._pairs)
        if len(set(values)) > 1:
            pairs.append(self._drawn(vectors[tried], values, own))
        pairs = [pair for pair in pairs if len(pair[0])]
        if not pairs:
            return np.zeros(len(vectors))
        ranker = _RankingSVM(np.concatenate([p[0] for p in pairs]), np.concatenate([p[1] for p in pairs]))

        here = self._joined(vectors, own)
        visited = [here[tried]]
        for place in np.argsort(self._apart[-1, :-1], kind="stable")[:_NEAREST]:
            visited.append(self._joined(self._past[place][0][:_POINTS], int(place)))
        points = np.concatenate(visited)
        mean, deviation = _regressed(points, ranker.values(points), here)
        best = ranker.values(here[tried]).max() if len(tried) else mean.mean()
        gap = (mean - best) / deviation
        return deviation * (gap * ndtr(gap) + np.exp(-(gap**2) / 2) / np.sqrt(2 * np.pi))

    def learn(self, indices: np.ndarray, performance: np.ndarray) -> None:
        order = self.rng.permutation(len(indices))
        ranks = relative_rank(performance)[order]
        self.past.append((self.candidates.vectors[indices[order]], ranks, self.task.meta_feature))

    def _joined(self, vectors: np.ndarray, place: int) -> np.ndarray:
        return np.hstack([vectors, np.tile(self._places[place], (len(vectors), 1))])

    def _drawn(self, vectors: np.ndarray, values: np.ndarray, place: int) -> tuple[np.ndarray, np.ndarray]:
        """The better and the worse point of random pairs of one task, both (p, width)."""
        pairs = self.rng.integers(len(values), size=(_PAIRS, 2))
        pairs = pairs[values[pairs[:, 0]] != values[pairs[:, 1]]]
        better = np.where(values[pairs[:, 0]] > values[pairs[:, 1]], pairs[:, 0], pairs[:, 1])
        points = self._joined(vectors, place)
        return points[better], points[pairs.sum(axis=1) - better]


class _RankingSVM:
    """better, worse: (p, width). A pair's kernel with another is k(b, b') - k(b, w') - k(w, b') + k(w, w')."""

    def __init__(self, better: np.ndarray, worse: np.ndarray) -> None:
        from sklearn.svm import SVC

        self._better, self._worse = better, worse
        self._scale = 1 / better.shape[1]
        inner = self._difference(better) - self._difference(worse)
        # A pair and its mirror image say the same: both classes, so that the SVM has two and no bias.
        mirrored = np.block([[inner, -inner], [-inner, inner]])
        label = np.repeat([1, -1], len(better))
        machine = SVC(kernel="precomputed").fit(mirrored, label)
        weights = np.zeros(len(label))
        weights[machine.support_] = machine.dual_coef_[0]
        self._weights = weights[: len(better)] - weights[len(better) :]

    def values(self, points: np.ndarray) -> np.ndarray:
        """(n,), the latent rank of points (n, width)."""
        return self._difference(points) @ self._weights

    def _difference(self, points: np.ndarray) -> np.ndarray:
        from sklearn.metrics.pairwise import rbf_kernel

        return rbf_kernel(points, self._better, self._scale) - rbf_kernel(points, self._worse, self._scale)


def _regressed(points: np.ndarray, values: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (n,) of a Gaussian process with an RBF kernel, its scale by marginal likelihood."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    scale = float(np.sqrt(points.shape[1] / 6))
    kernel = ConstantKernel(1.0, "fixed") * RBF(scale, (scale / 10, scale * 10)) + WhiteKernel(1e-2, "fixed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a scale at its bound is an answer here
        process = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0).fit(points, values)
    mean, deviation = process.predict(queries, return_std=True)
    return mean, np.maximum(deviation, 1e-9)


def _embedded(apart: np.ndarray) -> np.ndarray:
    """(n, k): points whose Euclidean distances are `apart` as nearly as can be (classical scaling)."""
    centring = np.eye(len(apart)) - 1 / len(apart)
    values, vectors = np.linalg.eigh(-centring @ apart**2 @ centring / 2)
    return vectors * np.sqrt(np.maximum(values, 0))
