"""The constants of the paper's method (Table 12) and what else can be set about it; listed in docs/method.md."""

from __future__ import annotations

from dataclasses import dataclass

MOST_TASKS = 32
"""Maximum number of past tasks to learn from: the newest and others drawn at random.

With it the cost of learning does not grow with the number of tasks; more tasks improve the result little.
"""
MOST_PICKED = 256
"""Maximum number of past tasks of which only the picks are known that the default preset learns from, the newest."""


@dataclass(frozen=True)
class RankerSettings:
    """Settings of the paper's method; the defaults are the paper's where it gives a value.

    Attributes:
        hidden: length of meta-features and configuration embeddings; a multiple of the 4 attention heads.
        learning_rate: of Adam, for both networks; > 0.
        batch_size: lists per batch of the encoder's training. A list holds the known results of one task; in the
            paper these are the 4 of its budget, so 4 lists there are the same as Table 12's batch of 4 read as tasks.
        batches: batches per task, for both networks.
        image_batch: maximum number of images per batch of the extractor's training (not given in the paper).
        triplet_weight: lambda_1 of eq. 11, >= 0.
        margin: m of eq. 7, >= 0.
        si_weight: lambda_2 of eq. 11, >= 0.
        damping: xi of eq. 9, > 0.
        sampling: odds with which a list or a triplet's anchor comes from the current task, from past online tasks and
            from offline data sets; >= 0, the first > 0.
        sigma: steepness of the ranking loss (eq. 6), > 0.
        loss: "rank" for eq. 6, or "mse" for the squared error of performances standardised within the task, the
            variant "HyperFD (MSE)" of the paper's Table 1.
        exploration: share of the budget that is drawn at random instead of from the top of the ranking, in [0, 1].

    Raises:
        ValueError: a value is outside its range; the message names the field.
    """

    hidden: int = 64
    learning_rate: float = 1e-4
    batch_size: int = 4
    batches: int = 50
    image_batch: int = 32
    triplet_weight: float = 0.03
    margin: float = 0.5
    si_weight: float = 1e4
    damping: float = 0.1
    sampling: tuple[int, int, int] = (5, 1, 1)
    sigma: float = 1.0
    loss: str = "rank"
    exploration: float = 0.5

    def __post_init__(self) -> None:
        def check(field: str, valid: bool, expected: str) -> None:
            if not valid:
                raise ValueError(f"Ranker setting {field} must be {expected}, not {getattr(self, field)!r}.")

        check("hidden", self.hidden > 0 and self.hidden % 4 == 0, "a positive multiple of 4")
        for field in ("batch_size", "batches", "image_batch"):
            check(field, getattr(self, field) >= 1, "at least 1")
        for field in ("learning_rate", "damping", "sigma"):
            check(field, getattr(self, field) > 0, "greater than 0")
        for field in ("triplet_weight", "margin", "si_weight"):
            check(field, getattr(self, field) >= 0, "0 or greater")
        odds_valid = len(self.sampling) == 3 and self.sampling[0] > 0 and min(self.sampling) >= 0
        check("sampling", odds_valid, "three numbers (current, past, offline), 0 or greater, the first greater than 0")
        check("loss", self.loss in ("rank", "mse"), "'rank' or 'mse'")
        check("exploration", 0 <= self.exploration <= 1, "between 0 and 1")
