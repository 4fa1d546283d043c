"""What releases cost. A release is described by its noise alone (`GaussianRelease`); accountants analyse descriptions.

As in dp-accounting, descriptions and analyses are apart, so the ledger keeps what was done and not what some analysis
said about it. `nni_hyperfd.privacy.conformance` tests any accountant.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass


@dataclass(frozen=True)
class GaussianRelease:
    """A release with Gaussian noise.

    Attributes:
        multiplier: standard deviation of the noise in units of the sensitivity, > 0 and finite.

    Raises:
        ValueError: the multiplier is out of range.
    """

    multiplier: float

    def __post_init__(self) -> None:
        if not 0 < self.multiplier < math.inf:
            raise ValueError(f"A release's noise multiplier must be finite and above 0, not {self.multiplier}.")


class Accountant(ABC):
    """Sums up what the releases about one data set cost together."""

    @abstractmethod
    def compose(self, release: GaussianRelease) -> None:
        """Count a release, which may have been chosen with all earlier ones in view."""

    @abstractmethod
    def epsilon(self, delta: float) -> float:
        """The epsilon of all releases together, at a delta in (0, 1); 0 before the first."""


class ZCDPAccountant(Accountant):
    """Zero-concentrated differential privacy (Bun and Steinke, 2016): a release costs rho = 1 / (2 multiplier^2).

    Gaussian releases with the sum rho are together as private as one Gaussian release of multiplier 1 / sqrt(2 rho),
    also when they are chosen one after another (Smith and Thakurta, 2022). So epsilon is that of the analytic Gaussian
    mechanism, which is exact, and not the usual bound from rho.

    Attributes:
        rho: the sum.
    """

    def __init__(self) -> None:
        self.rho = 0.0

    def compose(self, release: GaussianRelease) -> None:
        """Count a release."""
        self.rho += rho(release.multiplier)

    def epsilon(self, delta: float) -> float:
        """The epsilon of all releases together."""
        from dp_accounting import get_epsilon_gaussian

        return float(get_epsilon_gaussian(1 / math.sqrt(2 * self.rho), delta)) if self.rho else 0.0


def rho(multiplier: float) -> float:
    """The zCDP cost of a Gaussian release."""
    return 1 / (2 * multiplier**2)
