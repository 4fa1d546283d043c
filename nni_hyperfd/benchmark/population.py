"""Simulated tasks like those of a table, in any number.

Within a task, performances become normal scores, so that tasks of any scale can be compared. A simulated task's scores
are the configurations' means over the table's tasks, plus a random mixture of these tasks' deviations from the means
(the factors), plus a deviation of its own, plus noise:

    scores = mean + sqrt(w) loadings g + sqrt(1 - w) root e,    g, e ~ N(0, I),    w = T / (T + 3) for T tasks

The covariance is that of the table's T tasks, shrunk towards a kernel over configurations plus noise, which has the
weight of 3 tasks; scikit-learn fits the kernel to the tasks' deviations. The scores are mapped to the distribution of
performances of a randomly drawn task of the table. The meta-feature is a noisy linear function of g, as informative as
the table's own meta-features are when each task is predicted from the others.

The model assumes that tasks are Gaussian around one mean, and that what is unlike the table's tasks is smooth or noise.
So it cannot show how well real tasks of another kind (clusters, outliers, drift over the years) can be served, nor the
effect of a better extractor; noise and the effect of one configuration on one task alone are not told apart. Everything
in a simulated task derives from a few real ones: it is a test of the machinery, not new evidence.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr

from nni_hyperfd.belief.targets import normal_scores
from nni_hyperfd.benchmark.tables import TableError
from nni_hyperfd.wire import META_FEATURE_LENGTH

_PRIOR_TASKS = 3.0
"""Weight of the kernel's part of the covariance, in tasks."""
_FITTED = 300
"""Maximum number of configurations that the kernel is fitted to: its three parameters need no more."""
_TELLING_TASKS = 5
"""Minimum number of tasks to estimate what meta-features predict; with fewer they predict nothing."""
_FOLDS = 40
_MAX_TELLING = 0.95


