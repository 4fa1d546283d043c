"""Training, validation and test split."""

from __future__ import annotations

import random
from collections.abc import Sequence

SPLITS = ("train", "val", "test")


def split(official: Sequence[str | None], seed: int) -> list[str]:
    """Assign every picture to a split.

    Official splits are kept; where there is a training but no validation split, a tenth of the training pictures is
    the latter. Pictures without an official split are divided 6 : 1 : 3. Counts are rounded as in Table 7 of the
    HyperFD paper: round(0.6 n) for training and floor(0.1 n) for validation, or round(0.9 n) of an official training
    split for training.

    Args:
        official: for each picture its official split (train, val or test), or None.
        seed: of the draw.

    Returns:
        The split of each picture.
    """
    free = [index for index, name in enumerate(official) if name is None]
    random.Random(seed).shuffle(free)
    train, val = round(len(free) * 6 / 10), len(free) // 10
    drawn = {
        index: "train" if rank < train else "val" if rank < train + val else "test" for rank, index in enumerate(free)
    }
    result = [drawn[index] if name is None else name for index, name in enumerate(official)]
    if _lacks_validation(result):
        training = [index for index, name in enumerate(result) if name == "train"]
        random.Random(seed).shuffle(training)
        for index in training[round(len(training) * 9 / 10) :]:
            result[index] = "val"
    return result


def rule(official: Sequence[str | None], seed: int, resplit: bool = False) -> str:
    """Say in words which splits are official, which were drawn, and how.

    Args:
        official: for each picture its official split, as the source has it, or None.
        seed: of the draw.
        resplit: the official splits were to be given up.
    """
    named = [name for name in SPLITS if name in official]
    drawn = f"drawn 6 : 1 : 3 with seed {seed}"
    if not named:
        return f"{drawn}, as the source names no splits"
    if resplit:
        return f"{drawn}, in place of the official {', '.join(named)}"
    words = f"official: {', '.join(named)}"
    if free := sum(name is None for name in official):
        words += f"; {free} images that the source puts in none are {drawn}"
    elif _lacks_validation(official):
        words += f"; val is a tenth of the official train, drawn with seed {seed}, as the source has none"
    return words


def _lacks_validation(splits: Sequence[str | None]) -> bool:
    return "val" not in splits and "train" in splits
