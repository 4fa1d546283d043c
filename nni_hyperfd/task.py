"""One data set's turn: its phases and its settings."""

from __future__ import annotations

from dataclasses import dataclass

EXTRACT = "extract"
"""The first trial: describes the data set, next to it."""
FINE_TUNE = "fine-tune"
"""One trial per pick of the budget."""
LEARN = "learn"
"""The last trial: updates the extractor, next to the data."""
IMPORT = "import"
"""Not run at all: a result that the user brought."""

PRESETS = ("default", "paper")
"""How picks are chosen: by the belief that learns from every result, or exactly as the paper does."""

REPLAYS = ("none", "meta-features")
"""What a learn job is given of other tasks: nothing, or their meta-features without a name on them."""

SEEDS = range(2**32)  # what every random generator in use takes


@dataclass(frozen=True)
class TaskSettings:
    """How one task is searched. Checked by `HyperFDTuner`, kept with the task."""

    budget: int = 4
    candidates: int = 200
    exploration: float = 0.5
    """Share of the budget that the paper's preset draws at random."""
    seed: int = 0
    maximize: bool = True
    service: bool = True
    """Whether `extract` and `learn` trials are asked for (a plain NNI tuner cannot hear their answers)."""
    preset: str = "default"
    """One of `PRESETS`."""
    replay: str = "none"
    """One of `REPLAYS`."""
    offline: bool = False
    """Whether it is one of the platform's own data sets, which the warm-up learned from, and not a user's."""
