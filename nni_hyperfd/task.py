"""The vocabulary of a task: the phases and states of its trials, and its settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import Enum
from typing import Any

SEEDS = range(2**32)
"""Seeds that every random number generator in use accepts."""


class _Word(str, Enum):
    """An enumeration whose members are the strings that are stored, sent and shown."""

    def __str__(self) -> str:
        return str(self.value)


class Phase(_Word):
    """What a trial is for."""

    EXTRACT = "extract"
    """The first trial: it describes the data set, next to the data."""
    FINE_TUNE = "fine-tune"
    """One trial per pick of the budget."""
    LEARN = "learn"
    """The last trial: it updates the extractor, next to the data."""
    IMPORT = "import"
    """Not run at all: a result that the user brought."""


RESULT_PHASES = (Phase.FINE_TUNE, Phase.IMPORT)
"""The phases whose trials try a configuration; the others are service trials."""


class Status(_Word):
    """Where a trial stands."""

    PLANNED = "planned"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Scope(_Word):
    """What a tenant's token lets do on a server."""

    READ = "read"
    CLIENT = "client"
    ADMIN = "admin"


class Preset(_Word):
    """How picks are chosen."""

    DEFAULT = "default"
    """By a belief that learns from every result before the next pick."""
    PAPER = "paper"
    """By the paper's recipe, which ranks once."""


class Replay(_Word):
    """What a learn job is given of other clients' data sets."""

    NONE = "none"
    META_FEATURES = "meta-features"
    """Their meta-features, without names and in random order."""


class SettingsError(ValueError):
    """A setting of a task is unknown or outside its range; the message begins with its name."""


@dataclass(frozen=True)
class TaskSettings:
    """How one task is searched; kept with the task.

    Attributes:
        budget: configurations to try, at least 1.
        candidates: configurations drawn from the search space and ranked, at least `budget`.
        exploration: share of the budget that the paper's preset draws at random, in [0, 1].
        seed: of everything random, one of `SEEDS`.
        maximize: whether a higher performance is better.
        service: whether `extract` and `learn` trials are asked for (a plain NNI tuner cannot hear their answers).
        preset: how picks are chosen.
        replay: what the learn job is given of other clients.

    Raises:
        SettingsError: a value is of the wrong type or outside its range.
    """

    budget: int = 4
    candidates: int = 200
    exploration: float = 0.5
    seed: int = 0
    maximize: bool = True
    service: bool = True
    preset: Preset = Preset.DEFAULT
    replay: Replay = Replay.NONE

    def __post_init__(self) -> None:
        for name in ("budget", "candidates"):
            _check(name, self, _is_int(getattr(self, name)) and getattr(self, name) >= 1, "no whole number from 1 up")
        if self.candidates < self.budget:
            raise SettingsError(f"candidates: {self.candidates} are fewer than the budget of {self.budget}")
        share = isinstance(self.exploration, (int, float)) and not isinstance(self.exploration, bool)
        _check("exploration", self, share and 0 <= self.exploration <= 1, "not within 0 and 1")
        seed = _is_int(self.seed) and self.seed in SEEDS
        _check("seed", self, seed, f"no whole number from 0 to {SEEDS.stop - 1}")
        for name in ("maximize", "service"):
            _check(name, self, isinstance(getattr(self, name), bool), "neither true nor false")
        for name, kind in (("preset", Preset), ("replay", Replay)):
            known = [word.value for word in kind]
            _check(name, self, getattr(self, name) in known, f"none of {', '.join(known)}")
            object.__setattr__(self, name, kind(getattr(self, name)))
        object.__setattr__(self, "exploration", float(self.exploration))

    @property
    def sign(self) -> float:
        """1 or -1: a performance times this is higher for a better configuration."""
        return 1.0 if self.maximize else -1.0

    def to_json(self) -> dict[str, Any]:
        """The settings as a JSON object, for `from_json`."""
        return {name: str(v) if isinstance(v, Enum) else v for name, v in asdict(self).items()}

    @classmethod
    def from_json(cls, settings: Mapping[str, Any]) -> TaskSettings:
        """Read what `to_json` made; a setting that is missing has its default.

        Raises:
            SettingsError: a setting is unknown, of the wrong type or outside its range.
        """
        known = [field.name for field in fields(cls)]
        if unknown := [name for name in settings if name not in known]:
            raise SettingsError(f"{unknown[0]}: there is no such setting")
        return cls(**settings)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check(name: str, settings: TaskSettings, valid: bool, reason: str) -> None:
    if not valid:
        raise SettingsError(f"{name}: {getattr(settings, name)!r} is {reason}")
