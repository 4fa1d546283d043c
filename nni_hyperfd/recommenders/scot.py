"""Surrogate-based collaborative tuning (SCoT; Bardenet et al., ICML 2013) as a baseline."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from nni_hyperfd.belief.distances import distances
from nni_hyperfd.belief.targets import relative_rank
from nni_hyperfd.recommenders.base import ScoringRecommender, Task
from nni_hyperfd.space import EncodedConfigurations

_PAIRS = 30
"""Pairs per task that the ranker learns from: the cost of all of them would be quadratic."""
_TASKS = 16
"""Maximum number of past tasks to learn from, the newest ones."""
_NEAREST = 3
"""Number of near past tasks whose visited points enter the Gaussian process."""
_POINTS = 60
"""Maximum number of visited points per near task in the Gaussian process, whose cost is cubic."""


class SCoT(ScoringRecommender):
    """A ranking SVM makes results comparable across data sets, and a Gaussian process on its values picks.

    The ranking SVM has an RBF kernel on (configuration, task) and learns from pairs within a task only. The Gaussian
    process is fitted to the SVM's values of the visited points, those of this task and of the 3 nearest past ones, and
    the candidate of highest expected improvement is picked; both are refitted after each result. To limit the cost,
    only 30 random pairs of each of the 16 newest tasks and at most 60 visited points of each near task are used.

    Attributes:
        past: of each past task the encoded configurations with a result (k, d), in random order, their relative ranks
            (k,), and the task's meta-feature.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.past: list[tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float32] | None]] = []

    def start_task(self, task: Task, candidates: EncodedConfigurations) -> None:
        """Draw the pairs of the past tasks and place all tasks by the distances of their meta-features."""
        super().start_task(task, candidates)
        self._past = [past for past in self.past if past[0].shape[1] == candidates.width][-_TASKS:]
        described = [*(past[2] for past in self._past), task.meta_feature]
        self._apart = distances(described)
        # The tasks enter by the distances of their meta-features alone, as points with these Euclidean distances.
        self._places = _embedded(self._apart)
        self._pairs = [self._drawn(vectors, ranks, place) for place, (vectors, ranks, _) in enumerate(self._past)]

    def scores(self) -> NDArray[np.float64]:
        """Expected improvements (n,)."""
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
        improvement: NDArray[np.float64] = deviation * (gap * ndtr(gap) + np.exp(-(gap**2) / 2) / np.sqrt(2 * np.pi))
        return improvement

    def learn(self, indices: NDArray[np.int64], performance: NDArray[np.float64]) -> None:
        """Keep the task's results in random order."""
        order = self.rng.permutation(len(indices))
        ranks = relative_rank(performance)[order]
        self.past.append((self.candidates.vectors[indices[order]], ranks, self.task.meta_feature))

    def _joined(self, vectors: NDArray[np.float32], place: int) -> NDArray[np.float64]:
        """Encoded configurations (n, d) with the point of the task at `place` appended to each."""
        return np.hstack([vectors, np.tile(self._places[place], (len(vectors), 1))])

    def _drawn(
        self, vectors: NDArray[np.float32], values: NDArray[np.float64], place: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The better and the worse point of random pairs of one task, (p, width) each."""
        pairs = self.rng.integers(len(values), size=(_PAIRS, 2))
        pairs = pairs[values[pairs[:, 0]] != values[pairs[:, 1]]]
        better = np.where(values[pairs[:, 0]] > values[pairs[:, 1]], pairs[:, 0], pairs[:, 1])
        points = self._joined(vectors, place)
        return points[better], points[pairs.sum(axis=1) - better]


class _RankingSVM:
    """An SVM on pairs of points with an RBF kernel k.

    The kernel of the pairs (b, w) and (b', w') is k(b, b') - k(b, w') - k(w, b') + k(w, w').

    Args:
        better: (p, width), the better point of each pair.
        worse: (p, width), the worse point of each pair.
    """

    def __init__(self, better: NDArray[np.float64], worse: NDArray[np.float64]) -> None:
        from sklearn.svm import SVC

        self._better, self._worse = better, worse
        self._scale = 1 / better.shape[1]
        inner = self._difference(better) - self._difference(worse)
        # A pair and its mirror image say the same: with both the SVM has two classes and no bias.
        mirrored = np.block([[inner, -inner], [-inner, inner]])
        label = np.repeat([1, -1], len(better))
        machine = SVC(kernel="precomputed").fit(mirrored, label)
        weights = np.zeros(len(label))
        weights[machine.support_] = machine.dual_coef_[0]
        self._weights = weights[: len(better)] - weights[len(better) :]

    def values(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Latent ranks (n,) of points (n, width), higher is better."""
        return self._difference(points) @ self._weights

    def _difference(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """k(points, better) - k(points, worse), (n, p)."""
        from sklearn.metrics.pairwise import rbf_kernel

        kernel: NDArray[np.float64] = rbf_kernel(points, self._better, self._scale)
        kernel -= rbf_kernel(points, self._worse, self._scale)
        return kernel


def _regressed(
    points: NDArray[np.float64], values: NDArray[np.float64], queries: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Posterior mean and standard deviation of a Gaussian process with an RBF kernel.

    Args:
        points: (m, width), where values are known.
        values: (m,).
        queries: (n, width).

    Returns:
        Mean (n,) and standard deviation (n,) at the queries. The kernel's scale is fitted by marginal likelihood.
    """
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


def _embedded(apart: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (n, k) whose Euclidean distances approximate `apart` (n, n) (classical multidimensional scaling)."""
    centring = np.eye(len(apart)) - 1 / len(apart)
    values, vectors = np.linalg.eigh(-centring @ apart**2 @ centring / 2)
    points: NDArray[np.float64] = vectors * np.sqrt(np.maximum(values, 0))
    return points
