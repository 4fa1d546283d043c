"""The arguments in `classArgs` of the experiment's configuration, checked before anything is opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nni_hyperfd.client import AddressError, checked_address
from nni_hyperfd.platform import default_state
from nni_hyperfd.space.search_space import KINDS
from nni_hyperfd.task import Preset, SettingsError, TaskSettings

WARM_STATE = Path(__file__).parents[1] / "warmup" / "shipped" / "state.sqlite"
"""The warm-up that comes with the package."""

_MODES = ("maximize", "minimize")
_WHEN_AWAY = ("wait", "continue")


class ClassArgsError(ValueError):
    """An entry of `classArgs` in the experiment's configuration is wrong; the message names it."""


@dataclass(frozen=True)
class Server:
    """A platform that is elsewhere.

    Attributes:
        address: of the server.
        ca_file: certificates to check the server's against, or None for the system's.
        token_file: file with the token, or None.
        continues: whether picks are made from the last ranking while the server is away.
    """

    address: str
    ca_file: Path | None = None
    token_file: Path | None = None
    continues: bool = False

    @classmethod
    def of(cls, given: dict[str, Any]) -> Server | None:
        """Take the arguments that name a server out of those given; None where they name none.

        Raises:
            ClassArgsError: one of them is wrong, or there is one of another platform beside them.
        """
        address = given.pop("platform", None)
        ca_file, token_file = given.pop("ca_file", None), given.pop("token_file", None)
        when_away = given.pop("when_away", None)
        if address is None:
            for name, value in (("ca_file", ca_file), ("token_file", token_file), ("when_away", when_away)):
                _check(value is None, f"{name}: it belongs to a server; name that as platform")
            return None
        for name in ("state", "warm_start"):
            _check(given.pop(name, None) is None, f"{name}: the server has its own; leave it out beside platform")
        _check("token" not in given, "token: NNI shows and keeps classArgs; put it into a file and name token_file")
        _check(isinstance(address, str), f"platform: {address!r} is no address")
        _check(when_away in (None, *_WHEN_AWAY), f"when_away: {when_away!r} is none of {', '.join(_WHEN_AWAY)}")
        try:
            checked = checked_address(address)
        except AddressError as error:
            raise ClassArgsError(f"classArgs: platform: {error}") from None
        return cls(checked, _file("ca_file", ca_file), _file("token_file", token_file), when_away == "continue")


@dataclass(frozen=True)
class ClassArgs:
    """What `classArgs` say.

    Attributes:
        state: the state file; without meaning beside a server.
        warm_start: what a new state begins with, or None.
        space: the kind of the search space, or None to find it from the space.
        settings: of the task.
        server: in place of a state; None for a platform in this process.
    """

    state: Path
    warm_start: Path | None
    space: str | None
    settings: TaskSettings
    server: Server | None = None

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
        server = Server.of(given)
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
        return cls(_state(state), _warm_start(warm_start), space, checked, server)


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


def _file(name: str, value: Any) -> Path | None:
    if value is None:
        return None
    _check(isinstance(value, str) and bool(value), f"{name}: {value!r} is no file name")
    path = Path(value).expanduser()
    _check(path.is_absolute(), f"{name}: {value!r} must be an absolute path ('~' is allowed)")
    _check(path.is_file(), f"{name}: there is no file {path}")
    return path


def _check(valid: bool, message: str) -> None:
    if not valid:
        raise ClassArgsError(f"classArgs: {message}")
