"""What the data owner has decided. Nothing that the platform or an experiment's file says can change it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any

import platformdirs

VARIABLE = "HYPERFD_PRIVACY"
"""Environment variable of the settings: "off", "epsilon=3,delta=1e-5,...", or the path of a file with such lines."""


class Unit(str, Enum):
    """What one guarantee covers."""

    IMAGE = "image"
    GROUP = "group"
    """All images with the same `group` in the annotations: those of a person, or of a camera."""


class AP(str, Enum):
    """How APs leave, which no guarantee covers."""

    ROUNDED = "rounded"
    """To two digits (`privacy.results`)."""
    EXACT = "exact"


class PrivacyError(ValueError):
    """The owner's settings or his ledger do not allow to go on; nothing has left. The message says what to do."""


@dataclass(frozen=True)
class PrivacySettings:
    """The owner's settings.

    Attributes:
        off: whether descriptions leave without noise; it must be said explicitly.
        epsilon, delta: the guarantee of one description.
        total: the epsilon of all descriptions of a data set together, at the same delta.
        minimum: number of units below which a data set is not described.
        unit: what is protected.
        ap: how the APs of trials leave; with `off` they leave exact.
        learn: whether the paper's learn job may send an update of the extractor, which is not covered by any guarantee.
        among: number of owners' updates that must be averaged before anything of this one is handed on.
        share: whether this data set's description may be given to other owners' learn jobs.
        name: of the data set in the ledger; by default its folder.
        ledger: folder of the ledger; by default it lies in the data set's folder.
        projection: file of the platform's operator, for an extractor that the package does not know.

    Raises:
        PrivacyError: a value is outside its range, or two contradict each other.
    """

    off: bool = False
    epsilon: float = 3.0
    delta: float = 1e-5
    total: float = 8.0
    minimum: int = 100
    unit: Unit = Unit.IMAGE
    ap: AP = AP.ROUNDED
    learn: bool = False
    among: int = 5
    share: bool = False
    name: str | None = None
    ledger: Path | None = None
    projection: Path | None = None

    def __post_init__(self) -> None:
        def check(name: str, valid: bool, expected: str) -> None:
            if not valid:
                raise PrivacyError(f"{VARIABLE}: {name} must be {expected}, not {getattr(self, name)}")

        check("epsilon", 0 < self.epsilon < math.inf, "above 0")
        check("delta", 0 < self.delta < 1, "between 0 and 1")
        check("total", self.epsilon <= self.total < math.inf, f"at least epsilon ({self.epsilon:g})")
        check("minimum", self.minimum >= 2, "2 or more")
        check("among", self.among >= 1, "1 or more")
        for name in ("ledger", "projection"):
            path = getattr(self, name)
            check(name, path is None or path.is_absolute(), "an absolute path")
        if self.learn and not self.off:
            raise PrivacyError(
                f"{VARIABLE}: learn=allow discloses the mean of the data set, which no noise of use could hide; say "
                "off,learn=allow if that is intended, or leave learn out"
            )

    @property
    def rounds_ap(self) -> bool:
        """Whether the APs of trials leave rounded."""
        return not self.off and self.ap is AP.ROUNDED


def of_owner() -> PrivacySettings:
    """The settings in `VARIABLE`, else in the user's own file, else the defaults.

    Raises:
        PrivacyError: they cannot be read or contradict each other.
    """
    given = os.environ.get(VARIABLE)
    if given is None:
        own = user_file()
        return read(own.read_text(), str(own)) if own.is_file() else PrivacySettings()
    path = Path(given.strip()).expanduser()
    if not path.is_absolute():
        return read(given, VARIABLE)
    try:
        return read(path.read_text(), str(path))
    except OSError as error:
        raise PrivacyError(f"{VARIABLE}: {path}: {error.strerror}; name a file that can be read") from None


def user_file() -> Path:
    """The file that holds a user's settings where the environment has none."""
    return Path(platformdirs.user_config_path("nni_hyperfd")) / "privacy"


def read(text: str, source: str) -> PrivacySettings:
    """Read settings: names and values, or "off", separated by commas or lines; "#" begins a comment.

    Args:
        text: the settings.
        source: where they come from, for messages.

    Raises:
        PrivacyError: they are malformed or contradict each other.
    """
    values: dict[str, Any] = {}
    for name, value in _items(text):
        if name not in _READ:
            raise PrivacyError(f"{source}: there is no setting {name!r}; the settings are {', '.join(_READ)}")
        if name in values:
            raise PrivacyError(f"{source}: {name} is given twice")
        try:
            values[name] = _READ[name](value)
        except (ValueError, KeyError):
            raise PrivacyError(f"{source}: {name}={value}: this is no value for it") from None
    if not values:
        raise PrivacyError(f"{source}: it holds no setting; say off, or leave it out for the defaults")
    bounded = {"epsilon", "delta", "total", "minimum", "unit", "ap"} & set(values)
    if "off" in values and bounded:
        raise PrivacyError(f"{source}: off and {min(bounded)} contradict each other; leave one of them out")
    return PrivacySettings(**values)


def _items(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        for item in line.partition("#")[0].split(","):
            name, equals, value = (part.strip() for part in item.partition("="))
            if name == "off" and not equals:
                yield "off", "off"
            elif name or equals:
                yield name, value


_READ: dict[str, Callable[[str], Any]] = {
    "off": {"off": True}.__getitem__,
    "epsilon": float,
    "delta": float,
    "total": float,
    "minimum": int,
    "unit": Unit,
    "ap": AP,
    "learn": {"allow": True, "deny": False}.__getitem__,
    "among": int,
    "share": {"allow": True, "deny": False}.__getitem__,
    "name": str,
    "ledger": lambda value: Path(value).expanduser(),
    "projection": lambda value: Path(value).expanduser(),
}
assert set(_READ) == {field.name for field in fields(PrivacySettings)}