@dataclass(frozen=True, eq=False)
class Population:
    """A distribution of tasks; `Population.fitted` makes one of a table.

    Attributes:
        mean: (n,), means of the scores of n configurations.
        loadings: (n, r), of the r factors, the strongest first, with their weight sqrt(w).
        root: (n, n); root @ root.T is the covariance of a task's own deviation, noise included, with its weight 1 - w.
        marginals: at least one sorted array of performances, two or more each.
        telling: share, in [0, 0.95], of the factors' variance that the best linear prediction from the meta-feature
            explains.
    """

    mean: NDArray[np.float64]
    loadings: NDArray[np.float64]
    root: NDArray[np.float64]
    marginals: tuple[NDArray[np.float64], ...]
    telling: float

    @classmethod
    def fitted(
        cls,
        performance: NDArray[np.float64],
        inputs: NDArray[np.float32],
        meta_features: NDArray[np.float32],
        rng: np.random.Generator,
    ) -> Population:
        """Fit a population to measured tasks.

        A gap counts as the configuration's mean, and the other tasks' deviations are scaled up for it; so gaps weaken
        correlations.

        Args:
            performance: (tasks, n), NaN where nothing was measured; higher is better.
            inputs: (n, d), the encoded configurations.
            meta_features: (tasks, m), NaN = unknown.
            rng: draws the configurations that the kernel is fitted to.

        Raises:
            TableError: fewer than two tasks have different results, or a configuration was measured on fewer than two
                of these.
        """
        ranks = np.array([len(np.unique(row[np.isfinite(row)])) > 1 for row in performance], dtype=bool)
        performance, meta_features = performance[ranks], meta_features[ranks]
        if len(performance) < 2 or (np.isfinite(performance).sum(axis=0) < 2).any():
            raise TableError("A population needs two tasks, and two of their results for each configuration.")
        scores = np.full(performance.shape, np.nan)
        for own, row in zip(scores, performance, strict=True):
            known = np.isfinite(row)
            own[known] = normal_scores(row[known])
        mean, deviations = centred(scores)
        tasks = len(scores)
        weight = tasks / (tasks + _PRIOR_TASKS)
        covariance = _smooth(deviations, inputs, rng)
        _, sizes, directions = np.linalg.svd(deviations / np.sqrt(tasks), full_matrices=False)
        loadings = (directions.T * sizes)[:, : tasks - 1]
        return cls(
            mean=mean,
            loadings=np.sqrt(weight) * loadings,
            root=np.sqrt(1 - weight) * np.linalg.cholesky(covariance),
            marginals=tuple(np.sort(row[np.isfinite(row)]) for row in performance),
            telling=min(_MAX_TELLING, foretold(meta_features, deviations) / weight),
        )

    def draw(self, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Draw a new task: the performance of each configuration (n,), and the meta-feature (64,)."""
        factors = rng.standard_normal((self.loadings.shape[1],))
        scores = self.mean + self.loadings @ factors + self.root @ rng.standard_normal(len(self.mean))
        marginal = self.marginals[rng.integers(len(self.marginals))]
        places = (np.arange(len(marginal)) + 0.5) / len(marginal)
        performance = np.interp(ndtr(scores), places, marginal)
        return performance, self._meta_feature(factors, rng)

    @property
    def likeness(self) -> float:
        """The expected correlation of two tasks' scores, which is approximately their rank correlation."""
        variance = np.square(self.loadings).sum(axis=1) + np.square(self.root).sum(axis=1)
        between = self.mean.var()
        return float(between / (between + variance.mean()))

    def _meta_feature(self, factors: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
        """The strongest factors, weighted by their effect on the scores and rotated into 64 numbers, plus noise."""
        noise = rng.standard_normal(META_FEATURE_LENGTH)
        sizes = np.linalg.norm(self.loadings, axis=0)[:META_FEATURE_LENGTH]
        if not self.telling or not sizes.any():
            return noise
        # Any rotation will do, as long as all tasks have the same one.
        rotation, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((META_FEATURE_LENGTH, len(sizes))))
        rotated: NDArray[np.float64] = rotation @ (sizes * factors[: len(sizes)]) + blur(sizes, self.telling) * noise
        return rotated


def centred(scores: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means over tasks, and deviations from them.

    The means of few tasks lie further apart than those of all tasks would: the part that is due to chance is taken out
    of their spread.

    Args:
        scores: (tasks, n), NaN = unknown; at least two are known of each column.

    Returns:
        Means (n,) and deviations (tasks, n), whose mean squares are the unbiased variances; unknown ones are 0.
    """
    numbers = np.isfinite(scores).sum(axis=0)
    mean = np.nanmean(scores, axis=0)
    deviations = np.nan_to_num(scores - mean) * np.sqrt(len(scores) / (numbers - 1))
    by_chance = (np.square(deviations).mean(axis=0) / numbers).mean()
    spread = mean.var()
    kept = np.sqrt(max(0.0, 1 - by_chance / spread)) if spread else 0.0
    return mean.mean() + kept * (mean - mean.mean()), deviations


def foretold(meta_features: NDArray[np.float32], deviations: NDArray[np.float64]) -> float:
    """How much of the differences between tasks their meta-features predict.

    Args:
        meta_features: (tasks, m).
        deviations: (tasks, n), of the scores from their means.

    Returns:
        The share, in [0, 1], of the deviations' variance that ridge regression explains for tasks that it was not
        fitted to; 0 for fewer than 5 tasks, or where there is nothing to explain.
    """
    from sklearn.dummy import DummyRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import KFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    tasks = len(deviations)
    if tasks < _TELLING_TASKS or not np.isfinite(meta_features).any() or not deviations.any():
        return 0.0
    left, sizes, _ = np.linalg.svd(deviations, full_matrices=False)
    targets = left * sizes  # the same distances in fewer numbers
    ridge = make_pipeline(
        SimpleImputer(keep_empty_features=True), StandardScaler(), RidgeCV(alphas=np.logspace(-1, 5, 13))
    )
    left_out = KFold(min(tasks, _FOLDS))
    guesses, plain = (
        cross_val_predict(model, meta_features, targets, cv=left_out) for model in (ridge, DummyRegressor())
    )
    return float(np.clip(1 - np.square(targets - guesses).sum() / np.square(targets - plain).sum(), 0, 1))


def blur(sizes: NDArray[np.float64], telling: float) -> float:
    """The standard deviation of noise with which a meta-feature explains a given share of the variance.

    Args:
        sizes: (r,), of the factors.
        telling: the share, above 0 and below 1, of the variance of sizes x factors that the best linear prediction from
            sizes x factors + noise explains.
    """

    def beyond(log_noise: float) -> float:
        explained = sizes**4 / (sizes**2 + np.exp(2 * log_noise))
        return float(explained.sum() / np.square(sizes).sum() - telling)

    middle = np.log(sizes.max())
    return float(np.exp(brentq(beyond, middle - 20, middle + 20)))


def _smooth(
    deviations: NDArray[np.float64], inputs: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.float64]:
    """The covariance (n, n) of a kernel over configurations plus noise, fitted to the tasks' deviations.

    Args:
        deviations: (tasks, n); the covariance has the same mean variance.
        inputs: (n, d), the encoded configurations.
        rng: draws the configurations that the kernel is fitted to.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    some = np.sort(rng.permutation(len(inputs))[:_FITTED])
    kernel = ConstantKernel(0.5, (1e-3, 1e2)) * RBF(1.0, (1e-2, 1e2)) + WhiteKernel(0.1, (1e-4, 1e1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of a parameter at its bound
        fitted = GaussianProcessRegressor(kernel).fit(inputs[some], deviations[:, some].T)
    covariance: NDArray[np.float64] = fitted.kernel_(inputs.astype(float))
    covariance *= np.square(deviations).mean() / np.diag(covariance).mean()
    covariance += 1e-9 * np.eye(len(covariance))
    return covariance
