"""How the platform's configuration encoders learn: from a snapshot of the state, outside of any transaction.

A short transaction commits what was learned if the newest versions are still those of the snapshot; otherwise another
experiment was faster, and it is learned again from what that has left. So whoever learns, in whatever process, a task
is learned from once, and the versions follow each other.

`Learning` learns within the call, as an embedded platform and the workers of a server do. `QueuedLearning` leaves it to
these workers. What is to be learned is read from the state (`Learning.due`), so a queue may lose what it was told.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from sqlalchemy import exists, func, select

from nni_hyperfd.platform.auditing import audit
from nni_hyperfd.platform.past import past_tasks
from nni_hyperfd.space import SearchSpace
from nni_hyperfd.state import experience
from nni_hyperfd.state.store import StateError, Store
from nni_hyperfd.state.tables import EncoderRow, SpaceRow, TaskRow, now
from nni_hyperfd.state.versions import EncoderVersion, Versions
from nni_hyperfd.state.views import TaskView, space_of

if TYPE_CHECKING:
    from nni_hyperfd.method.config_encoder import ConfigurationEncoder

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Heads:
    """The newest versions that a snapshot was taken of."""

    encoder_id: int | None
    extractor_id: int


class LearnQueue(Protocol):
    """How workers hear that there is something to learn."""

    def put(self, space_signature: str) -> None:
        """Tell them the search space; it fails silently, for they look at the state now and then."""


class Learning:
    """Learns in a state."""

    def __init__(self, store: Store, versions: Versions) -> None:
        self._store, self._versions = store, versions

    def encoder(self, space: SearchSpace) -> EncoderVersion:
        """The space's newest encoder; learned from all results where there are some and no encoder is stored."""
        version = self._versions.encoder(space)
        if version.id is None and self._has_taught(space):
            self.learn_anew(space)
            version = self._versions.encoder(space)
        return version

    def close(self, task_id: int) -> None:
        """Learn from a task, and close it."""
        while True:
            with self._store.read() as session:
                task = TaskView.of(experience.task_row(session, task_id))
            if task.closed is not None or self._learn(task):
                return

    def due(self) -> list[str]:
        """Signatures of the search spaces in which there is something to learn."""
        waiting = select(TaskRow.space_signature).where(TaskRow.learned.is_(None), TaskRow.closed.is_not(None))
        # As after an upgrade or when a task was deleted: the encoder is learned anew from the others.
        no_encoder = select(SpaceRow).where(~exists().where(EncoderRow.space_signature == SpaceRow.signature))
        with self._store.read() as session:
            signatures = set(session.scalars(waiting.distinct()))
            bare = [space_of(row) for row in session.scalars(no_encoder)]
        return sorted(signatures | {space.signature for space in bare if self._has_taught(space)})

    def learn_next(self, space_signature: str) -> bool:
        """Learn from the oldest closed task of a space that was not learned from; or anew, where no encoder is stored.

        Returns:
            Whether there was one; False when nothing is left to learn.
        """
        waiting = select(func.min(TaskRow.id)).where(
            TaskRow.space_signature == space_signature, TaskRow.learned.is_(None), TaskRow.closed.is_not(None)
        )
        with self._store.read() as session:
            task_id = session.scalar(waiting)
            task = None if task_id is None else TaskView.of(session.get_one(TaskRow, task_id))
            row = session.get(SpaceRow, space_signature)
        if task is not None:
            try:
                self._learn(task)
            except StateError:
                raise  # of the database, not of the task
            except Exception:
                _logger.exception("Task %d cannot be learned from, and is left out.", task.id)
                self._leave_out(task.id)
            return True
        if row is not None:
            self.encoder(space_of(row))
        return False

    def learn_from(self, space: SearchSpace, task_ids: list[int]) -> None:
        """Learn from closed tasks, one after another; from all results where no encoder is stored."""
        while True:
            version, extractor_id = self._versions.encoder(space), self._versions.head_id()
            if version.id is None:
                self.learn_anew(space)
                return
            with self._store.read() as session:
                tasks = experience.tasks(session, task_ids)
            encoder, last = version.encoder, None
            for task in tasks:
                if task.results.configurations:
                    encoder, last = self._taught(encoder, task, extractor_id), task.id
            if last is None or self._commit(space, _Heads(version.id, extractor_id), last, encoder):
                return

    def learn_anew(self, space: SearchSpace) -> list[float]:
        """Learn a space's encoder from its first weights: from the platform's own data sets, then from clients.

        Returns:
            The warm-up's NDCG of the results held out, before it and after every check; none without data sets.
        """
        from nni_hyperfd.method.config_encoder import ConfigurationEncoder
        from nni_hyperfd.method.recipe import INITIAL_SEED

        while True:
            with self._store.read() as session:
                own, offline = experience.closed_ids(session, space)
                heads = _Heads(self._versions.encoder_id(session, space), self._versions.head(session).id)
            if not own and not offline:
                return []
            initial = ConfigurationEncoder.initial(space.example, INITIAL_SEED)
            encoder, ndcg = self._warmed_up(space, initial)
            for task in past_tasks(self._store, space, np.random.default_rng(0)):
                if task.dataset is None:
                    encoder = self._taught(encoder, task, heads.extractor_id)
            if self._commit(space, heads, max(own + offline), encoder):
                return ndcg

    def _leave_out(self, task_id: int) -> None:
        """Count a task as learned from, so that those after it have their turn."""
        with self._store.write() as session:
            if (task := session.get(TaskRow, task_id)) is not None:
                task.learned = task.learned or now()

    def _has_taught(self, space: SearchSpace) -> bool:
        """Whether there are learned tasks of a space, from which its encoder could be learned."""
        with self._store.read() as session:
            return any(experience.closed_ids(session, space))

    def _learn(self, task: TaskView) -> bool:
        """Learn from a task as it stands; whether nobody was faster."""
        heads, encoder = self._after(task)
        return self._commit(task.space, heads, task.id, encoder, ends=True)

    def _after(self, task: TaskView) -> tuple[_Heads, ConfigurationEncoder | None]:
        """The snapshot's heads, and the encoder after a task; None where there is nothing to learn from."""
        self._versions.describe_before_dropping()
        if not task.results.configurations:
            with self._store.read() as session:
                return _Heads(self._versions.encoder_id(session, task.space), self._versions.head(session).id), None
        version, extractor_id = self.encoder(task.space), self._versions.head_id()
        return _Heads(version.id, extractor_id), self._taught(version.encoder, task, extractor_id)

    def _taught(self, encoder: ConfigurationEncoder, task: TaskView, extractor_id: int) -> ConfigurationEncoder:
        """The encoder after a task, by eq. 11."""
        import torch

        from nni_hyperfd.method import recipe
        from nni_hyperfd.method.settings import RankerSettings

        seed = recipe.task_seed(task.settings.seed, task.id)
        past = past_tasks(self._store, task.space, np.random.default_rng(seed), without=task.id)
        meta_features = self._versions.carried([*past, task], extractor_id)
        current, *others = (
            recipe.PastTask(
                other.space.encode(other.results.configurations),
                torch.tensor(other.results.performance),
                meta_features.get(other.id),
                other.dataset is not None,
            )
            for other in (task, *past)
        )
        return recipe.learned_encoder(encoder, current, others, RankerSettings(), seed)

    def _warmed_up(self, space: SearchSpace, encoder: ConfigurationEncoder) -> tuple[ConfigurationEncoder, list[float]]:
        """The encoder after a warm-up on the platform's own data sets whose images are there, and its NDCG."""
        import torch

        from nni_hyperfd.method.learning import OfflineTask, warm_up
        from nni_hyperfd.method.settings import RankerSettings

        images = self._versions.offline_by_name()
        with self._store.read() as session:
            _, ids = experience.closed_ids(session, space)
            known = [task for task in experience.tasks(session, ids) if task.dataset in images]
        extractor = self._versions.extractor()
        if not known or extractor is None:
            return encoder, []
        tasks = [
            OfflineTask(
                images[task.dataset or ""][1],
                space.encode(task.results.configurations),
                torch.tensor(task.results.performance),
            )
            for task in known
        ]
        warm = warm_up(extractor, encoder, tasks, RankerSettings(), seed=0, frozen=True)
        return warm.encoder, warm.ndcg

    def _commit(
        self,
        space: SearchSpace,
        heads: _Heads,
        task_id: int,
        encoder: ConfigurationEncoder | None,
        ends: bool = False,
    ) -> bool:
        """Keep an encoder if the newest versions are still those of the snapshot.

        Args:
            space: the search space.
            heads: the newest versions of the snapshot.
            task_id: the task that the encoder has learned from last.
            encoder: None where nothing was learned.
            ends: whether that ends the task, in the same transaction: it is closed, and learned from.

        Returns:
            Whether the versions were still the newest.
        """
        from nni_hyperfd.method import weights

        packed = None if encoder is None else weights.dumps(encoder.state_dict())
        with self._store.write() as session:
            if heads != _Heads(self._versions.encoder_id(session, space), self._versions.head(session).id):
                return False
            if ends:
                task = session.get(TaskRow, task_id)
                if task is None or task.learned is not None:
                    return False  # it was deleted, or taught nothing that would have changed the versions
                task.learned = now()
                task.closed = task.closed or task.learned
            if packed is not None:
                self._versions.add_encoder(session, space, task_id, packed)
            self._versions.drop_unneeded(session)
        return True


class QueuedLearning(Learning):
    """Learning that nobody who asks waits for: it is left to workers, which have a `Learning` of their own.

    Args:
        store: the state.
        versions: of the state.
        queue: of the workers.
    """

    def __init__(self, store: Store, versions: Versions, queue: LearnQueue) -> None:
        super().__init__(store, versions)
        self._queue = queue

    def encoder(self, space: SearchSpace) -> EncoderVersion:
        """The space's newest encoder; the initial one until a worker has learned the first."""
        version = self._versions.encoder(space)
        if version.id is None and self._has_taught(space):
            self._queue.put(space.signature)
        return version

    def close(self, task_id: int) -> None:
        """Close a task, and have it learned from."""
        with self._store.write() as session:
            task = experience.task_row(session, task_id)
            if task.closed is not None:
                return
            task.closed = now()
        audit("task closed", task=task_id)
        self._queue.put(task.space_signature)
