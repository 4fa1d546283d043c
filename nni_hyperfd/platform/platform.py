"""The platform: what all experiments share. The only writer of state; knows nothing of NNI, mmdet or files.

Where a task stands is read from its trials' rows alone, so a platform that was killed goes on where its state says.

How picks are chosen is for `nni_hyperfd.platform.presets`. torch is imported by the methods that rank or learn, not by
this module.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from nni_hyperfd.platform.presets import DefaultPreset, Learned, PaperPreset, Preset, Ranking
from nni_hyperfd.space.search_space import Configuration, SearchSpace, SpaceError
from nni_hyperfd.state import exchange, experience
from nni_hyperfd.state import store as tables
from nni_hyperfd.state.store import Store, Trial, now
from nni_hyperfd.state.versions import Versions, unknown_meta_feature
from nni_hyperfd.task import EXTRACT, FINE_TUNE, IMPORT, LEARN, TaskSettings
from nni_hyperfd.wire import Description, ExtractorUpdate, ReportError, check_meta_feature, is_finite_number

if TYPE_CHECKING:
    from torch import Tensor

    from nni_hyperfd.method.learning import WarmUp
    from nni_hyperfd.method.meta_feature import MetaFeatureExtractor

_logger = logging.getLogger(__name__)

_OFFLINE_SETS, _OFFLINE_IMAGES = 8, 16  # what a learn job is given of D_off: about 0.4 MB
_KEPT_IMAGES, _KEPT_OF_EACH = 1024, 32  # what a warm-up leaves of D_off: about 2.5 MB with 64 channels


@dataclass(frozen=True, eq=False)
class OfflineResults:
    """One of the server's own data sets and what was measured on it.

    images: (n >= 1, 3, 3, D) and counts: (2,), as in `ranker.learning.ClientTask`. performance: of the configurations,
    one or more, finite, the higher the better.
    """

    name: str
    images: Tensor
    counts: Tensor
    configurations: list[Configuration]
    performance: list[float]


class Platform:
    """All experience and the ranker that was learned from it.

    Args:
        state: the state file; made when it does not exist.
        warm_start: another state, whose content a new one begins with.

    Raises:
        StateError: from any method, when the state is damaged, too new, or cannot be written.
    """

    def __init__(self, state: str | Path, warm_start: Path | None = None) -> None:
        self.store = Store(state, warm_start)
        self._learned: dict[str, Learned] = {}

    # -- the way of one task ------------------------------------------------------------------------------------------

    def open_task(self, experiment: str, space: SearchSpace, settings: TaskSettings) -> int:
        """Begin the task of an experiment, or go on with it, and return its id.

        Raises:
            SpaceError: the experiment was begun with another search space.
        """
        with self.store.write() as session:
            task = session.scalar(select(tables.Task).where(tables.Task.experiment == experiment))
            if task is not None:
                if task.space_signature != space.signature:
                    raise SpaceError(f"experiment {experiment} was begun with another search space; start a new one")
                return task.id
            task = tables.Task(
                experiment=experiment,
                space_signature=_keep_space(session, space),
                settings=asdict(settings),
                extractor_id=Versions(self.store, session).head().id,
            )
            session.add(task)
            session.flush()
            if settings.service:
                # Any trial can run this one: should it not know the extract job, it simply tries this configuration.
                first = self._candidates(task, space)[0]
                task.trials.append(Trial(phase=EXTRACT, configuration=first))
                session.flush()
            return task.id

    def next_trial(self, task_id: int) -> Trial | None:
        """The next planned trial, or None while there is none to run.

        Picks are chosen here, when there is room to run them, and not before: a later pick knows more results.
        """
        with self.store.write() as session:
            task = session.get_one(tables.Task, task_id)
            self._plan(session, task, picks=True)
            return next((trial for trial in task.trials if trial.status == "planned"), None)

    def settle(self, task_id: int) -> None:
        """Plan the learn trial, or close the task, if its trials have ended and the budget is spent."""
        with self.store.write() as session:
            self._plan(session, session.get_one(tables.Task, task_id), picks=False)

    def prepare(self, task_id: int) -> None:
        """Learn now, while no trial waits for it, what the task's first pick will need."""
        with self.store.write() as session:
            task = session.get_one(tables.Task, task_id)
            self._preset(session, task).prepare(task, _space(task))

    def start(self, trial_id: int, parameter_id: int) -> None:
        """Note that a planned trial was handed out under NNI's parameter id.

        After a resume NNI may give out an id for the second time; from then on it means the newer trial.
        """
        with self.store.write() as session:
            trial = session.get_one(Trial, trial_id)
            for other in trial.task.trials:
                if other.parameter_id == parameter_id:
                    other.parameter_id = None
            session.flush()
            trial.status, trial.parameter_id, trial.started = "running", parameter_id, now()

    def may_start_anew(self) -> bool:
        """Whether a client whose detector the extractor was not made for may describe its data by an untrained one:
        no client's data set has been described yet, so nothing but the warm-up is given up."""
        with self.store.read() as session:
            return _only_warm(session)

    def describe(self, task_id: int, parameter_id: int, description: Description) -> None:
        """Keep what the extract trial found out, which ends that phase.

        Raises:
            ReportError: it describes by the initial extractor, while others have described their data by a later one.
        """
        with self.store.write() as session:
            trial = _trial(session, task_id, parameter_id)
            if trial is None or trial.phase != EXTRACT or trial.status == "succeeded":
                return
            task = trial.task
            if description.initial:
                if not _only_warm(session):
                    raise ReportError("the extractor was made for another detector; name another state in classArgs")
                task.extractor_id = Versions(self.store, session).start_anew().id
                _logger.warning(
                    "The state's warm-up was made with a detector of another width: its extractor and its data sets "
                    "are given up, and its results alone are used. A warm_start made with your detector knows more."
                )
            for name in ("meta_feature", "num_images", "num_boxes", "baseline"):
                setattr(task, name, getattr(description, name))
            trial.status, trial.performance, trial.ended = "succeeded", description.baseline, now()

    def observe(self, task_id: int, parameter_id: int, performance: float | None, reason: str | None = None) -> None:
        """Keep a trial's performance, or None for a failed one. Durable on return; the first performance stands.

        A performance from the extract trial means that it ran its configuration as an ordinary trial would (it does
        not know our hook, or has no images): then it counts as a pick, and the task goes without a meta-feature.
        """
        if performance is not None and not is_finite_number(performance):
            performance, reason = None, f"reported {performance}"
        with self.store.write() as session:
            trial = _trial(session, task_id, parameter_id)
            if trial is None or trial.status == "succeeded":
                return
            if trial.phase == EXTRACT and performance is not None:
                trial.phase = FINE_TUNE
            trial.status = "failed" if performance is None else "succeeded"
            trial.performance, trial.reason, trial.ended = performance, reason, now()

    def add_experience(self, task_id: int, configuration: Any, performance: float, phase: str = FINE_TUNE) -> None:
        """Keep a result that comes with its configuration only: a resumed trial's, or one the user imports.

        An unfinished trial of that phase and configuration gets it; a result that is there already is not kept twice;
        anything else is experience on top of the budget.

        Raises:
            SpaceError: the configuration lies outside the task's search space.
        """
        with self.store.write() as session:
            task = session.get_one(tables.Task, task_id)
            space = _space(task)
            configuration = space.canonical(configuration)
            known = [t for t in task.trials if t.configuration == configuration]
            if any(t.phase in (FINE_TUNE, IMPORT) and t.performance == performance for t in known):
                return
            trial = next((t for t in known if t.phase == phase and t.status in ("planned", "running")), None)
            if trial is None:
                trial = Trial(phase=IMPORT, configuration=configuration)
                task.trials.append(trial)  # naming the task in the constructor would not put it into the session
            elif phase == EXTRACT:
                trial.phase = FINE_TUNE
            trial.status, trial.performance, trial.ended = "succeeded", float(performance), now()

    def release(self, task_id: int, still_running: set[int]) -> None:
        """After a resume: every trial that NNI does not run again is planned anew."""
        with self.store.write() as session:
            for trial in session.get_one(tables.Task, task_id).trials:
                if trial.status == "running" and trial.parameter_id not in still_running:
                    trial.status, trial.started = "planned", None

    def close_task(self, task_id: int, update: ExtractorUpdate | None = None) -> None:
        """Learn from the task and commit new versions of extractor and ranker, all in one transaction.

        Raises:
            ReportError: the update does not fit the extractor. Nothing has changed then; call again without it.
        """
        with self.store.write() as session:
            task = session.get_one(tables.Task, task_id)
            if task.closed is not None:
                return
            if update is not None:
                task.meta_feature = update.meta_feature
                task.extractor_id = Versions(self.store, session).add_extractor(task.extractor_id, update).id
            for trial in task.trials:
                if trial.phase == LEARN and trial.status == "running":
                    trial.status, trial.ended = "succeeded", now()
            self._close(session, task)

    # -- what the jobs of a task need ----------------------------------------------------------------------------------

    def extractor_weights(self, task_id: int) -> bytes | None:
        """The extractor version of the task as safetensors; None stands for the seeded initial one."""
        with self.store.read() as session:
            extractor = session.get_one(tables.Extractor, session.get_one(tables.Task, task_id).extractor_id)
            return None if extractor.weights is None else self.store.get(session, extractor.weights)

    def learn_job(self, task_id: int) -> bytes:
        """What the learn trial is given, as safetensors: the extractor and its importances, the embeddings and
        performances of the task's own trials, and some of the server's own data sets.

        Nothing of other clients, unless the task's settings say ``replay: meta-features``: then up to 32 of theirs, in
        the space of the task's extractor and in random order.
        """
        import torch

        from nni_hyperfd.method import features, weights

        with self.store.write() as session:  # missing descriptions of offline data sets are computed, and kept
            task, versions = session.get_one(tables.Task, task_id), Versions(self.store, session)
            space = _space(task)
            tensors = versions.extractor_tensors(task.extractor_id)
            configurations, performance = experience.results(task)
            encoder, _ = versions.encoder(space)
            with torch.no_grad():
                tensors["embeddings"] = encoder(torch.from_numpy(space.encode(configurations)))
            tensors["performance"] = torch.tensor(performance, dtype=torch.float32)
            rng = np.random.default_rng([task.settings["seed"], task.id])
            offline = list(versions.offline().values())
            for index, place in enumerate(rng.permutation(len(offline))[:_OFFLINE_SETS]):
                images, counts = offline[place]
                sample = images[rng.permutation(len(images))[:_OFFLINE_IMAGES]]
                packed = features.pack(sample, counts)
                tensors |= {f"offline.{index}.{name}": tensor for name, tensor in packed.items()}
            if task.settings["replay"] == "meta-features":
                past = experience.drawn_tasks(session, experience.closed_tasks(session, space), rng)
                clients = [other for other in past if not experience.is_offline(other)]
                others = list(versions.meta_features(clients, task.extractor_id).values())
                if others:
                    tensors["replay"] = torch.stack([others[place] for place in rng.permutation(len(others))])
            return weights.dumps(tensors)

    def tasks(self) -> list[tables.Task]:
        """All tasks in order of arrival, with their trials."""
        with self.store.read() as session:
            return list(session.scalars(select(tables.Task).order_by(tables.Task.id)))

    def task(self, task_id: int) -> tables.Task:
        """A task as it stands now, with its trials."""
        with self.store.read() as session:
            return session.get_one(tables.Task, task_id)

    def rank(self, space: SearchSpace, like: int | None, settings: TaskSettings) -> Ranking:
        """What would be recommended to a new task, before anything is paid for (`hyperfd recommend --dry-run`).

        Args:
            like: id of a past task; the new one has the same data set. None: nothing is known of its data set.

        Raises:
            ReportError: there is no such task, or it has no meta-feature.
        """
        with self.store.write() as session:  # missing descriptions of offline data sets are computed, and kept
            past = None if like is None else session.get(tables.Task, like)
            if like is not None and (past is None or past.meta_feature is None):
                raise ReportError(f"the state has no task {like} with a meta-feature; 'hyperfd tasks' lists them")
            task = tables.Task(
                id=1 + (session.scalar(select(func.max(tables.Task.id))) or 0),
                settings=asdict(settings),
                extractor_id=past.extractor_id if past else Versions(self.store, session).head().id,
                meta_feature=past.meta_feature if past else None,
            )
            return self._preset(session, task).rank(task, space, self._candidates(task, space))

    def add_offline(self, name: str, data: bytes) -> None:
        """Add or replace one of the server's own data sets (D_off), packed as in `nni_hyperfd.method.features`.

        Raises:
            ReportError: the data hold something else, or come from a detector with another number of channels.
        """
        from nni_hyperfd.method import features, weights

        try:
            images, _ = features.unpack(weights.loads(data))
        except weights.WeightsError as error:
            raise ReportError(f"offline data set {name}: {error}") from None
        with self.store.write() as session:
            versions = Versions(self.store, session)
            for other, _ in versions.offline().values():
                if other.shape[-1] != images.shape[-1]:
                    raise ReportError(
                        f"offline data set {name}: its features have {images.shape[-1]} entries, the ones in the state "
                        f"have {other.shape[-1]}; extract them with the same detector, or use another state"
                    )
            session.merge(tables.OfflineDataset(name=name, features=self.store.put(session, data)))
            session.flush()
            try:
                versions.describe_offline(versions.head().id)
            except ValueError as error:
                raise ReportError(f"offline data set {name}: {error}") from None

    def warm_extractor(self, space: SearchSpace) -> MetaFeatureExtractor | None:
        """What a warm-up in a space has to begin with: the extractor of the warm-ups in other spaces; None for an empty
        state. Raises ReportError for a state that holds more than that."""
        with self.store.read() as session:
            if self._check_only_warm_ups(session, space) is None:
                return None
            return Versions(self.store, session).extractor()

    def begin_with(self, space: SearchSpace, data_sets: Sequence[OfflineResults], warm: WarmUp, seed: int) -> None:
        """Begin an empty state, or one with warm-ups in other spaces, with what a warm-up has learned; one transaction.

        Both networks become the newest versions, but for the extractor of a state that has one: warm it up with that
        (`warm_extractor`). The data sets become the server's own ones (D_off), with a share of
        `_KEPT_IMAGES` drawn by `seed`, and closed tasks that are marked as offline, with their results.

        Raises:
            ReportError: there is more in the state already.
        """
        import torch

        from nni_hyperfd.method import features, weights

        rng = np.random.default_rng(seed)
        most = min(_KEPT_OF_EACH, max(1, _KEPT_IMAGES // len(data_sets)))
        with self.store.write() as session:
            extractor = self._check_only_warm_ups(session, space)
            versions, signature = Versions(self.store, session), _keep_space(session, space)
            if extractor is None:
                update = ExtractorUpdate(warm.extractor.state_dict(), warm.importance, [])
                extractor = versions.add_extractor(versions.head().id, update)
            elif weights.dumps(versions.extractor().state_dict()) != weights.dumps(warm.extractor.state_dict()):
                raise ReportError(f"state {self.store.path}: its extractor is not the one of this warm-up; repeat it")
            for data_set in data_sets:
                sample = data_set.images[np.sort(rng.permutation(len(data_set.images))[:most])]
                packed = self.store.put(session, weights.dumps(features.pack(sample, data_set.counts)))
                session.merge(tables.OfflineDataset(name=data_set.name, features=packed))
                with torch.no_grad():
                    meta_feature = warm.extractor(data_set.images, data_set.counts).tolist()
                task = tables.Task(
                    experiment=f"warm-up {data_set.name} ({space.label})",
                    space_signature=signature,
                    settings=asdict(TaskSettings(budget=len(data_set.performance), service=False, offline=True)),
                    extractor_id=extractor.id,
                    meta_feature=check_meta_feature(meta_feature),
                    num_images=int(data_set.counts[0]),
                    num_boxes=int(data_set.counts[1]),
                    closed=now(),
                )
                for configuration, performance in zip(data_set.configurations, data_set.performance, strict=True):
                    task.trials.append(
                        Trial(
                            phase=IMPORT,
                            status="succeeded",
                            configuration=configuration,
                            performance=performance,
                            ended=now(),
                        )
                    )
                session.add(task)
                session.flush()
            versions.describe_offline(extractor.id)
            versions.add_encoder(space, task.id, warm.encoder)

    # -- looking in, and moving experience -----------------------------------------------------------------------------

    def counts(self) -> dict[str, int]:
        """How many versions and offline data sets the state holds."""
        named = {
            "extractor versions": tables.Extractor,
            "ranker versions": tables.Ranker,
            "offline data sets": tables.OfflineDataset,
        }
        with self.store.read() as session:
            return {name: session.scalar(select(func.count()).select_from(table)) for name, table in named.items()}

    def export(self) -> dict[str, Any]:
        """All closed tasks as a JSON document (`nni_hyperfd.state.exchange`)."""
        with self.store.read() as session:
            closed = session.scalars(
                select(tables.Task).where(tables.Task.closed.is_not(None)).order_by(tables.Task.id)
            )
            return exchange.write(
                [(task, session.get_one(tables.Extractor, task.extractor_id).weights) for task in closed]
            )

    def import_(self, document: Any) -> int:
        """Add the tasks of an exported document, train the ranker on them, and return how many were new.

        A meta-feature means something only under the extractor that made it: it is kept where this state has that
        version, and left out otherwise.

        Raises:
            DocumentError: the document is refused as a whole; nothing was added.
        """
        added = 0
        tasks = exchange.read(document)
        with self.store.write() as session:
            head = Versions(self.store, session).head()
            for exported in tasks:
                if session.scalar(select(tables.Task).where(tables.Task.experiment == exported.experiment)):
                    continue
                extractor = session.scalar(
                    select(tables.Extractor).where(tables.Extractor.weights.is_not_distinct_from(exported.extractor))
                )
                description = exported.description | ({} if extractor else {"meta_feature": None})
                task = tables.Task(
                    experiment=exported.experiment,
                    space_signature=_keep_space(session, exported.space),
                    settings=exported.settings,
                    extractor_id=(extractor or head).id,
                    **description,
                )
                for result in exported.results:
                    outcome = "failed" if result.performance is None else "succeeded"
                    task.trials.append(Trial(status=outcome, ended=now(), **asdict(result)))
                session.add(task)
                session.flush()
                session.refresh(task)
                if experience.is_offline(task):
                    task.closed = now()  # the ranker learns from it beside every task, not by itself
                else:
                    self._close(session, task)
                added += 1
        return added

    # -- inside a transaction ------------------------------------------------------------------------------------------

    def _check_only_warm_ups(self, session: Session, space: SearchSpace) -> tables.Extractor | None:
        """The extractor version of a state with warm-ups in other spaces alone; None for an empty state."""
        extractor = session.scalar(select(tables.Extractor).where(tables.Extractor.head))
        tasks = session.execute(select(tables.Task.space_signature, tables.Task.settings)).all()
        if extractor is None and not tasks:
            return None
        own = [task for task in tasks if task.space_signature == space.signature or not task.settings.get("offline")]
        if own or not tasks:
            raise ReportError(
                f"state {self.store.path}: it holds more than warm-ups in other spaces; name a new file for this one"
            )
        return extractor

    def _plan(self, session: Session, task: tables.Task, picks: bool) -> None:
        """Plan what follows, if nothing is planned: picks, the learn trial, or the task's end."""
        running = [t for t in task.trials if t.status == "running"]
        if task.closed or any(t.phase == EXTRACT for t in running) or any(t.status == "planned" for t in task.trials):
            return
        space = _space(task)
        left = task.settings["budget"] - sum(t.phase == FINE_TUNE for t in task.trials)
        known = {space.key(t.configuration) for t in task.trials if t.phase in (FINE_TUNE, IMPORT)}
        candidates = [c for c in self._candidates(task, space) if space.key(c) not in known]
        if left > 0 and candidates:
            if picks:
                for pick in self._preset(session, task).pick(task, space, candidates, left):
                    trial = Trial(phase=FINE_TUNE, configuration=pick.configuration, rank=pick.rank, score=pick.score)
                    task.trials.append(trial)
        elif running:
            return
        elif task.meta_feature is not None and not any(t.phase == LEARN for t in task.trials):
            task.trials.append(Trial(phase=LEARN, configuration={}))
        else:
            self._close(session, task)
        session.flush()

    def _preset(self, session: Session, task: tables.Task) -> Preset:
        versions = Versions(self.store, session)
        if task.settings["preset"] == "paper":
            return PaperPreset(versions, session)
        return DefaultPreset(versions, session, self._learned)

    def _close(self, session: Session, task: tables.Task) -> None:
        task.closed = now()
        session.flush()
        self._train_encoder(session, task)
        Versions(self.store, session).drop_unneeded()

    def _candidates(self, task: tables.Task, space: SearchSpace) -> list[Configuration]:
        rng = np.random.default_rng([task.settings["seed"], task.id])
        return space.sample(task.settings["candidates"], rng)

    def _train_encoder(self, session: Session, task: tables.Task) -> None:
        """Train the configuration encoder on this task and earlier ones, towards the newest extractor."""
        import torch

        from nni_hyperfd.method import learning
        from nni_hyperfd.method.settings import RankerSettings

        versions, space, seed = Versions(self.store, session), _space(task), task.settings["seed"] + task.id

        def experience_of(task: tables.Task) -> learning.TaskExperience:
            configurations, performance = experience.results(task)
            h = meta_features.get(task.id, unknown)
            return learning.TaskExperience(torch.from_numpy(space.encode(configurations)), torch.tensor(performance), h)

        if not experience.results(task)[0]:
            return
        ids = [other for other in experience.closed_tasks(session, space) if other != task.id]
        past = experience.drawn_tasks(session, ids, np.random.default_rng(seed))
        meta_features = versions.meta_features([*past, task], versions.head().id)
        unknown = unknown_meta_feature(meta_features)
        offline = [experience_of(other) for other in past if experience.is_offline(other)]
        clients = [experience_of(other) for other in past if not experience.is_offline(other)]
        encoder = learning.update_encoder(
            versions.encoder(space)[0], experience_of(task), clients, offline, RankerSettings(), seed
        )
        versions.add_encoder(space, task.id, encoder)


def _keep_space(session: Session, space: SearchSpace) -> str:
    if session.get(tables.Space, space.signature) is None:
        record = tables.Space(signature=space.signature, kind=space.kind, definition=dict(space.definition))
        session.add(record)
        session.flush()
    return space.signature


def _only_warm(session: Session) -> bool:
    """Whether no client's data set has been described yet."""
    tasks = session.execute(select(tables.Task.meta_feature, tables.Task.settings))
    return all(meta_feature is None or settings.get("offline") for meta_feature, settings in tasks)


def _trial(session: Session, task_id: int, parameter_id: int | None) -> Trial | None:
    """The trial that runs under NNI's parameter id; None (and a warning) for one that the platform did not plan."""
    trial = session.scalar(select(Trial).where(Trial.task_id == task_id, Trial.parameter_id == parameter_id))
    if trial is None:
        _logger.warning("Task %d has no trial with parameter id %s; what it reports is ignored.", task_id, parameter_id)
    return trial


def _space(task: tables.Task) -> SearchSpace:
    return SearchSpace.from_nni(task.space.definition, task.space.kind)
