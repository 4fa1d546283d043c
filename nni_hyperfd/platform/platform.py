"""The platform: what all experiments share. The only writer of state; knows nothing of NNI, mmdet or files.

Transactions are short. What takes time (ranking, learning) reads first, then computes, then writes if what it has read
is still so. torch is imported by the methods that need it, not by this module.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from nni_hyperfd.platform import planning
from nni_hyperfd.platform.auditing import audit
from nni_hyperfd.platform.learning import Learning
from nni_hyperfd.platform.planning import Step
from nni_hyperfd.platform.presets import DefaultPreset, PaperPreset, Preset, Ranking, Recommendation
from nni_hyperfd.space import Configuration, SearchSpace, SpaceError
from nni_hyperfd.state import experience
from nni_hyperfd.state.store import RefusedError, Store, UnknownTaskError
from nni_hyperfd.state.tables import EncoderRow, ExtractorRow, OfflineDatasetRow, SpaceRow, TaskRow, TrialRow, now
from nni_hyperfd.state.tenants import Tenants, check_quotas
from nni_hyperfd.state.versions import Versions
from nni_hyperfd.state.views import TaskView, TrialView, space_of
from nni_hyperfd.task import Phase, Status, TaskSettings
from nni_hyperfd.task import Preset as PresetName
from nni_hyperfd.wire import RESERVED_PARAMETERS, WITHHELD, Description, ExtractorUpdate, is_finite_number

_logger = logging.getLogger(__name__)

_UNFINISHED = (Status.PLANNED, Status.RUNNING)


@dataclass(frozen=True)
class Owner:
    """Whose a task is.

    Attributes:
        tenant_id: of the tenant; None on a platform without tenants.
        holder: an id of the advisor that runs the experiment now; None for one that does not say.
    """

    tenant_id: int | None = None
    holder: str | None = None


NO_TENANT = Owner()


class Platform:
    """All experience and the ranker that was learned from it.

    Args:
        state: the state file; made when it does not exist, upgraded when an earlier version wrote it.
        warm_start: another state, whose content a new one begins with.

    Raises:
        StateError: from any method, when the state is damaged, too new, or cannot be written.
    """

    def __init__(self, state: str | Path, warm_start: Path | None = None) -> None:
        self.store = Store(state, warm_start)
        self.tenants = Tenants(self.store)
        self.versions = Versions(self.store)
        self.learning = Learning(self.store, self.versions)
        self._presets: dict[PresetName, Preset] = {
            PresetName.DEFAULT: DefaultPreset(self.store, self.versions),
            PresetName.PAPER: PaperPreset(self.store, self.versions, self.learning),
        }

    # -- the way of one task -------------------------------------------------------------------------------------------

    def open_task(self, experiment: str, space: SearchSpace, settings: TaskSettings, owner: Owner = NO_TENANT) -> int:
        """Begin the task of an owner's experiment, or go on with it, and return its id.

        Raises:
            SpaceError: the experiment was begun with another search space, or the space uses a reserved name.
            QuotaError: the owner may not begin another task.
        """
        if reserved := RESERVED_PARAMETERS & set(space.parameters):
            raise SpaceError(
                f"search space: the name {min(reserved)!r} is taken by HyperFD's own trials; rename the parameter"
            )
        _ = space.size  # spaces with architectures count them once, which takes half a second
        with self.store.write() as session:
            own = func.coalesce(TaskRow.tenant_id, 0) == (owner.tenant_id or 0)  # as the index has it
            known = session.scalar(select(TaskRow).where(own, TaskRow.experiment == experiment))
            if known is not None:
                if known.space_signature != space.signature:
                    raise SpaceError(f"experiment {experiment} was begun with another search space; start a new one")
                known.holder = owner.holder or known.holder
                return known.id
            if owner.tenant_id is not None:
                check_quotas(session, owner.tenant_id)
            task = TaskRow(
                tenant_id=owner.tenant_id,
                holder=owner.holder,
                experiment=experiment,
                space_signature=keep_space(session, space),
                settings=settings,
                extractor_id=self.versions.head(session).id,
            )
            session.add(task)
            session.flush()
            if settings.service:
                # Any trial can run this one: should it not know the extract job, it simply tries this configuration.
                (first,) = self.candidates(space, settings, task.id, 1)
                task.trials.append(TrialRow(phase=Phase.EXTRACT, configuration=first))
        audit("task opened", task=task.id)
        return task.id

    def next_trial(self, task_id: int) -> TrialView | None:
        """The next planned trial, or None while there is none to run.

        Picks are chosen here, when there is room to run them, and not before: a later pick knows more results.
        """
        self._advance(task_id, picks=True)
        return next((trial for trial in self.task(task_id).trials if trial.status is Status.PLANNED), None)

    def settle(self, task_id: int) -> None:
        """Plan the learn trial, or close the task, if its trials have ended and the budget is spent."""
        self._advance(task_id, picks=False)

    def prepare(self, task_id: int) -> None:
        """Learn now, while no trial waits for it, what the task's first pick will need."""
        task = self.task(task_id)
        self._presets[task.settings.preset].prepare(task)

    def start(self, trial_id: int, parameter_id: int) -> None:
        """Note that a planned trial was handed out under NNI's parameter id.

        After a resume NNI may give out an id for the second time; from then on it means the newer trial. A trial that
        has started under this id already stays as it is, so that the call may be repeated.

        Raises:
            UnknownTaskError: there is no such trial.
        """
        with self.store.write() as session:
            trial = session.get(TrialRow, trial_id)
            if trial is None:
                raise UnknownTaskError(f"there is no trial {trial_id}")
            if trial.status is not Status.PLANNED and trial.parameter_id == parameter_id:
                return
            _hand_out(session, trial, parameter_id)

    def take(self, task_id: int, parameter_id: int, configuration: Configuration, rank: int | None = None) -> None:
        """Note that a pick of the client's own was handed out, made while it could not reach the platform.

        It takes the place of a pick that is planned and was not handed out, if there is one, so that no more than the
        budget is run. A call for a trial that has started already changes nothing.

        Raises:
            RefusedError: the task is closed.
            SpaceError: the configuration lies outside the task's search space.
        """
        with self.store.write() as session:
            task = experience.task_row(session, task_id)
            configuration = space_of(task.space).canonical(configuration)
            for known in task.trials:
                same = known.parameter_id == parameter_id and known.configuration == configuration
                if same and known.status is not Status.PLANNED:
                    return
            if task.closed is not None:
                raise RefusedError(f"task {task_id} is closed, so no trial of it can start")
            picks = (t for t in task.trials if t.phase is Phase.FINE_TUNE and t.status is Status.PLANNED)
            trial = next(picks, None)
            if trial is None:
                trial = TrialRow(phase=Phase.FINE_TUNE)
                task.trials.append(trial)
            trial.configuration, trial.rank, trial.score = configuration, rank, None
            _hand_out(session, trial, parameter_id)

    def ranking(self, task_id: int) -> list[Recommendation]:
        """The best untried candidates as things stand, from the best one, at most as many as the budget."""
        task = self.task(task_id)
        untried = self._untried(task)
        if not untried:
            return []
        return self._presets[task.settings.preset].rank(task, untried).recommendations[: task.settings.budget]

    def may_start_anew(self) -> bool:
        """Whether a client whose detector does not fit the extractor may describe its data by an untrained one.

        It may as long as no client's data set has been described: then nothing but the warm-up is given up.
        """
        with self.store.read() as session:
            return _only_warm(session)

    def describe(self, task_id: int, parameter_id: int, description: Description) -> None:
        """Keep what the extract trial found out, which ends that phase.

        Raises:
            RefusedError: it describes by the initial extractor, while others have described their data by a later one.
        """
        with self.store.write() as session:
            trial = _trial(session, task_id, parameter_id)
            if trial is None or trial.phase is not Phase.EXTRACT or trial.status is Status.SUCCEEDED:
                return
            task = trial.task
            if description.initial:
                if not _only_warm(session):
                    raise RefusedError("the extractor was made for another detector; name another state in classArgs")
                task.extractor_id = self.versions.start_anew(session).id
                _logger.warning(
                    "The state's warm-up was made with a detector of another width: its extractor and its data sets "
                    "are given up, and its results alone are used. A warm_start made with your detector knows more."
                )
            if description.meta_feature is not None:
                self._keep_meta_feature(session, task, description)
            elif description.withheld is not None:
                _logger.warning("Task %d: its data set is not described (%s).", task_id, WITHHELD[description.withheld])
            task.among, task.share = description.among, description.share
            task.num_images, task.num_boxes = description.num_images, description.num_boxes
            task.baseline = description.baseline
            trial.status, trial.performance, trial.ended = Status.SUCCEEDED, description.baseline, now()

    def observe(self, task_id: int, parameter_id: int, performance: float | None, reason: str | None = None) -> None:
        """Keep a trial's performance, or None for a failed one. Durable on return; the first performance stands.

        A performance from the extract trial means that it ran its configuration as an ordinary trial would (it does
        not know our hook, or has no images): then it counts as a pick, and the task goes without a meta-feature.
        """
        if performance is not None and not is_finite_number(performance):
            performance, reason = None, f"reported {performance}"
        with self.store.write() as session:
            trial = _trial(session, task_id, parameter_id)
            if trial is None or trial.status is Status.SUCCEEDED:
                return
            if trial.phase is Phase.EXTRACT and performance is not None:
                trial.phase = Phase.FINE_TUNE
            trial.status = Status.FAILED if performance is None else Status.SUCCEEDED
            trial.performance, trial.reason, trial.ended = performance, reason, now()

    def add_experience(
        self, task_id: int, configuration: Configuration, performance: float, phase: Phase = Phase.FINE_TUNE
    ) -> None:
        """Keep a result that comes with its configuration only: a resumed trial's, or one the user imports.

        An unfinished trial of that phase and configuration gets it; a result that is there already is not kept twice;
        anything else is experience on top of the budget.

        Raises:
            SpaceError: the configuration lies outside the task's search space.
        """
        with self.store.write() as session:
            task = experience.task_row(session, task_id)
            configuration = space_of(task.space).canonical(configuration)
            known = [trial for trial in task.trials if trial.configuration == configuration]
            if any(trial.is_result and trial.performance == performance for trial in known):
                return
            trial = next((t for t in known if t.phase is phase and t.status in _UNFINISHED), None)
            if trial is None:
                trial = TrialRow(phase=Phase.IMPORT, configuration=configuration)
                task.trials.append(trial)  # naming the task in the constructor would not put it into the session
            elif phase is Phase.EXTRACT:
                trial.phase = Phase.FINE_TUNE
            trial.status, trial.performance, trial.ended = Status.SUCCEEDED, float(performance), now()

    def release(self, task_id: int, gone: set[tuple[int, int | None]]) -> None:
        """Plan running trials anew, which NNI does not run again after a resume.

        Args:
            task_id: of their task.
            gone: (trial id, parameter id) of each; a trial that runs under another parameter id by now is left alone,
                so that the call may be repeated at any later time.
        """
        with self.store.write() as session:
            for trial in experience.task_row(session, task_id).trials:
                if trial.status is Status.RUNNING and (trial.id, trial.parameter_id) in gone:
                    trial.status, trial.started = Status.PLANNED, None

    def close_task(self, task_id: int, update: ExtractorUpdate | None = None) -> None:
        """Take in the client's update of the extractor, learn from the task, and close it.

        The update is durable before the encoder learns: after a crash in between `settle` goes on.

        Raises:
            RefusedError: the update does not fit the extractor. Nothing has changed then; call again without it.
        """
        if update is not None:
            self._take_in(task_id, update)
        self.learning.close(task_id)

    def forget(self, task_id: int) -> bool:
        """Remove a client's task without any result: nothing was, or can be, learned from it.

        Returns:
            Whether it was removed; a task with a result stays.
        """
        with self.store.write() as session:
            task = session.get(TaskRow, task_id)
            if task is None or task.dataset is not None or any(trial.is_result for trial in task.trials):
                return False
            for trial in task.trials:
                session.delete(trial)
            session.flush()
            session.delete(task)
        audit("task without a result removed", task=task_id)
        return True

    def preset(self, name: PresetName) -> Preset:
        """How picks are chosen under a preset."""
        return self._presets[name]

    # -- looking in ----------------------------------------------------------------------------------------------------

    def tasks(self) -> list[TaskView]:
        """All tasks in order of arrival."""
        with self.store.read() as session:
            return list(experience.tasks(session))

    def task(self, task_id: int) -> TaskView:
        """A task as it stands now.

        Raises:
            UnknownTaskError: there is no such task.
        """
        with self.store.read() as session:
            return TaskView.of(experience.task_row(session, task_id))

    def counts(self) -> dict[str, int]:
        """How many versions and data sets of its own the platform holds."""
        named = {
            "extractor versions": ExtractorRow,
            "encoder versions": EncoderRow,
            "offline data sets": OfflineDatasetRow,
        }
        with self.store.read() as session:
            return {name: session.scalar(select(func.count()).select_from(table)) or 0 for name, table in named.items()}

    def rank(
        self,
        space: SearchSpace,
        like: int | None,
        settings: TaskSettings,
        meta_feature: Sequence[float] | None = None,
    ) -> Ranking:
        """What would be recommended to a new task, before anything is paid for (`hyperfd recommend --dry-run`).

        Args:
            space: the new task's search space.
            like: id of a past task; the new one has the same data set. None: nothing is known of its data set.
            settings: of the new task.
            meta_feature: of the new task's data set, by the newest extractor, in place of `like`.

        Raises:
            RefusedError: there is no such task, or it has no meta-feature.
        """
        head_id = self.versions.head_id()
        with self.store.read() as session:
            row = None if like is None else session.get(TaskRow, like)
            past = None if row is None else TaskView.of(row)
            newest = session.scalar(select(func.max(TaskRow.id))) or 0
        if like is not None and (past is None or past.meta_feature is None):
            raise RefusedError(f"the state has no task {like} with a meta-feature; 'hyperfd tasks' lists them")
        task = TaskView(
            id=newest + 1,
            experiment="",
            space=space,
            settings=settings,
            dataset=None,
            extractor_id=head_id if past is None else past.extractor_id,
            meta_feature=_meta_feature(meta_feature, past),
            num_images=None,
            num_boxes=None,
            baseline=None,
            created=now(),
            closed=None,
            trials=(),
        )
        return self._presets[settings.preset].rank(task, self._untried(task))

    def candidates(self, space: SearchSpace, settings: TaskSettings, task_id: int, count: int) -> list[Configuration]:
        """The first `count` candidates of a task; the same ones at every call."""
        return planning.candidates(space, settings, task_id, count)

    # -- behind it -----------------------------------------------------------------------------------------------------

    def _keep_meta_feature(self, session: Session, task: TaskRow, description: Description) -> None:
        """Keep the meta-feature with the version of the extractor that made it, which may be an earlier one."""
        assert description.meta_feature is not None
        version_id = task.extractor_id
        if description.extractor is not None:
            found = self.versions.id_of(session, description.extractor)
            if found is None:
                raise RefusedError("its meta-feature was made by an extractor that this state does not have")
            version_id = found
        task.extractor_id, task.meta_feature = version_id, list(description.meta_feature)

    def _advance(self, task_id: int, picks: bool) -> None:
        """Do what follows in a task, until a trial is planned or there is something to wait for."""
        while True:
            task = self.task(task_id)
            untried = self._untried(task) if planning.picks_left(task) else []
            step = planning.next_step(task, bool(untried))
            if step is Step.WAIT or step is Step.PICK and not picks:
                return
            if step is Step.CLOSE:
                self.learning.close(task_id)
                return
            chosen: list[Recommendation] = []
            if step is Step.PICK:
                chosen = self._presets[task.settings.preset].pick(task, untried, planning.picks_left(task))
            if self._plan(task, chosen):
                return

    def _untried(self, task: TaskView) -> list[Configuration]:
        drawn = self.candidates(task.space, task.settings, task.id, task.settings.candidates)
        return planning.untried(task, drawn)

    def _plan(self, task: TaskView, chosen: list[Recommendation]) -> bool:
        """Plan trials of the chosen configurations, or the learn trial for none, unless the task has changed."""
        with self.store.write() as session:
            row = session.get_one(TaskRow, task.id)
            if TaskView.of(row) != task:
                return False
            row.trials += [
                TrialRow(phase=Phase.FINE_TUNE, configuration=pick.configuration, rank=pick.rank, score=pick.score)
                for pick in chosen
            ] or [TrialRow(phase=Phase.LEARN, configuration={})]
        return True

    def _take_in(self, task_id: int, update: ExtractorUpdate) -> None:
        """Keep an update of the extractor, which ends the learn trial."""
        if self.task(task_id).closed is not None:
            return
        extractor = self.versions.checked_update(update)
        with self.store.write() as session:
            task = experience.task_row(session, task_id)
            if task.closed is not None or any(_has_learned(trial) for trial in task.trials):
                return  # this update is known, and its answer was lost
            for trial in task.trials:
                if trial.phase is Phase.LEARN and trial.status is Status.RUNNING:
                    trial.status, trial.ended = Status.SUCCEEDED, now()
            task.meta_feature = list(update.meta_feature)
            row = self.versions.add_extractor(session, task.extractor_id, extractor, task.among or 1)
            task.extractor_id = row.id


