"""Synaptic Intelligence (Zenke et al., 2017), which keeps the extractor from forgetting: eq. 8 to 10, docs/method.md.

Parameters, gradients and importances are dictionaries by parameter name, with tensors of the parameter's shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class PathIntegral:
    """Each parameter's contribution to the decrease of the loss while one task is learned (eq. 8).

    Attributes:
        omega: the contribution so far. It starts at 0 and grows by -gradient * (change of the parameter) with every
            step; its sum over all parameters approaches the decrease of the loss as the steps get small.
    """

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        """Start at 0 for the live `parameters`, which are about to be trained."""
        self._parameters = parameters
        self.omega = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}

    @contextmanager
    def step(self, gradients: Mapping[str, Tensor]) -> Iterator[None]:
        """Wrap one optimiser step; the change that counts is the one that the block really made.

        Args:
            gradients: those of the loss WITHOUT the SI penalty, taken where the step starts. They are copied, so the
                block may add the penalty's gradient to them in place.

        Yields:
            Nothing; `omega` is updated when the block ends.
        """
        unregularised = {name: gradients[name].detach().clone() for name in self.omega}
        before = {name: self._parameters[name].detach().clone() for name in self.omega}
        yield
        for name, omega in self.omega.items():
            omega -= unregularised[name] * (self._parameters[name].detach() - before[name])


def importance(
    previous: Mapping[str, Tensor],
    omega: Mapping[str, Tensor],
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    damping: float,
) -> dict[str, Tensor]:
    """Compute the importance of each parameter after one more task (eq. 9).

    Args:
        previous: importance before this task, >= 0; zeros before the first one.
        omega: this task's path integral.
        before: parameters at the start of this task.
        after: parameters at its end.
        damping: xi of eq. 9, > 0; prevents a division by 0 for a parameter that hardly moved.

    Returns:
        The importance by parameter name, >= 0, without gradient.
    """
    return {
        name: (previous[name] + omega[name] / ((after[name] - before[name]) ** 2 + damping)).clamp(min=0).detach()
        for name in previous
    }


def si_penalty(
    parameters: Mapping[str, Tensor], importance: Mapping[str, Tensor], anchor: Mapping[str, Tensor]
) -> Tensor:
    """Compute the sum over all parameters of importance * (parameter - anchor)^2 (eq. 10).

    Args:
        parameters: the live parameters.
        importance: importance of each after the earlier tasks, >= 0.
        anchor: the parameters at the end of the previous task.

    Returns:
        A scalar >= 0.
    """
    return torch.stack(
        [(importance[name] * (parameter - anchor[name]) ** 2).sum() for name, parameter in parameters.items()]
    ).sum()
