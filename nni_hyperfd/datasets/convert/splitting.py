"""Train, validation and test split."""

from __future__ import annotations

import random


def split(official: list[str | None], seed: int) -> list[str]:
    """The split of every picture.

    Official splits are kept; where there is a test but no validation split, a tenth of the training pictures becomes
    it. Without official splits 6 : 1 : 3 by ``seed``. Counts are rounded as in Table 7: round(0.6 n) for training,
    floor(0.1 n) for validation, round(0.9 n) of an official training split.
    """
    result = list(official)
    free = [place for place, name in enumerate(official) if name is None]
    random.Random(seed).shuffle(free)
    train, val = round(len(free) * 6 / 10), len(free) // 10
    for rank, place in enumerate(free):
        result[place] = "train" if rank < train else "val" if rank < train + val else "test"
    if "val" not in result and "test" in official:
        training = [place for place, name in enumerate(result) if name == "train"]
        random.Random(seed).shuffle(training)
        for place in training[round(len(training) * 9 / 10) :]:
            result[place] = "val"
    return result
