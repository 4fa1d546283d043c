"""Pairs of a sub-data-set and a configuration: which ones are measured, and a file that keeps what came out.

Where the measuring stands is read from the file alone, so it goes on after a kill of any part. Only the experiment that
the file names as the running one may claim pairs and bring results.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import JSON, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from nni_hyperfd.space.search_space import Configuration, SearchSpace
from nni_hyperfd.state.store import sqlite_engine

ATTEMPTS = 2
"""Trials of a pair before it is recorded as failed."""

FENCE = "does not measure these pairs"
"""What an experiment is told that another one has replaced."""


class PairError(RuntimeError):
    """The file of pairs cannot be used as asked; the message is for its user."""


class Base(DeclarativeBase):
    type_annotation_map = {dict[str, Any]: JSON}


class Pair(Base):
    """One sub-data-set with one configuration: planned, then running, then succeeded or failed.

    Attributes:
        id: its place in the plan, from 1.
        failures: trials of it that have failed; `reason` is that of the last one.
        seconds: from handing it out to its end, over all its trials that ended.
        experiment, parameter_id: the NNI experiment that had it last, and NNI's number for it there.
        started: when it was handed out, in seconds since the epoch.
    """

    __tablename__ = "pairs"
    id: Mapped[int] = mapped_column(primary_key=True)
    data: Mapped[str]
    configuration: Mapped[dict[str, Any]]
    status: Mapped[str] = mapped_column(default="planned", index=True)
    failures: Mapped[int] = mapped_column(default=0)
    performance: Mapped[float | None]
    seconds: Mapped[float] = mapped_column(default=0.0)
    reason: Mapped[str | None]
    experiment: Mapped[str | None]
    parameter_id: Mapped[int | None]
    started: Mapped[float | None]


class Run(Base):
    """The NNI experiment that measures: the newest row is the one that may. `folder` is its own, below NNI's."""

    __tablename__ = "runs"
    id: Mapped[int] = mapped_column(primary_key=True)
    experiment: Mapped[str]
    port: Mapped[int]
    folder: Mapped[str]


@dataclass(frozen=True)
class Progress:
    """How many pairs are in each state, how many trials have failed, and the seconds of all ended trials."""

    planned: int
    running: int
    succeeded: int
    failed: int
    failures: int
    seconds: float

    @property
    def ended(self) -> int:
        return self.succeeded + self.failed

    @property
    def total(self) -> int:
        return self.planned + self.running + self.ended


