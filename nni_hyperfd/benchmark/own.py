"""Recommenders of one's own in `hyperfd benchmark`: found as `module:Class`, and held to the recommenders' contract."""

from __future__ import annotations

import inspect
import os
import reprlib
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import ParamSpec, TypeVar, cast

import nni_hyperfd
from nni_hyperfd import recommenders
from nni_hyperfd.recommenders import EncodedConfigurations, MeasuredDataset, Recommender, Task

_P = ParamSpec("_P")
_R = TypeVar("_R")
_SUITE = "nni_hyperfd.recommenders.conformance tests the whole contract"


class RecommenderError(ValueError):
    """A recommender cannot be used or has broken the contract; the message names it, what it did and what to do."""


def maker(name: str) -> Callable[[int], Recommender]:
    """Find a recommender and check that it can be made, without making it.

    Args:
        name: of a built-in recommender, or `module:Class`. The current folder is on the path for the module.

    Returns:
        What makes a new one of a seed. One's own is made as `Class(seed=...)` and comes as a `Watched`.

    Raises:
        RecommenderError: there is no built-in recommender of this name; or the module cannot be imported or has no such
            class, or the class is no recommender or takes no seed.
    """
    if ":" not in name:
        if name not in recommenders.NAMES:
            known = ", ".join(recommenders.NAMES)
            raise RecommenderError(
                f"There is no recommender {name!r}; choose among {known}, or name your own as module:Class."
            )
        return partial(recommenders.make, name)
    kind = _class(name)

    def made(seed: int) -> Recommender:
        with _blamed(name, "its constructor"):
            return Watched(name, kind(seed=seed))

    return made


def _class(name: str) -> Callable[..., Recommender]:
    module_name, _, class_name = name.partition(":")
    # First, as `python -m` has it: the console script's own folder is there in its place.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = import_module(module_name)
    except Exception as error:  # whatever the module's own code raises
        raise RecommenderError(
            f"{name}: the module {module_name!r} cannot be imported ({_described(error)}); start in its folder, or put"
            " that on PYTHONPATH."
        ) from error
    kind = getattr(module, class_name, None)
    if kind is None:
        raise RecommenderError(f"{name}: the module {module_name!r} ({module.__file__}) has no {class_name!r}.")
    if not (isinstance(kind, type) and issubclass(kind, Recommender)):
        raise RecommenderError(
            f"{name}: {class_name} is not a subclass of nni_hyperfd.recommenders.Recommender; make it one."
        )
    if missing := sorted(getattr(kind, "__abstractmethods__", ())):
        raise RecommenderError(f"{name}: {class_name} does not have {', '.join(missing)}; write them. {_SUITE}.")
    try:
        inspect.signature(kind).bind(seed=0)
    except TypeError as error:
        raise RecommenderError(
            f"{name}: it must be possible to make it as {class_name}(seed=0), but {error}."
        ) from None
    return cast(Callable[..., Recommender], kind)


class Watched(Recommender):
    """A recommender that is held to the contract, call by call; in all else it is the one that it was made of.

    Args:
        name: what messages call it.
        watched: the recommender.

    Raises:
        RecommenderError: from any method, when the watched recommender raises or returns what the contract forbids.
    """

    def __init__(self, name: str, watched: Recommender) -> None:
        self.name, self.watched = name, watched
        self._asked: set[int] = set()
        self._budget = self._candidates = 0

    def know(self, data_sets: Sequence[MeasuredDataset]) -> None:
        """Tell it of the platform's own data sets."""
        self._call(self.watched.know, data_sets)

    def start_task(self, task: Task, candidates: EncodedConfigurations) -> None:
        """Begin with the next data set."""
        self._asked, self._budget, self._candidates = set(), task.budget, len(candidates)
        self._call(self.watched.start_task, task, candidates)

    def ask(self, n: int = 1) -> list[int]:
        """Pass on the picks, once they have been checked."""
        picks = self._call(self.watched.ask, n)
        left = min(self._budget, self._candidates) - len(self._asked)
        if problem := self._problem(picks, max(0, min(n, left))):
            raise _broken(self.name, f"ask({n}) returned {reprlib.repr(picks)}, {problem}")
        self._asked.update(picks)
        return picks

    def tell(self, index: int, performance: float) -> None:
        """Pass a result on."""
        self._call(self.watched.tell, index, performance)

    def end_task(self, revealed: Mapping[int, float]) -> None:
        """End the task and learn."""
        self._call(self.watched.end_task, revealed)

    def _problem(self, picks: object, expected: int) -> str:
        """What is wrong with the answer to `ask`; empty if it is right."""
        if not isinstance(picks, list) or not all(isinstance(pick, int) for pick in picks):
            return "but must return a list of int"
        if strange := [pick for pick in picks if not 0 <= pick < self._candidates]:
            return f"but there is no candidate {strange[0]} among 0 to {self._candidates - 1}"
        if again := [pick for place, pick in enumerate(picks) if pick in self._asked or pick in picks[:place]]:
            return f"but candidate {again[0]} had been picked before in this task"
        if len(picks) != expected:
            return f"but the number of picks due was {expected}"
        return ""

    def _call(self, function: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        with _blamed(self.name, function.__name__):
            return function(*args, **kwargs)


@contextmanager
def _blamed(name: str, what: str) -> Iterator[None]:
    """Within the block, an exception becomes a `RecommenderError` that says what raised it, and where."""
    try:
        yield
    except Exception as error:
        raise _broken(name, f"{what} raised {_described(error)}") from error


def _broken(name: str, what: str) -> RecommenderError:
    return RecommenderError(f"{name} breaks the contract of recommenders: {what}; {_SUITE}.")


def _described(error: Exception) -> str:
    """The exception and the place in one's own code that it came from, in one line."""
    text = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".: ")
    others = ("<frozen", sys.prefix, sys.base_prefix, str(Path(nni_hyperfd.__file__).parent))
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(others)]
    return f"{text}, at {own[-1].filename}:{own[-1].lineno}" if own else text
