"""Made-up tasks like those of a table, as many as wanted.

Within a task, performances become normal scores, so that tasks of any scale can be compared. A made-up task's scores
are the configurations' means over the table's tasks, plus a random mixture of how these tasks deviate from the means
(the factors), plus a deviation of its own, plus noise:

    scores = mean + sqrt(w) loadings g + sqrt(1 - w) root e,    g, e ~ N(0, I),    w = T / (T + 3) for T tasks

The covariance is that of the table's T tasks, regularised towards a kernel over configurations with noise on top, as
far as 3 tasks count; scikit-learn fits the kernel to the tasks' deviations. A random task of the table lends its
distribution of performances, which the scores are mapped to. The meta-feature is a noisy linear function of g, as
telling as the table's own meta-features prove to be when each task is foretold by the others.

It assumes that a population of tasks is Gaussian around one mean, and that what is unlike the table's tasks is smooth
or noise. So it cannot show how far real tasks that are of another kind (clusters, outliers, drift over the years) can
be served, and nothing of a better extractor; noise and what one configuration brings on one task alone are not told
apart. Everything in a made-up task goes back to a few real ones: it is a test of the machinery, not new evidence.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr

from nni_hyperfd.belief.targets import normal_scores
from nni_hyperfd.benchmark.tables import TableError
from nni_hyperfd.wire import META_FEATURE_LENGTH

_PRIOR_TASKS = 3.0
"""How many tasks the kernel's part of the covariance is worth."""
_FITTED = 300
"""Configurations that the kernel is fitted to: its three numbers are well known from fewer."""
_TELLING_TASKS = 5
"""From fewer it cannot be said whether meta-features foretell anything; then they do not."""
_FOLDS = 40
_MOST_TOLD = 0.95


@dataclass(frozen=True, eq=False)
class Population:
    """Where made-up tasks come from; `Population.fitted` makes one of a table.

    mean: (n,), of the scores of n configurations. loadings: (n, r), of the r factors, the strongest first. root:
    (n, n), with root @ root.T the covariance of a task's own deviation, noise and all. Both count fully: their weights
    are in them. marginals: at least one sorted array of performances, two or more each. telling: in [0, 0.95], the
    share of the factors' variance that the best linear guess from the meta-feature explains.
    """

    mean: np.ndarray
    loadings: np.ndarray
    root: np.ndarray
    marginals: tuple[np.ndarray, ...]
    telling: float

    @classmethod
    def fitted(
        cls, performance: np.ndarray, inputs: np.ndarray, meta_features: np.ndarray, rng: np.random.Generator
    ) -> Population:
        """performance: (tasks, n), NaN where nothing was measured; higher is better. inputs: (n, d), the encoded
        configurations. meta_features: (tasks, m), NaN = unknown.

        A gap counts as the configuration's mean, and the other tasks' deviations for more; so gaps weaken correlations.

        Raises TableError unless two tasks rank something, and every configuration was measured on two of these.
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
            telling=min(_MOST_TOLD, foretold(meta_features, deviations) / weight),
        )

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A new task: what each configuration brings (n,), and its meta-feature (64,)."""
        factors = rng.standard_normal(self.loadings.shape[1])
        scores = self.mean + self.loadings @ factors + self.root @ rng.standard_normal(len(self.mean))
        marginal = self.marginals[rng.integers(len(self.marginals))]
        places = (np.arange(len(marginal)) + 0.5) / len(marginal)
        performance = np.interp(ndtr(scores), places, marginal)
        return performance, self._meta_feature(factors, rng)

    @property
    def likeness(self) -> float:
        """The expected correlation of two tasks' scores, about their rank correlation."""
        variance = np.square(self.loadings).sum(axis=1) + np.square(self.root).sum(axis=1)
        between = self.mean.var()
        return float(between / (between + variance.mean()))

    def _meta_feature(self, factors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The strongest factors, as far apart as they set the scores apart, turned into 64 numbers, plus noise."""
        noise = rng.standard_normal(META_FEATURE_LENGTH)
        sizes = np.linalg.norm(self.loadings, axis=0)[:META_FEATURE_LENGTH]
        if not self.telling or not sizes.any():
            return noise
        # Any turn does, as long as all tasks have the same one.
        turn, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((META_FEATURE_LENGTH, len(sizes))))
        return turn @ (sizes * factors[: len(sizes)]) + blur(sizes, self.telling) * noise


def centred(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over tasks (n,) and deviations from them (tasks, n) of (tasks, n) scores; NaN = unknown, two or more known
    of each column.

    The deviations' mean squares are the unbiased variances, 0 stands for what is unknown. The means of few tasks lie
    further apart than those of all tasks would: what is due to chance is taken out of their spread.
    """
    numbers = np.isfinite(scores).sum(axis=0)
    mean = np.nanmean(scores, axis=0)
    deviations = np.nan_to_num(scores - mean) * np.sqrt(len(scores) / (numbers - 1))
    by_chance = (np.square(deviations).mean(axis=0) / numbers).mean()
    spread = mean.var()
    kept = np.sqrt(max(0.0, 1 - by_chance / spread)) if spread else 0.0
    return mean.mean() + kept * (mean - mean.mean()), deviations


def foretold(meta_features: np.ndarray, deviations: np.ndarray) -> float:
    """The share, 0 to 1, of the deviations' variance (tasks, n) that ridge regression on the meta-features (tasks, m)
    explains for tasks that it was not fitted to; 0 for fewer than 5 tasks, or where there is nothing to explain."""
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


def blur(sizes: np.ndarray, telling: float) -> float:
    """The deviation of the noise on each factor under which the best linear guess of sizes x factors from
    sizes x factors + noise explains the share `telling`, above 0 and below 1, of the variance."""

    def beyond(log_noise: float) -> float:
        explained = sizes**4 / (sizes**2 + np.exp(2 * log_noise))
        return explained.sum() / np.square(sizes).sum() - telling

    middle = np.log(sizes.max())
    return float(np.exp(brentq(beyond, middle - 20, middle + 20)))


def _smooth(deviations: np.ndarray, inputs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n, n): a kernel over the encoded configurations (n, d) plus noise, fitted to the tasks' deviations (tasks, n),
    with the same mean variance as these."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    some = np.sort(rng.permutation(len(inputs))[:_FITTED])
    kernel = ConstantKernel(0.5, (1e-3, 1e2)) * RBF(1.0, (1e-2, 1e2)) + WhiteKernel(0.1, (1e-4, 1e1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of a number at its bound
        fitted = GaussianProcessRegressor(kernel).fit(inputs[some], deviations[:, some].T)
    covariance = fitted.kernel_(inputs.astype(float))
    covariance *= np.square(deviations).mean() / np.diag(covariance).mean()
    return covariance + 1e-9 * np.eye(len(covariance))