def draw(
    data_sets: Sequence[str], space: SearchSpace, pairs: int, each: int, seed: int
) -> list[tuple[str, Configuration]]:
    """The plan: data sets in random order, `each` distinct configurations for every one, at most `pairs` in all.

    A longer plan begins with the shorter one. Fewer pairs come out where there are not enough data sets.
    """
    names = sorted(data_sets)
    planned: list[tuple[str, Configuration]] = []
    for place in np.random.default_rng(seed).permutation(len(names)):
        if len(planned) >= pairs:
            break
        name = names[place]
        rng = np.random.default_rng([seed, int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")])
        planned += [(name, configuration) for configuration in space.sample(each, rng)]
    return planned[:pairs]


class PairFile:
    """The file of pairs; made when it does not exist. Each method is one transaction, durable on return.

    Raises:
        PairError: from any method, when the file is damaged or cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with self._readable_errors():
            self._engine = sqlite_engine(self.path)
            with self._engine.begin() as connection:
                Base.metadata.create_all(connection)

    # -- what the command does -----------------------------------------------------------------------------------------

    def plan(self, pairs: Sequence[tuple[str, Configuration]]) -> None:
        """Add to the plan what is not in it yet.

        Raises:
            PairError: the plan in the file begins otherwise.
        """
        with self._write() as session:
            known = list(session.scalars(select(Pair).order_by(Pair.id)))
            for pair, wanted in zip(known, pairs, strict=False):
                if (pair.data, pair.configuration) != wanted:
                    raise PairError(
                        f"{self.path}: it was begun with other sub-data-sets, another search space, --each or --seed; "
                        "give the same ones, or another folder"
                    )
            session.add_all(
                Pair(id=place, data=data, configuration=configuration)
                for place, (data, configuration) in enumerate(pairs[len(known) :], start=1 + len(known))
            )

    def begin(self, experiment: str, port: int, folder: Path) -> None:
        """From now on this experiment measures, and no other; what an earlier one had running is planned again."""
        with self._write() as session:
            for pair in session.scalars(select(Pair).where(Pair.status == "running")):
                pair.status = "planned"
            session.add(Run(experiment=experiment, port=port, folder=str(folder)))

    def run(self) -> Run | None:
        """The experiment that measures, or was the last to do so."""
        with self._write() as session:
            return _run(session)

    def progress(self) -> Progress:
        with self._write() as session:
            counts = dict(session.execute(select(Pair.status, func.count()).group_by(Pair.status)).all())
            failures, seconds = session.execute(select(func.sum(Pair.failures), func.sum(Pair.seconds))).one()
            states = (counts.get(status, 0) for status in ("planned", "running", "succeeded", "failed"))
            return Progress(*states, failures or 0, seconds or 0.0)

    def pairs(self) -> list[Pair]:
        """All pairs in the order of the plan."""
        with self._write() as session:
            return list(session.scalars(select(Pair).order_by(Pair.id)))

    def forget_failures(self) -> None:
        """Plan the failed pairs again, as if they had never been tried."""
        with self._write() as session:
            for pair in session.scalars(select(Pair).where(Pair.failures > 0, Pair.status != "succeeded")):
                pair.status, pair.failures, pair.reason = "planned", 0, None

    # -- what an experiment does ---------------------------------------------------------------------------------------

    def claim(self, experiment: str, parameter_id: int) -> Pair | None:
        """The next planned pair, which now runs under this number; None when there is none. Failed ones come last.

        Raises:
            PairError: another experiment measures by now.
        """
        with self._write() as session:
            run = _run(session)
            if run is None or run.experiment != experiment:
                raise PairError(
                    f"{self.path}: experiment {experiment} {FENCE} (any more); stop it, and run "
                    "'hyperfd warmup collect'"
                )
            pair = session.scalar(
                select(Pair).where(Pair.status == "planned").order_by(Pair.failures, Pair.id).limit(1)
            )
            if pair is not None:
                pair.status, pair.started = "running", time.time()
                pair.experiment, pair.parameter_id = experiment, parameter_id
            return pair

    def succeed(self, experiment: str, parameter_id: int, performance: float) -> None:
        """Keep a running pair's result; whatever comes later under that number is ignored."""
        with self._running(experiment, parameter_id) as pair:
            if pair is not None:
                pair.status, pair.performance, pair.reason = "succeeded", performance, None
                pair.seconds += time.time() - pair.started

    def fail(self, experiment: str, parameter_id: int, reason: str) -> None:
        """A running pair's trial has failed: it is planned again, or recorded as failed after `ATTEMPTS` of them."""
        with self._running(experiment, parameter_id) as pair:
            if pair is not None:
                pair.failures += 1
                pair.status, pair.reason = "failed" if pair.failures == ATTEMPTS else "planned", reason
                pair.seconds += time.time() - pair.started

    def release(self, experiment: str, still_running: set[int]) -> None:
        """After an experiment's resume: what NNI does not run again is planned again."""
        with self._write() as session:
            for pair in session.scalars(select(Pair).where(Pair.status == "running", Pair.experiment == experiment)):
                if pair.parameter_id not in still_running:
                    pair.status = "planned"

    def parameter_ids(self, experiment: str) -> dict[int, Pair]:
        """The pairs that an experiment had last, by NNI's numbers."""
        with self._write() as session:
            return {
                pair.parameter_id: pair for pair in session.scalars(select(Pair).where(Pair.experiment == experiment))
            }

    # -- behind it -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _running(self, experiment: str, parameter_id: int) -> Iterator[Pair | None]:
        with self._write() as session:
            yield session.scalar(
                select(Pair).where(
                    Pair.experiment == experiment, Pair.parameter_id == parameter_id, Pair.status == "running"
                )
            )

    @contextmanager
    def _write(self) -> Iterator[Session]:
        with self._readable_errors(), Session(self._engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def _readable_errors(self) -> Iterator[None]:
        try:
            yield
        except (DBAPIError, OSError) as error:
            cause = str(error.orig if isinstance(error, DBAPIError) else error.strerror or error)
            raise PairError(
                f"{self.path}: cannot read or write it ({cause}); make room, correct the path, or restore a backup"
            ) from error


def _run(session: Session) -> Run | None:
    return session.scalar(select(Run).order_by(Run.id.desc()).limit(1))
