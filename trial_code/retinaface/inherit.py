"""Weights for a detector that is deeper or wider than the one they belong to, or has another neck or head.

As far as both have the same parts, it starts by computing what the given detector computes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from torch import Tensor


def inherit(given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Combine given weights with a detector's own.

    Args:
        given: tensors to inherit, by name.
        own: tensors of the detector, by name.

    Returns:
        Tensors with the names and shapes of `own`, and a sentence that says how many of them were inherited. A tensor
        of the same shape is inherited as it is, a larger one is widened from the given one, all others are `own`'s.
    """
    result: dict[str, Tensor] = {}
    widened, new = 0, Counter[str]()
    for name, tensor in own.items():
        like = given.get(name)
        if like is not None and like.shape == tensor.shape:
            result[name] = like
        elif like is not None and _fits(like, tensor):
            result[name] = widen(like, tensor)
            widened += 1
        else:
            result[name] = tensor
            new[".".join(name.split(".")[:2])] += 1
    kept = len(own) - new.total()
    unused = len(given) - kept
    parts = ", ".join(f"{count} of {part}" for part, count in new.items())
    return result, (
        f"{kept} of {len(own)} tensors inherited, {widened} of them widened; {new.total()} new"
        f"{f' ({parts})' if new else ''}; {unused} of the weights unused"
    )


def widen(given: Tensor, own: Tensor) -> Tensor:
    """`own` with the given tensor as its first channels, which do not depend on the other channels.

    So in a network of widened tensors the first channels have the values that they have in the given network.
    """
    widened = own.clone()
    if own.ndim > 1:
        widened[: len(given)] = 0
    widened[tuple(slice(size) for size in given.shape)] = given
    return widened


def _fits(given: Tensor, own: Tensor) -> bool:
    """Whether the tensors differ only in their numbers of channels, and `own` has no fewer."""
    return (
        given.ndim == own.ndim
        and given.shape[2:] == own.shape[2:]
        and all(size <= mine for size, mine in zip(given.shape[:2], own.shape[:2], strict=True))
    )
