from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from nni_hyperfd.belief.scales import ScalePrior, log_slope

NINE = norm.ppf((np.arange(9) + 0.5) / 9)


def test_the_prior_by_hand():
    prior = ScalePrior.learned(np.log([3, 0.5, 0.6]).tolist())
    variance = (np.log(3 / 0.6) ** 2 + np.log(0.5 / 0.6) ** 2 + 1) / 3 * (1 + 1 / 3)
    assert np.allclose([prior.middle, prior.deviation], [np.log(0.6), np.sqrt(variance)])
    assert np.allclose(np.log(prior.grid()), np.log(0.6) + np.sqrt(variance) * NINE)


def test_one_task_leaves_the_scale_uncertain():
    assert ScalePrior.learned([0.3]) == ScalePrior(0.3, pytest.approx(2**0.5))


def test_a_task_in_other_units_counts_as_two_away_from_the_median():
    assert ScalePrior.learned([0.0, 0.1, 50.0]) == ScalePrior.learned([0.0, 0.1, 2.1])


def test_without_past_tasks_the_scales_surround_the_range_of_the_results():
    assert np.allclose(np.log(ScalePrior.around(np.array([3.0, 1.0, 7.0])).grid()), np.log(6) + NINE)
    assert np.allclose(np.log(ScalePrior.around(np.array([3.0])).grid()), NINE)


def test_the_slope_is_what_a_result_changes_per_unit_of_the_targets():
    targets = np.array([-1.0, 0.0, 1.0])
    assert np.isclose(log_slope(5 + 3 * targets, targets), np.log(3))
    assert np.isclose(log_slope(np.array([0.1, 0.0, 0.7]), targets), np.log(0.3))


def test_what_several_views_have_learned_is_averaged():
    assert ScalePrior.average([ScalePrior(0.0, 1.0), ScalePrior(1.0, 3.0)]) == ScalePrior(0.5, 2.0)
