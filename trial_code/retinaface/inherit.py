"""Weights for a detector of another shape than the one that has them: deeper, wider, or with another part.

It starts as the detector that it inherits from, as far as both have the same parts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from torch import Tensor


def inherit(given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Weights with the names and shapes of `own`, and a sentence that says how many come from where.

    A tensor that both have in one shape is the given one, one that is larger here is widened from it; others are
    `own`'s.
    """
    result, widened, new = {}, 0, Counter()
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
    """`own`, whose first channels are the given ones and do not listen to the new ones.

    In a network of such tensors the first channels are those of the given network, whatever the new ones are.
    """
    widened = own.clone()
    if own.ndim > 1:
        widened[: len(given)] = 0
    widened[tuple(slice(size) for size in given.shape)] = given
    return widened


def _fits(given: Tensor, own: Tensor) -> bool:
    """Whether the two differ in channels only, of which `own` has no fewer."""
    return (
        given.ndim == own.ndim
        and given.shape[2:] == own.shape[2:]
        and all(size <= mine for size, mine in zip(given.shape[:2], own.shape[:2], strict=True))
    )
