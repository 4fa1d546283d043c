"""The arguments in `classArgs` of the experiment's configuration, checked before anything is opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nni_hyperfd.platform import default_state
from nni_hyperfd.space.search_space import KINDS
from nni_hyperfd.task import Preset, SettingsError, TaskSettings

WARM_STATE = Path(__file__).parents[1] / "warmup" / "shipped" / "state.sqlite"
"""The warm-up that comes with the package."""

_MODES = ("maximize", "minimize")


class ClassArgsError(ValueError):
    """An entry of `classArgs` in the experiment's configuration is wrong; the message names it."""


@dataclass(frozen=True)
class ClassArgs:
    """What `classArgs` say.

    Attributes:
        state: the state file.
        warm_start: what a new state begins with, or None.
        space: the kind of the search space, or None to find it from the space.
        settings: of the task.
    """

    state: Path
    warm_start: Path | None
    space: str | None
    settings: TaskSettings

    @classmethod
    def of(cls, service: bool, arguments: dict[str, Any]) -> ClassArgs:
        """Check the arguments, which are those of `nni_hyperfd.HyperFDTuner`.

        Args:
            service: whether `extract` and `learn` trials can be asked for.
            arguments: name -> value; missing ones have their defaults.

        Raises:
            ClassArgsError: an argument is unknown or outside its range.
        """
        given = dict(arguments)
        state, space = given.pop("state", None), given.pop("space", None)
        warm_start, mode = given.pop("warm_start", "default"), given.pop("optimize_mode", "maximize")
        if given.get("exploration") is None:
            given.pop("exploration", None)
        names = ("budget", "candidates", "exploration", "seed", "preset", "replay")
        settings = {name: given.pop(name) for name in names if name in given}
        _check(not given, f"{', '.join(given)}: no such argument of HyperFD")
        _check(space is None or space in KINDS, f"space: {space!r} is none of {', '.join(KINDS)}")
        _check(mode in _MODES, f"optimize_mode: {mode!r} is none of {', '.join(_MODES)}")
        paper = settings.get("preset") == Preset.PAPER
        _check("exploration" not in settings or paper, "exploration: this belongs to preset: paper; leave it out")
        try:
            checked = TaskSettings(**settings, maximize=mode == "maximize", service=service)
        except SettingsError as error:
            raise ClassArgsError(f"classArgs: {error}") from None
        return cls(_state(state), _warm_start(warm_start), space, checked)


def _state(value: Any) -> Path:
    _check(value is None or (isinstance(value, str) and bool(value)), f"state: {value!r} is no file name")
    path = default_state() if value is None else Path(value).expanduser()
    # NNI runs a tuner inside the experiment's log folder, where nobody would look for a relative path.
    _check(path.is_absolute(), f"state: {value!r} must be an absolute path ('~' is allowed)")
    return path


def _warm_start(value: Any) -> Path | None:
    if value == "none":
        return None
    if value == "default":
        return WARM_STATE
    named = isinstance(value, str) and bool(value)
    _check(named, f"warm_start: {value!r} is neither 'default', 'none' nor a file name")
    path = Path(value).expanduser()
    _check(path.is_absolute(), f"warm_start: {value!r} must be 'default', 'none' or an absolute path ('~' is allowed)")
    _check(path.is_file(), f"warm_start: there is no file {path}")
    return path


def _check(valid: bool, message: str) -> None:
    if not valid:
        raise ClassArgsError(f"classArgs: {message}")
