"""The constants of the ranker (papers/README.md, "Constants"; Table 12 of the paper)."""

from __future__ import annotations

from dataclasses import dataclass

MOST_TASKS = 32
"""Of so many past tasks is learned at most, the newest and others drawn at random: the cost stays flat, and more teach
little."""


@dataclass(frozen=True)
class RankerSettings:
    """Everything that can be set about the ranker and its learning; the defaults are the paper's.

    Raises ValueError, naming the field, for a value outside its range.
    """

    hidden: int = 64
    """Length of meta-features and configuration embeddings; a multiple of the 4 attention heads."""
    learning_rate: float = 1e-4
    """Adam, for both networks."""
    batch_size: int = 4
    """Lists in a batch of the encoder's training. A list is what is known of one task, in the paper the results of its
    budget of 4: for its tasks it is the same as 4 configurations, the other way to read Table 12."""
    batches: int = 50
    """Batches per task, for both networks."""
    image_batch: int = 32
    """Images in a batch of the extractor's training, at most (not given in the paper)."""
    triplet_weight: float = 0.03
    """lambda_1 of eq. 11."""
    margin: float = 0.5
    """m of eq. 7."""
    si_weight: float = 1e4
    """lambda_2 of eq. 11."""
    damping: float = 0.1
    """xi of eq. 9."""
    sampling: tuple[int, int, int] = (5, 1, 1)
    """Odds of a batch from the current task : past online tasks : offline data sets."""
    sigma: float = 1.0
    """Steepness of the ranking loss, eq. 6."""
    relevance_quantile: float = 0.0
    """Performances of a task up to this quantile have relevance 0; 0.2 in AceNAS."""
    top_relevance: float = 1.0
    """Relevance of a task's best performance; 20 in AceNAS."""
    loss: str = "rank"
    """"rank", eq. 6, or "mse": squared error of performances standardised within the task (the paper's Table 1)."""
    exploration: float = 0.5
    """Share of the budget that is drawn at random, 0 to 1."""

    def __post_init__(self) -> None:
        def check(field: str, valid: bool, expected: str) -> None:
            if not valid:
                raise ValueError(f"Ranker setting {field} must be {expected}, not {getattr(self, field)!r}.")

        check("hidden", self.hidden > 0 and self.hidden % 4 == 0, "a positive multiple of 4")
        for field in ("batch_size", "batches", "image_batch"):
            check(field, getattr(self, field) >= 1, "at least 1")
        for field in ("learning_rate", "damping", "sigma", "top_relevance"):
            check(field, getattr(self, field) > 0, "greater than 0")
        for field in ("triplet_weight", "margin", "si_weight"):
            check(field, getattr(self, field) >= 0, "0 or greater")
        odds_valid = len(self.sampling) == 3 and self.sampling[0] > 0 and min(self.sampling) >= 0
        check("sampling", odds_valid, "three numbers (current, past, offline), 0 or greater, the first greater than 0")
        check("relevance_quantile", 0 <= self.relevance_quantile < 1, "0 or greater and less than 1")
        check("loss", self.loss in ("rank", "mse"), "'rank' or 'mse'")
        check("exploration", 0 <= self.exploration <= 1, "between 0 and 1")
