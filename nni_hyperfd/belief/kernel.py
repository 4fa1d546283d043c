"""Similarity of configurations, learned from past tasks, and features whose inner products approximate it.

The kernel is a Matern-5/2 kernel with one length scale per input, plus a linear part. Length scales, the linear part's
share, the noise and the amplitude maximise the marginal likelihood of past tasks, each an independent Gaussian process,
times a prior that dominates where the tasks say little. Everything is float64. Equations B3 to B5 of docs/method.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

_STEPS, _LEARNING_RATE = 40, 0.1
_TASKS, _POINTS = 16, 60
_NOISE = 0.2
_LINEAR_SHARE = 0.3
_PRIOR_DEVIATION = 0.5
_UNIT_VARIANCE = 12.0  # 1 / the variance of a uniform number in [0, 1]


@dataclass(frozen=True, eq=False)
class Kernel:
    """A kernel's parameters, all float64 and all but `centre` logarithms.

    Attributes:
        scales: (d,), log length scale of each input.
        linear: scalar, log weight of the linear part, relative to the amplitude.
        noise: scalar, log variance of a result's noise, relative to the amplitude.
        amplitude: scalar, log variance of the targets per unit of the kernel.
        centre: (d,), inputs where the linear part is 0.
    """

    scales: Tensor
    linear: Tensor
    noise: Tensor
    amplitude: Tensor
    centre: Tensor

    @classmethod
    def initial(cls, width: int) -> Kernel:
        """Make the prior kernel: random configurations of `width` inputs in [0, 1] are moderately similar."""

        def log(value: float) -> Tensor:
            return torch.tensor(value, dtype=torch.float64).log()

        scales = (width / 6) ** 0.5 * torch.ones(width, dtype=torch.float64)
        centre = torch.full((width,), 0.5, dtype=torch.float64)
        return cls(scales.log(), log(_LINEAR_SHARE / width), log(_NOISE), log(1.0), centre)

    @property
    def noise_variance(self) -> float:
        """Variance of the noise of one result, in the targets' units."""
        return float((self.noise + self.amplitude).exp())

    def stationary(self, a: Tensor, b: Tensor) -> Tensor:
        """Compute the Matern part of eq. B3, without the amplitude.

        Args:
            a: (..., n, d), inputs.
            b: (..., m, d), inputs.

        Returns:
            (..., n, m), in (0, 1], 1 where two inputs are equal.
        """
        a, b = a * (-self.scales).exp(), b * (-self.scales).exp()
        products = a @ b.transpose(-1, -2)
        squares = a.square().sum(-1)[..., :, None] + b.square().sum(-1)[..., None, :] - 2 * products
        squared = squares.clamp(min=1e-12)  # the square root has no gradient at 0
        scaled = (5 * squared).sqrt()
        similarity: Tensor = (1 + scaled + 5 / 3 * squared) * (-scaled).exp()
        return similarity

    def linear_features(self, inputs: Tensor) -> Tensor:
        """Return (..., n, d) whose inner products are the linear part of eq. B3 at inputs (..., n, d)."""
        return (inputs - self.centre) * (0.5 * self.linear).exp() * math.sqrt(_UNIT_VARIANCE)

    def fitted(self, inputs: Sequence[Tensor], targets: Sequence[Tensor], rng: np.random.Generator) -> Kernel:
        """Return the kernel after 40 steps of Adam from this one towards the maximum of eq. B4.

        Up to 16 tasks are drawn, and from each up to 60 points, so the cost does not grow with the number of tasks.

        Args:
            inputs: (n_t, d) for each task, encoded configurations.
            targets: (n_t,) for each task.
            rng: of the draw.
        """
        chosen = rng.permutation(len(targets))[:_TASKS]
        rows = [rng.permutation(len(targets[t]))[:_POINTS] for t in chosen]
        x = pad_sequence([inputs[t][row] for t, row in zip(chosen, rows, strict=True)], batch_first=True)
        y = pad_sequence([targets[t][row] for t, row in zip(chosen, rows, strict=True)], batch_first=True)
        counts = torch.tensor([len(row) for row in rows])
        prior = Kernel.initial(x.shape[-1])._packed()
        centre = x.sum(dim=(0, 1)) / counts.sum()

        packed = self._packed().requires_grad_()
        optimizer = torch.optim.Adam([packed], lr=_LEARNING_RATE)
        for _ in range(_STEPS):
            kernel = Kernel._unpacked(packed, centre)
            loss = kernel.negative_log_likelihood(x, y, counts).sum() + (packed - prior).square().sum() / (
                2 * _PRIOR_DEVIATION**2
            )
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        return Kernel._unpacked(packed.detach(), centre)

    def negative_log_likelihood(self, inputs: Tensor, targets: Tensor, counts: Tensor) -> Tensor:
        """Compute the negative log marginal likelihood of each task (eq. B4), without its constant.

        Args:
            inputs: (tasks, n, d).
            targets: (tasks, n).
            counts: integers (tasks,) from 1 to n, how many of each task's rows, the first ones, are results.

        Returns:
            (tasks,).
        """
        linear = self.linear_features(inputs)
        n = targets.shape[-1]
        covariance = self.stationary(inputs, inputs) + linear @ linear.transpose(-1, -2)
        factor = torch.linalg.cholesky(covariance + self.noise.exp() * torch.eye(n, dtype=targets.dtype))
        whitened = torch.linalg.solve_triangular(factor, targets[..., None], upper=False)[..., 0]
        # The leading block of the factor is the factor of the leading block: the rows after the results do not matter.
        result = torch.arange(n) < counts[:, None]
        log_determinant = (factor.diagonal(dim1=-2, dim2=-1).log() * result).sum(-1)
        fit = (-self.amplitude).exp() * (whitened.square() * result).sum(-1) / 2
        total: Tensor = fit + log_determinant + counts * self.amplitude / 2
        return total

    def _packed(self) -> Tensor:
        """All parameters that are learned, (d + 3,)."""
        return torch.cat([self.scales, torch.stack([self.linear, self.noise, self.amplitude])]).clone()

    @classmethod
    def _unpacked(cls, packed: Tensor, centre: Tensor) -> Kernel:
        linear, noise, amplitude = packed[-3:]
        return cls(packed[:-3], linear, noise, amplitude, centre)


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """f_c of the default preset: features of configurations whose inner products approximate the kernel (eq. B5).

    They leave the amplitude out. The Matern part is exact at the landmarks and approximate between them (Nystroem).

    Attributes:
        kernel: the kernel that is approximated.
        landmarks: (m, d), encoded configurations.
        whitening: (m, k - d), inverse square root of the Matern part among the landmarks.
    """

    kernel: Kernel
    landmarks: Tensor
    whitening: Tensor

    @classmethod
    def of(cls, kernel: Kernel, landmarks: Tensor) -> FeatureMap:
        """Make the features of a kernel from landmarks (m, d), among which duplicates may be."""
        values, vectors = torch.linalg.eigh(kernel.stationary(landmarks, landmarks))
        kept = values > 1e-6 * values[-1]  # duplicates among the landmarks leave eigenvalues of 0
        return cls(kernel, landmarks, vectors[:, kept] / values[kept].sqrt())

    def __call__(self, inputs: Tensor) -> Tensor:
        """Compute the features (n, k) of inputs (n, d)."""
        similar = self.kernel.stationary(inputs, self.landmarks) @ self.whitening
        return torch.cat([similar, self.kernel.linear_features(inputs)], dim=-1)

    def of_inputs(self, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
        """Compute the features (n, k) of encoded configurations (n, d)."""
        features: NDArray[np.float64] = self(torch.from_numpy(inputs).double()).numpy()
        return features
