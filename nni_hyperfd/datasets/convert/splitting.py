"""Training, validation and test split."""

from __future__ import annotations

import random
from collections.abc import Sequence

SPLITS = ("train", "val", "test")


def split(official: Sequence[str | None], seed: int) -> list[str]:
    """Assign every picture to a split.

    Official splits are kept; where there is a test but no validation split, a tenth of the training pictures becomes
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
    if "val" not in result and "test" in official:
        training = [index for index, name in enumerate(result) if name == "train"]
        random.Random(seed).shuffle(training)
        for index in training[round(len(training) * 9 / 10) :]:
            result[index] = "val"
    return result
