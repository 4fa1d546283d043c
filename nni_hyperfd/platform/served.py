"""The platform behind a server: nobody who asks waits for learning, but the first who asks of a search space."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

from sqlalchemy import select

from nni_hyperfd.platform import planning
from nni_hyperfd.platform.embedded import EmbeddedPlatform
from nni_hyperfd.platform.learning import LearnQueue, QueuedLearning
from nni_hyperfd.platform.presets import DefaultPreset, Learned, PaperPreset
from nni_hyperfd.space import SearchSpace
from nni_hyperfd.state.store import Store
from nni_hyperfd.state.tables import EncoderRow
from nni_hyperfd.state.versions import Versions
from nni_hyperfd.state.views import TaskView
from nni_hyperfd.task import Preset as PresetName
from nni_hyperfd.task import TaskSettings

_logger = logging.getLogger(__name__)

_REST = 3.0  # times as long as learning took, until it is learned again: requests need the processor, too
_MOST_SPACES = 64  # of which a process keeps what it has learned


class ServedPlatform(EmbeddedPlatform):
    """A platform that a server serves, beside which workers learn.

    Args:
        state: as for `Platform`.
        warm_start: as for `EmbeddedPlatform`.
        queue: of the workers.
    """

    def __init__(self, state: str | Path, warm_start: Path | None, queue: LearnQueue) -> None:
        super().__init__(state, warm_start)
        self.learning = QueuedLearning(self.store, self.versions, queue)
        self._belief = ServedPreset(self.store, self.versions)
        self._presets = {
            PresetName.DEFAULT: self._belief,
            PresetName.PAPER: PaperPreset(self.store, self.versions, self.learning),
        }

    def close(self) -> None:
        """Let go of the state, when what is being learned has ended."""
        self._belief.close()
        super().close()


class ServedPreset(DefaultPreset):
    """The default preset for many data owners at once.

    It answers from the newest belief of this process. Where the workers have committed a newer version of the space's
    encoder, the belief is learned anew in a thread, one space at a time. One belief serves all tasks of a space: it is
    learned under the default settings, with the candidates of a task 0, which there is not, as the space's pool.
    """

    def __init__(self, store: Store, versions: Versions) -> None:
        super().__init__(store, versions)
        self._firsts: defaultdict[str, Lock] = defaultdict(Lock)
        self._renewing: set[str] = set()
        self._not_before: dict[str, float] = {}
        self._thread = ThreadPoolExecutor(1, "belief")

    def close(self) -> None:
        """End the thread, when what it learns has ended."""
        self._thread.shutdown(cancel_futures=True)

    def _learn(self, task: TaskView) -> Learned:
        """The newest belief of this process; the first of a space is learned now, a newer one beside the requests."""
        space, source = task.space, self._newest(task.space)
        known = self.learned.get(space.signature)
        if known is None:
            with self._firsts[space.signature]:
                known = self.learned.get(space.signature) or self._renewed(space, source)
        if known.source != source:
            self._renew(space, source)
        return known

    def _newest(self, space: SearchSpace) -> tuple[Any, ...]:
        """By what the newest version is known: the seed, the extractor, and the encoder with its time.

        An encoder is committed with every task that was learned from, and anew when one was deleted. Its id alone may
        return then; SQLite gives ids a second time.
        """
        newest = (
            select(EncoderRow.id, EncoderRow.created)
            .where(EncoderRow.space_signature == space.signature)
            .order_by(EncoderRow.id.desc())
            .limit(1)
        )
        with self._store.read() as session:
            encoder = session.execute(newest).first()
        return TaskSettings.seed, self._versions.head_id(), None if encoder is None else tuple(encoder)

    def _renew(self, space: SearchSpace, source: tuple[Any, ...]) -> None:
        """Have a space's belief learned in the thread, unless it is on its way or has just been."""
        signature = space.signature
        if signature in self._renewing or time.monotonic() < self._not_before.get(signature, 0.0):
            return
        self._renewing.add(signature)
        self._thread.submit(self._renew_now, space, source)

    def _renew_now(self, space: SearchSpace, source: tuple[Any, ...]) -> None:
        began = time.monotonic()
        try:
            self._renewed(space, source)
        except Exception:
            _logger.exception("The belief about space %s stays as it is, for now.", space.signature[:12])
        finally:
            ended = time.monotonic()
            self._not_before[space.signature] = ended + _REST * (ended - began)
            self._renewing.discard(space.signature)

    def _renewed(self, space: SearchSpace, source: tuple[Any, ...]) -> Learned:
        """Learn a space's belief, and keep it."""
        settings, known = TaskSettings(), self.learned.get(space.signature)
        pool = planning.candidates(space, settings, 0, settings.candidates)
        learned = self._learned(space, settings.seed, pool, source, None if known is None else known.model)
        self.learned[space.signature] = learned
        for oldest in list(self.learned)[:-_MOST_SPACES]:
            self.learned.pop(oldest, None)
        return learned
