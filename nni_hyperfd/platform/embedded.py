"""The platform inside the advisor's own process: the default, and what a server serves."""

from __future__ import annotations

from pathlib import Path

from nni_hyperfd.platform import jobs, own_datasets
from nni_hyperfd.platform.client import PlatformClient
from nni_hyperfd.platform.platform import NO_TENANT, Owner, Platform
from nni_hyperfd.space import SearchSpace
from nni_hyperfd.task import Phase, TaskSettings
from nni_hyperfd.wire import Job


class EmbeddedPlatform(Platform, PlatformClient):
    """A platform on a state that this process opens.

    Args:
        state: as for `Platform`.
        warm_start: as for `Platform`; the state also takes over its extractor when an upgrade has dropped its own.
    """

    def __init__(self, state: str | Path, warm_start: Path | None = None) -> None:
        super().__init__(state, warm_start)
        self._warm_start = warm_start

    def open_task(self, experiment: str, space: SearchSpace, settings: TaskSettings, owner: Owner = NO_TENANT) -> int:
        """Begin the task of an owner's experiment, or go on with it, and return its id."""
        if self._warm_start is not None:
            own_datasets.renew_extractor(self, self._warm_start)
        return super().open_task(experiment, space, settings, owner)

    def job(self, task_id: int, phase: Phase) -> Job | None:
        """What a service trial of the task is to do; None for a phase whose trials try a configuration."""
        return jobs.job_of(self, task_id, phase)

    def check(self) -> None:
        """Read from the state.

        Raises:
            StateError: it cannot be read now.
        """
        self.versions.digests()

    def close(self) -> None:
        """Let go of the state."""
        self.store.close()
