from __future__ import annotations

import math

import pytest
from dp_accounting import GaussianDpEvent
from dp_accounting.pld import PLDAccountant

from nni_hyperfd.privacy.accounting import GaussianRelease, ZCDPAccountant
from nni_hyperfd.privacy.conformance import AccountantConformance


class TestZCDPAccountant(AccountantConformance):
    def make(self):
        return ZCDPAccountant()


@pytest.mark.parametrize("multipliers", [[1.4], [1.4, 1.4], [2.0, 5.0, 0.8]])
def test_it_agrees_with_numerical_composition(multipliers):
    ours, theirs = ZCDPAccountant(), PLDAccountant()
    for multiplier in multipliers:
        ours.compose(GaussianRelease(multiplier))
        theirs.compose(GaussianDpEvent(multiplier))
    assert ours.rho == pytest.approx(sum(1 / (2 * multiplier**2) for multiplier in multipliers))
    assert ours.epsilon(1e-5) == pytest.approx(theirs.get_epsilon(1e-5), rel=1e-3)


@pytest.mark.parametrize("multiplier", [0.0, -1.0, math.inf, math.nan])
def test_a_release_without_noise_has_no_description(multiplier):
    with pytest.raises(ValueError, match="noise multiplier"):
        GaussianRelease(multiplier)
