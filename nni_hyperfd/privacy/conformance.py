"""The contract of accountants as tests to inherit, like `nni_hyperfd.recommenders.conformance`.

class TestMine(AccountantConformance):
    def make(self):
        return Mine()
"""

from __future__ import annotations

import itertools
import math

from nni_hyperfd.privacy.accounting import Accountant, GaussianRelease
from nni_hyperfd.privacy.mechanism import noise_multiplier

_DELTAS = (1e-9, 1e-5, 1e-3)


class AccountantConformance:
    """Tests of one class of accountants; subclasses write `make`."""

    def make(self) -> Accountant:
        """Make an accountant that has counted nothing."""
        raise NotImplementedError("Write make() in the subclass.")

    def spent(self, multipliers: list[float], delta: float) -> float:
        """The epsilon of some releases."""
        accountant = self.make()
        for multiplier in multipliers:
            accountant.compose(GaussianRelease(multiplier))
        return accountant.epsilon(delta)

    def test_nothing_costs_nothing(self) -> None:
        """Before the first release nothing is spent."""
        assert all(self.spent([], delta) == 0 for delta in _DELTAS)

    def test_one_release_is_not_undercounted(self) -> None:
        """A release calibrated to epsilon costs at least that, and little more."""
        for epsilon, delta in itertools.product((0.1, 1.0, 3.0, 8.0), _DELTAS):
            spent = self.spent([noise_multiplier(epsilon, delta)], delta)
            assert epsilon * (1 - 1e-6) <= spent <= 1.3 * epsilon, (epsilon, delta, spent)

    def test_more_noise_costs_less(self) -> None:
        """Epsilon falls with the noise and with delta."""
        for delta in _DELTAS:
            spent = [self.spent([multiplier], delta) for multiplier in (0.5, 1.0, 2.0, 8.0)]
            assert spent == sorted(spent, reverse=True) and len(set(spent)) == 4
        assert self.spent([1.0], 1e-9) > self.spent([1.0], 1e-5) > self.spent([1.0], 1e-3)

    def test_every_release_adds(self) -> None:
        """More releases cost more, and no more than one after another by basic composition."""
        for delta in _DELTAS:
            one, two, ten = (self.spent([2.0] * count, delta) for count in (1, 2, 10))
            assert one < two < ten
            assert ten <= 10 * self.spent([2.0], delta / 10) * (1 + 1e-9)

    def test_order_does_not_matter(self) -> None:
        """The same releases cost the same in any order."""
        first, *others = (self.spent(list(order), 1e-5) for order in itertools.permutations((0.7, 1.3, 4.0)))
        assert all(math.isclose(first, other, rel_tol=1e-9) for other in others)

    def test_k_releases_are_one_with_less_noise(self) -> None:
        """Together k Gaussian releases are exactly one whose noise is divided by sqrt(k); no less may be counted."""
        for count in (2, 5, 50):
            together = self.spent([3.0] * count, 1e-5)
            exact = self.spent([3.0 / math.sqrt(count)], 1e-5)
            assert together >= exact * (1 - 1e-9)
