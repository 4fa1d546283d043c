from __future__ import annotations

import numpy as np
from scipy.stats import norm

from nni_hyperfd.belief.targets import normal_scores, relative_rank


def test_targets_are_the_normal_quantiles_of_the_ranks():
    performance = np.array([0.9, 0.1, 0.5, 0.5])
    ranks = np.array([3.5, 0.5, 2.0, 2.0]) / 4  # the tie shares the places 2 and 3
    assert relative_rank(performance).tolist() == ranks.tolist()
    assert np.allclose(normal_scores(performance), norm.ppf(ranks))
    assert np.allclose(normal_scores(1000 * performance - 3), norm.ppf(ranks))


def test_a_constant_performance_has_targets_of_zero():
    assert normal_scores(np.full(5, 0.3)).tolist() == [0.0] * 5
