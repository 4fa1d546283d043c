"""Synaptic Intelligence, equations 8 to 10 of papers/README.md, after Zenke et al. (2017).

Parameters, gradients and importances are dictionaries by parameter name, with tensors of the parameter's shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class PathIntegral:
    """What each parameter contributed to the fall of the loss along the way of one task (eq. 8).

    parameters: the live parameters that are being trained. `omega` starts at 0 and grows by -g * (change of the
    parameter) with every step; its sum approaches the loss's drop as steps get small.
    """

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        self._parameters = parameters
        self.omega = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}

    @contextmanager
    def step(self, gradients: Mapping[str, Tensor]) -> Iterator[None]:
        """Wrap one optimiser step. gradients: of the loss WITHOUT the SI penalty, taken where the step starts; they
        are copied, so the block may add the penalty's gradient to them in place. The change that counts is the one
        the block really made, whatever the optimiser."""
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
    """Importance of each parameter after one more task (eq. 9), >= 0.

    previous: importance so far. omega: this task's path integral. before, after: parameters at the start and the end
    of this task. damping: xi > 0, keeps a parameter that hardly moved from a division by 0.
    """
    return {
        name: (previous[name] + omega[name] / ((after[name] - before[name]) ** 2 + damping)).clamp(min=0).detach()
        for name in previous
    }


def si_penalty(
    parameters: Mapping[str, Tensor], importance: Mapping[str, Tensor], anchor: Mapping[str, Tensor]
) -> Tensor:
    """Sum over all parameters of importance * (parameter - anchor)^2 (eq. 10), a scalar >= 0.

    anchor: the parameters at the end of the previous task.
    """
    return torch.stack(
        [(importance[name] * (parameter - anchor[name]) ** 2).sum() for name, parameter in parameters.items()]
    ).sum()
