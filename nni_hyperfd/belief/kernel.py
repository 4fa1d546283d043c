"""What makes two configurations alike, learned from past tasks, and the features that say so.

The similarity is k(a, b) = Matern-5/2 with one length scale per input + a linear part. Length scales, the linear part's
share, the noise and the amplitude follow from the marginal likelihood of past tasks, each an independent Gaussian
process, with a prior that holds where the tasks say little. Everything is float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_STEPS, _LEARNING_RATE = 40, 0.1
_TASKS, _POINTS = 16, 60
_NOISE = 0.2
_LINEAR_SHARE = 0.3
_PRIOR_DEVIATION = 0.5
_UNIT_VARIANCE = 12.0  # 1 / the variance of a uniform number in [0, 1]


@dataclass(frozen=True, eq=False)
class Kernel:
    """The parameters, all logarithms: `scales` (d,), `linear`, `noise` (both relative to the amplitude), `amplitude`;
    `centre` (d,), where the linear part is 0."""

    scales: Tensor
    linear: Tensor
    noise: Tensor
    amplitude: Tensor
    centre: Tensor

    @classmethod
    def initial(cls, width: int) -> Kernel:
        """Length scales at which random configurations of `width` inputs in [0, 1] are alike, but not very."""

        def log(value: float) -> Tensor:
            return torch.tensor(value, dtype=torch.float64).log()

        scales = (width / 6) ** 0.5 * torch.ones(width, dtype=torch.float64)
        centre = torch.full((width,), 0.5, dtype=torch.float64)
        return cls(scales.log(), log(_LINEAR_SHARE / width), log(_NOISE), log(1.0), centre)

    @property
    def noise_variance(self) -> float:
        """Of one result, in the targets' units."""
        return float((self.noise + self.amplitude).exp())

    def stationary(self, a: Tensor, b: Tensor) -> Tensor:
        """The Matern part without the amplitude: (..., n, d) and (..., m, d) give (..., n, m), 1 where a = b."""
        a, b = a * (-self.scales).exp(), b * (-self.scales).exp()
        products = a @ b.transpose(-1, -2)
        squares = a.square().sum(-1)[..., :, None] + b.square().sum(-1)[..., None, :] - 2 * products
        squared = squares.clamp(min=1e-12)  # the square root has no gradient at 0
        scaled = (5 * squared).sqrt()
        return (1 + scaled + 5 / 3 * squared) * (-scaled).exp()

    def linear_features(self, inputs: Tensor) -> Tensor:
        """(n, d), whose inner products are the linear part without the amplitude."""
        return (inputs - self.centre) * (0.5 * self.linear).exp() * _UNIT_VARIANCE**0.5

    def fitted(self, inputs: Sequence[Tensor], targets: Sequence[Tensor], rng: np.random.Generator) -> Kernel:
        """The kernel after a few steps from this one towards what past tasks say.

        inputs: (n_t, d) per task; targets: (n_t,). Up to 16 tasks are drawn, and from each equally many of up to 60
        points, so the cost does not grow with the past.
        """
        chosen = rng.permutation(len(targets))[:_TASKS]
        points = min(_POINTS, *(len(targets[t]) for t in chosen), _POINTS)
        rows = [rng.permutation(len(targets[t]))[:points] for t in chosen]
        x = torch.stack([inputs[t][row] for t, row in zip(chosen, rows, strict=True)])
        y = torch.stack([targets[t][row] for t, row in zip(chosen, rows, strict=True)])
        prior = Kernel.initial(x.shape[-1])._packed()
        centre = x.flatten(end_dim=1).mean(dim=0)

        packed = self._packed().requires_grad_()
        optimizer = torch.optim.Adam([packed], lr=_LEARNING_RATE)
        for _ in range(_STEPS):
            kernel = Kernel(packed[:-3], *packed[-3:], centre)
            loss = kernel.negative_log_likelihood(x, y).sum() + (packed - prior).square().sum() / (
                2 * _PRIOR_DEVIATION**2
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        packed = packed.detach()
        return Kernel(packed[:-3], *packed[-3:], centre)

    def negative_log_likelihood(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Of each task's targets (tasks, n) at its inputs (tasks, n, d), without the constant: (tasks,)."""
        linear = self.linear_features(inputs)
        n = targets.shape[-1]
        covariance = self.stationary(inputs, inputs) + linear @ linear.transpose(-1, -2)
        factor = torch.linalg.cholesky(covariance + self.noise.exp() * torch.eye(n, dtype=targets.dtype))
        whitened = torch.linalg.solve_triangular(factor, targets[..., None], upper=False)[..., 0]
        log_determinant = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return (-self.amplitude).exp() * whitened.square().sum(-1) / 2 + log_determinant + n * self.amplitude / 2

    def _packed(self) -> Tensor:
        return torch.cat([self.scales, torch.stack([self.linear, self.noise, self.amplitude])]).clone()


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """f_c: configurations to features whose inner products are the kernel's (Nystroem), without the amplitude.

    The Matern part is exact at the `landmarks` (m, d) and between them as near as these allow.
    """

    kernel: Kernel
    landmarks: Tensor
    whitening: Tensor

    @classmethod
    def of(cls, kernel: Kernel, landmarks: Tensor) -> FeatureMap:
        values, vectors = torch.linalg.eigh(kernel.stationary(landmarks, landmarks))
        kept = values > 1e-6 * values[-1]  # what duplicates among the landmarks leave empty
        return cls(kernel, landmarks, vectors[:, kept] / values[kept].sqrt())

    def __call__(self, inputs: Tensor) -> Tensor:
        """(n, d) to (n, k)."""
        similar = self.kernel.stationary(inputs, self.landmarks) @ self.whitening
        return torch.cat([similar, self.kernel.linear_features(inputs)], dim=-1)