def _has_learned(trial: TrialRow) -> bool:
    return trial.phase is Phase.LEARN and trial.status is Status.SUCCEEDED


def _hand_out(session: Session, trial: TrialRow, parameter_id: int) -> None:
    """Let a trial run under NNI's parameter id, which from now on means no other trial of its task."""
    for other in trial.task.trials:
        if other.parameter_id == parameter_id:
            other.parameter_id = None
    session.flush()
    trial.status, trial.parameter_id, trial.started = Status.RUNNING, parameter_id, now()


def keep_space(session: Session, space: SearchSpace) -> str:
    """Keep a search space, and return its signature."""
    if session.get(SpaceRow, space.signature) is None:
        session.add(SpaceRow(signature=space.signature, kind=space.kind, definition=dict(space.definition)))
        session.flush()
    return space.signature


def _meta_feature(given: Sequence[float] | None, like: TaskView | None) -> tuple[float, ...] | None:
    if given is not None:
        return tuple(given)
    return None if like is None else like.meta_feature


def _only_warm(session: Session) -> bool:
    """Whether no client's data set has been described yet."""
    described = select(TaskRow.id).where(TaskRow.dataset.is_(None), TaskRow.meta_feature.is_not(None)).limit(1)
    return session.scalar(described) is None


def _trial(session: Session, task_id: int, parameter_id: int) -> TrialRow | None:
    """The trial that runs under NNI's parameter id; None (and a warning) for one that the platform did not plan."""
    trial = session.scalar(select(TrialRow).where(TrialRow.task_id == task_id, TrialRow.parameter_id == parameter_id))
    if trial is None:
        _logger.warning("Task %d has no trial with parameter id %s; what it reports is ignored.", task_id, parameter_id)
    return trial
