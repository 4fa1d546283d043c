"""How the platform's configuration encoders learn: from a snapshot of the state, outside of any transaction.

A short transaction commits what was learned if the newest versions are still those of the snapshot; otherwise another
experiment was faster, and it is learned again from what that has left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nni_hyperfd.platform.past import past_tasks
from nni_hyperfd.space import SearchSpace
from nni_hyperfd.state import experience
from nni_hyperfd.state.store import Store
from nni_hyperfd.state.tables import TaskRow, now
from nni_hyperfd.state.versions import EncoderVersion, Versions
from nni_hyperfd.state.views import TaskView

if TYPE_CHECKING:
    from nni_hyperfd.method.config_encoder import ConfigurationEncoder


@dataclass(frozen=True)
class _Heads:
    """The newest versions that a snapshot was taken of."""

    encoder_id: int | None
    extractor_id: int


class Learning:
    """Learns in a state."""

    def __init__(self, store: Store, versions: Versions) -> None:
        self._store, self._versions = store, versions

    def encoder(self, space: SearchSpace) -> EncoderVersion:
        """The space's newest encoder; learned from all results where there are some and no encoder is stored."""
        version = self._versions.encoder(space)
        if version.id is None:
            with self._store.read() as session:
                any_closed = any(experience.closed_ids(session, space))
            if any_closed:
                self.learn_anew(space)
                version = self._versions.encoder(space)
        return version

    def close(self, task_id: int) -> None:
        """Learn from a task, and close it."""
        while True:
            with self._store.read() as session:
                task = TaskView.of(experience.task_row(session, task_id))
            if task.closed is not None:
                return
            heads, encoder = self._after(task)
            if self._commit(task.space, heads, task.id, encoder, closing=True):
                return

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
        closing: bool = False,
    ) -> bool:
        """Keep an encoder if the newest versions are still those of the snapshot.

        Args:
            space: the search space.
            heads: the newest versions of the snapshot.
            task_id: the task that the encoder has learned from last.
            encoder: None where nothing was learned.
            closing: whether the task is closed in the same transaction.

        Returns:
            Whether the versions were still the newest.
        """
        from nni_hyperfd.method import weights

        packed = None if encoder is None else weights.dumps(encoder.state_dict())
        with self._store.write() as session:
            if heads != _Heads(self._versions.encoder_id(session, space), self._versions.head(session).id):
                return False
            if closing:
                task = session.get_one(TaskRow, task_id)
                task.closed = task.learned = now()
            if packed is not None:
                self._versions.add_encoder(session, space, task_id, packed)
            self._versions.drop_unneeded(session)
        return True
