"""A shared platform as one tenant sees it: its own tasks, and recommendations made from all."""

from __future__ import annotations

from sqlalchemy import ColumnElement, select

from nni_hyperfd.platform.client import PlatformClient
from nni_hyperfd.platform.embedded import EmbeddedPlatform
from nni_hyperfd.platform.platform import Owner
from nni_hyperfd.platform.presets import Recommendation
from nni_hyperfd.space import Configuration, SearchSpace
from nni_hyperfd.state.errors import HeldError, UnknownTaskError
from nni_hyperfd.state.tables import TaskRow, TrialRow
from nni_hyperfd.state.tenants import Caller
from nni_hyperfd.state.views import TaskView, TrialView
from nni_hyperfd.task import Phase, Scope, TaskSettings
from nni_hyperfd.wire import Description, ExtractorUpdate, Job


class TenantPlatform(PlatformClient):
    """What a caller may see and do of a platform.

    A task of another tenant is answered as one that does not exist. A caller of scope `admin` sees the tasks of all
    tenants; it, too, changes only its own.

    Args:
        platform: of all tenants.
        caller: who asks.
        holder: the advisor that asks, by an id of its own; None for one that does not say.

    Raises:
        UnknownTaskError: from any method with an id, when there is no such task or trial of the tenant.
        HeldError: from any method that changes a task, when a newer advisor has opened it.
    """

    def __init__(self, platform: EmbeddedPlatform, caller: Caller, holder: str | None = None) -> None:
        self._platform, self._caller, self._holder = platform, caller, holder

    # -- the way of one task -------------------------------------------------------------------------------------------

    def open_task(self, experiment: str, space: SearchSpace, settings: TaskSettings) -> int:
        """Begin the task of an experiment, or go on with it, and return its id.

        From now on the advisor that asks holds it.

        Raises:
            SpaceError: the experiment was begun with another search space, or the space uses a reserved name.
            QuotaError: the tenant has as many tasks as it may have.
        """
        return self._platform.open_task(experiment, space, settings, Owner(self._caller.tenant_id, self._holder))

    def next_trial(self, task_id: int) -> TrialView | None:
        """The next planned trial, or None while there is none to run. It stays the next one until it is started."""
        self._check_own(task_id)
        return self._platform.next_trial(task_id)

    def start(self, trial_id: int, parameter_id: int) -> None:
        """Note that a planned trial was handed out under NNI's parameter id."""
        task_of_trial = select(TrialRow.task_id).where(TrialRow.id == trial_id).scalar_subquery()
        self._check(TaskRow.id == task_of_trial, f"there is no trial {trial_id}")
        self._platform.start(trial_id, parameter_id)

    def take(self, task_id: int, parameter_id: int, configuration: Configuration, rank: int | None = None) -> None:
        """Note that a pick of the client's own was handed out, made while it could not reach the platform.

        Raises:
            RefusedError: the task is closed.
            SpaceError: the configuration lies outside the task's search space.
        """
        self._check_own(task_id)
        self._platform.take(task_id, parameter_id, configuration, rank)

    def ranking(self, task_id: int) -> list[Recommendation]:
        """The best untried candidates as things stand, from the best one, at most as many as the budget."""
        self._check_own(task_id, changes=False)
        return self._platform.ranking(task_id)

    def job(self, task_id: int, phase: Phase) -> Job | None:
        """What a service trial of the task is to do; None for a phase whose trials try a configuration."""
        self._check_own(task_id, changes=False)
        return self._platform.job(task_id, phase)

    def describe(self, task_id: int, parameter_id: int, description: Description) -> None:
        """Keep what the extract trial found out, which ends that phase; the first description stands.

        Raises:
            RefusedError: it was made by an extractor that the platform does not have or does not accept.
        """
        self._check_own(task_id)
        self._platform.describe(task_id, parameter_id, description)

    def observe(self, task_id: int, parameter_id: int, performance: float | None, reason: str | None = None) -> None:
        """Keep a trial's performance, or None for a failed one. Durable on return; the first performance stands."""
        self._check_own(task_id)
        self._platform.observe(task_id, parameter_id, performance, reason)

    def add_experience(
        self, task_id: int, configuration: Configuration, performance: float, phase: Phase = Phase.FINE_TUNE
    ) -> None:
        """Keep a result that comes with its configuration only; one that is there already is not kept twice.

        Raises:
            SpaceError: the configuration lies outside the task's search space.
        """
        self._check_own(task_id)
        self._platform.add_experience(task_id, configuration, performance, phase)

    def settle(self, task_id: int) -> None:
        """Plan the learn trial, or close the task, if its trials have ended and the budget is spent."""
        self._check_own(task_id)
        self._platform.settle(task_id)

    def prepare(self, task_id: int) -> None:
        """Learn now, while no trial waits for it, what the task's first pick will need."""
        self._check_own(task_id)
        self._platform.prepare(task_id)

    def release(self, task_id: int, gone: set[tuple[int, int | None]]) -> None:
        """Plan running trials anew, which NNI does not run again after a resume."""
        self._check_own(task_id)
        self._platform.release(task_id, gone)

    def close_task(self, task_id: int, update: ExtractorUpdate | None = None) -> None:
        """Take in the client's update of the extractor, learn from the task, and close it.

        Raises:
            RefusedError: the update does not fit the extractor. Nothing has changed then; call again without it.
        """
        self._check_own(task_id)
        self._platform.close_task(task_id, update)

    def forget(self, task_id: int) -> bool:
        """Remove a task without any result; whether it was removed."""
        try:
            self._check_own(task_id)
        except UnknownTaskError:
            return False  # it may be removed already, and the answer was lost
        return self._platform.forget(task_id)

    # -- looking in ----------------------------------------------------------------------------------------------------

    def task(self, task_id: int) -> TaskView:
        """A task as it stands now; an admin may see every one."""
        if self._caller.scope is not Scope.ADMIN:
            self._check_own(task_id, changes=False)
        return self._platform.task(task_id)

    def close(self) -> None:
        """Nothing: the platform is not the tenant's."""

    # -- behind it -----------------------------------------------------------------------------------------------------

    def _check_own(self, task_id: int, changes: bool = True) -> None:
        self._check(TaskRow.id == task_id, f"there is no task {task_id}", changes)

    def _check(self, which: ColumnElement[bool], unknown: str, changes: bool = True) -> None:
        """See that a task is the tenant's, and held by nobody else where it is about to change.

        A newer advisor that opens the task between this and the change is no harm: it came later.
        """
        query = select(TaskRow.id, TaskRow.holder, TaskRow.experiment)
        with self._platform.store.read() as session:
            own = session.execute(query.where(which, TaskRow.tenant_id == self._caller.tenant_id)).one_or_none()
        if own is None:
            raise UnknownTaskError(unknown)
        if changes and None not in (own.holder, self._holder) and own.holder != self._holder:
            raise HeldError(f"task {own.id}: a newer advisor has taken over experiment {own.experiment}; end this one")
