"""Pairs of a sub-data-set and a configuration: which ones are measured, and the file that keeps the results.

The state of the measuring is in the file alone, so it continues after any part was killed. Only the experiment that the
file names as the measuring one may claim pairs and deliver results.
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

from nni_hyperfd.space import Configuration, SearchSpace
from nni_hyperfd.state.store import sqlite_engine
from nni_hyperfd.state.tables import words
from nni_hyperfd.task import Status

ATTEMPTS = 2
"""Trials of a pair before it is recorded as failed."""

FENCE = "does not measure these pairs"
"""Part of the error that an experiment gets when another one has replaced it."""


class PairError(RuntimeError):
    """The file of pairs cannot be used as asked; the message is for its user."""


class Base(DeclarativeBase):
    """The tables of the file of pairs."""

    type_annotation_map = {
        dict[str, Any]: JSON,
        Status: words(Status),
    }


class Pair(Base):
    """One sub-data-set with one configuration.

    Attributes:
        id: position in the plan, from 1.
        data: name of the sub-data-set.
        configuration: by parameter.
        status: how far it is.
        failures: number of its trials that have failed.
        performance: its result; None before.
        seconds: time from handing it out to its end, summed over its trials that have ended.
        reason: why its last trial failed.
        experiment: the NNI experiment that had it last.
        parameter_id: NNI's number for it in that experiment.
        started: when it was handed out last, in seconds since the epoch.
    """

    __tablename__ = "pairs"
    id: Mapped[int] = mapped_column(primary_key=True)
    data: Mapped[str]
    configuration: Mapped[dict[str, Any]]
    status: Mapped[Status] = mapped_column(default=Status.PLANNED, index=True)
    failures: Mapped[int] = mapped_column(default=0)
    performance: Mapped[float | None]
    seconds: Mapped[float] = mapped_column(default=0.0)
    reason: Mapped[str | None]
    experiment: Mapped[str | None]
    parameter_id: Mapped[int | None]
    started: Mapped[float | None]


class MeasuringExperiment(Base):
    """An NNI experiment that measures, or did so: only that of the newest row may.

    Attributes:
        id: from 1, in the order of their starts.
        experiment: NNI's id.
        port: of NNI's web UI.
        folder: the experiment's own, inside that of all NNI experiments.
    """

    __tablename__ = "runs"
    id: Mapped[int] = mapped_column(primary_key=True)
    experiment: Mapped[str]
    port: Mapped[int]
    folder: Mapped[str]


@dataclass(frozen=True)
class Progress:
    """How far the measuring is.

    Attributes:
        planned: number of pairs that wait.
        running: number of pairs that are being measured.
        succeeded: number of pairs with a result.
        failed: number of pairs that were given up.
        failures: number of failed trials.
        seconds: duration of all trials that have ended, summed.
    """

    planned: int
    running: int
    succeeded: int
    failed: int
    failures: int
    seconds: float

    @property
    def ended(self) -> int:
        """Number of pairs that have succeeded or failed."""
        return self.succeeded + self.failed

    @property
    def total(self) -> int:
        """Number of all pairs."""
        return self.planned + self.running + self.ended


def draw(
    data_sets: Sequence[str], space: SearchSpace, pairs: int, each: int, seed: int
) -> list[tuple[str, Configuration]]:
    """Draw the plan: data sets in random order, distinct configurations for each of them.

    A longer plan begins with the shorter one.

    Args:
        data_sets: their names.
        space: the search space.
        pairs: maximum number of pairs; there are fewer if the data sets do not suffice.
        each: number of configurations for each data set.
        seed: of the draw.

    Returns:
        Name of the data set and configuration of every pair.
    """
    names = sorted(data_sets)
    planned: list[tuple[str, Configuration]] = []
    for index in np.random.default_rng(seed).permutation(len(names)):
        if len(planned) >= pairs:
            break
        name = names[index]
        rng = np.random.default_rng([seed, int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")])
        planned += [(name, configuration) for configuration in space.sample(each, rng)]
    return planned[:pairs]


class PairFile:
    """The file of pairs, an SQLite database. Each method is one transaction, durable when it returns.

    Args:
        path: the file, which is made if it does not exist, in a folder that does.

    Raises:
        PairError: from any method, if the file is damaged or cannot be written.
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

        Args:
            pairs: the whole plan, as `draw` returns it.

        Raises:
            PairError: the plan in the file begins differently.
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
                Pair(id=position, data=data, configuration=configuration)
                for position, (data, configuration) in enumerate(pairs[len(known) :], start=1 + len(known))
            )

    def begin(self, experiment: str, port: int, folder: Path) -> None:
        """Let an experiment measure, and no other. What an earlier one had running is planned again.

        Args:
            experiment: NNI's id.
            port: of NNI's web UI.
            folder: the experiment's own.
        """
        with self._write() as session:
            for pair in session.scalars(select(Pair).where(Pair.status == Status.RUNNING)):
                pair.status = Status.PLANNED
            session.add(MeasuringExperiment(experiment=experiment, port=port, folder=str(folder)))

    def experiment(self) -> MeasuringExperiment | None:
        """Return the experiment that measures, or was the last to do so."""
        with self._write() as session:
            return _newest_experiment(session)

    def progress(self) -> Progress:
        """Count the pairs by status, and sum up their trials."""
        with self._write() as session:
            by_status = session.execute(select(Pair.status, func.count()).group_by(Pair.status))
            counts = {status: count for status, count in by_status}
            failures, seconds = session.execute(select(func.sum(Pair.failures), func.sum(Pair.seconds))).one()
            return Progress(
                planned=counts.get(Status.PLANNED, 0),
                running=counts.get(Status.RUNNING, 0),
                succeeded=counts.get(Status.SUCCEEDED, 0),
                failed=counts.get(Status.FAILED, 0),
                failures=failures or 0,
                seconds=seconds or 0.0,
            )

    def pairs(self) -> list[Pair]:
        """Return all pairs in the order of the plan."""
        with self._write() as session:
            return list(session.scalars(select(Pair).order_by(Pair.id)))

    def forget_failures(self) -> None:
        """Plan the failed pairs again, as if they had never been tried."""
        failed = select(Pair).where(Pair.failures > 0, Pair.status != Status.SUCCEEDED)
        with self._write() as session:
            for pair in session.scalars(failed):
                pair.status, pair.failures, pair.reason = Status.PLANNED, 0, None

    # -- what an experiment does ---------------------------------------------------------------------------------------

    def claim(self, experiment: str, parameter_id: int) -> Pair | None:
        """Take the next planned pair, which is running from now on. Those that have failed before come last.

        Args:
            experiment: NNI's id of the experiment that will run it.
            parameter_id: NNI's number for it there.

        Returns:
            The pair; None if none is planned.

        Raises:
            PairError: another experiment measures by now.
        """
        with self._write() as session:
            newest = _newest_experiment(session)
            if newest is None or newest.experiment != experiment:
                raise PairError(
                    f"{self.path}: experiment {experiment} {FENCE} (any more); stop it, and run "
                    "'hyperfd warmup collect'"
                )
            pair = session.scalar(
                select(Pair).where(Pair.status == Status.PLANNED).order_by(Pair.failures, Pair.id).limit(1)
            )
            if pair is not None:
                pair.status, pair.started = Status.RUNNING, time.time()
                pair.experiment, pair.parameter_id = experiment, parameter_id
            return pair

    def succeed(self, experiment: str, parameter_id: int, performance: float) -> None:
        """Keep a running pair's result. Anything that comes later under that number is ignored.

        Args:
            experiment: NNI's id of the experiment that runs it.
            parameter_id: NNI's number for it there.
            performance: the result.
        """
        with self._ending(experiment, parameter_id) as pair:
            if pair is not None:
                pair.status, pair.performance, pair.reason = Status.SUCCEEDED, performance, None

    def fail(self, experiment: str, parameter_id: int, reason: str) -> None:
        """Note that a running pair's trial has failed. It is planned again, or after `ATTEMPTS` trials given up.

        Args:
            experiment: NNI's id of the experiment that runs it.
            parameter_id: NNI's number for it there.
            reason: why it failed.
        """
        with self._ending(experiment, parameter_id) as pair:
            if pair is not None:
                pair.failures += 1
                pair.status = Status.FAILED if pair.failures == ATTEMPTS else Status.PLANNED
                pair.reason = reason

    def release(self, experiment: str, still_running: set[int]) -> None:
        """Plan again what NNI does not run again after it was resumed.

        Args:
            experiment: NNI's id of the resumed experiment.
            still_running: NNI's numbers of the pairs that it runs.
        """
        running = select(Pair).where(Pair.status == Status.RUNNING, Pair.experiment == experiment)
        with self._write() as session:
            for pair in session.scalars(running):
                if pair.parameter_id not in still_running:
                    pair.status = Status.PLANNED

    def parameter_ids(self, experiment: str) -> dict[int, Pair]:
        """Return the pairs that an experiment had last, by NNI's numbers."""
        with self._write() as session:
            own = session.scalars(select(Pair).where(Pair.experiment == experiment))
            return {pair.parameter_id: pair for pair in own if pair.parameter_id is not None}

    # -- behind it -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _ending(self, experiment: str, parameter_id: int) -> Iterator[Pair | None]:
        """The running pair of that number, if any, whose trial ends now."""
        with self._write() as session:
            pair = session.scalar(
                select(Pair).where(
                    Pair.experiment == experiment,
                    Pair.parameter_id == parameter_id,
                    Pair.status == Status.RUNNING,
                )
            )
            yield pair
            if pair is not None and pair.started is not None:
                pair.seconds += time.time() - pair.started

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


def _newest_experiment(session: Session) -> MeasuringExperiment | None:
    return session.scalar(select(MeasuringExperiment).order_by(MeasuringExperiment.id.desc()).limit(1))
