"""The platform: what all experiments share. The only writer of state; knows nothing of NNI, mmdet or files.

Where a task stands is read from its trials' rows alone, so a platform that was killed goes on where its state says.

torch is imported by the methods that rank or learn, not by this module.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from nni_hyperfd import exchange
from nni_hyperfd import store as tables
from nni_hyperfd.reports import Description, ExtractorUpdate, ReportError, is_finite_number
from nni_hyperfd.space import Configuration, SearchSpace, SpaceError
from nni_hyperfd.store import Store, Trial, now
from nni_hyperfd.task import EXTRACT, FINE_TUNE, IMPORT, LEARN, TaskSettings
from nni_hyperfd.versions import Versions, unknown_meta_feature

_logger = logging.getLogger(__name__)

_OFFLINE_SETS, _OFFLINE_IMAGES = 8, 16  # what a learn job is given of D_off: about 0.4 MB


@dataclass(frozen=True)
class Recommendation:
    """A configuration with its place among the candidates (1 = best) and its score (equation 1)."""

    configuration: Configuration
    rank: int
    score: float


@dataclass(frozen=True)
class Ranking:
    """The candidates of a task from best to worst, and the past tasks whose meta-features lie nearest."""

    recommendations: list[Recommendation]
    neighbours: list[tuple[int, float]]


class Platform:
    """All experience and the ranker that was learned from it.

    Args:
        state: the state file; made when it does not exist.

    Raises:
        StateError: from any method, when the state is damaged, too new, or cannot be written.
    """

    def __init__(self, state: str | Path) -> None:
        self.store = Store(state)

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

        When every trial has ended, this plans what follows from them; when nothing follows, it closes the task.
        """
        with self.store.write() as session:
            task = session.get_one(tables.Task, task_id)
            if task.closed is None and not any(t.status in ("planned", "running") for t in task.trials):
                self._plan(session, task)
            return next((trial for trial in task.trials if trial.status == "planned"), None)

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

    def describe(self, task_id: int, parameter_id: int, description: Description) -> None:
        """Keep what the extract trial found out, which ends that phase."""
        with self.store.write() as session:
            trial = _trial(session, task_id, parameter_id)
            if trial is None or trial.phase != EXTRACT or trial.status == "succeeded":
                return
            task = trial.task
            for name, value in asdict(description).items():
                setattr(task, name, value)
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
        performances of the task's own trials, and some of the server's own data sets. Nothing of other clients."""
        import torch

        from nni_hyperfd.ranker import features, weights

        with self.store.read() as session:
            task, versions = session.get_one(tables.Task, task_id), Versions(self.store, session)
            space = _space(task)
            tensors = versions.extractor_tensors(task.extractor_id)
            configurations, performance = _experience(task)
            encoder, _ = versions.encoder(space)
            with torch.no_grad():
                tensors["embeddings"] = encoder(torch.from_numpy(space.encode(configurations)))
            tensors["performance"] = torch.tensor(performance, dtype=torch.float32)
            rng = np.random.default_rng([task.settings["seed"], task.id])
            offline = versions.offline()
            for index, place in enumerate(rng.permutation(len(offline))[:_OFFLINE_SETS]):
                images, counts = offline[place]
                sample = images[rng.permutation(len(images))[:_OFFLINE_IMAGES]]
                packed = features.pack(sample, counts)
                tensors |= {f"offline.{index}.{name}": tensor for name, tensor in packed.items()}
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
        with self.store.write() as session:  # a missing transformation is computed, and kept
            past = None if like is None else session.get(tables.Task, like)
            if like is not None and (past is None or past.meta_feature is None):
                raise ReportError(f"the state has no task {like} with a meta-feature; 'hyperfd tasks' lists them")
            task = tables.Task(
                id=1 + (session.scalar(select(func.max(tables.Task.id))) or 0),
                settings=asdict(settings),
                extractor_id=past.extractor_id if past else Versions(self.store, session).head().id,
                meta_feature=past.meta_feature if past else None,
            )
            return self._rank(session, task, space, self._candidates(task, space))

    def add_offline(self, name: str, data: bytes) -> None:
        """Add or replace one of the server's own data sets (D_off), packed as in `nni_hyperfd.ranker.features`.

        Raises:
            ReportError: the data hold something else, or come from a detector with another number of channels.
        """
        from nni_hyperfd.ranker import features, weights

        try:
            images, _ = features.unpack(weights.loads(data))
        except weights.WeightsError as error:
            raise ReportError(f"offline data set {name}: {error}") from None
        with self.store.write() as session:
            versions = Versions(self.store, session)
            for other, _ in versions.offline():
                if other.shape[-1] != images.shape[-1]:
                    raise ReportError(
                        f"offline data set {name}: its features have {images.shape[-1]} entries, the ones in the state "
                        f"have {other.shape[-1]}; extract them with the same detector, or use another state"
                    )
            session.merge(tables.OfflineDataset(name=name, features=self.store.put(session, data)))
            session.flush()
            try:
                described = versions.describe_offline(versions.head().id)
            except ValueError as error:
                raise ReportError(f"offline data set {name}: {error}") from None
            if not described.isfinite().all():
                raise ReportError(f"offline data set {name}: its counts or features are out of range")

    # -- looking in, and moving experience -----------------------------------------------------------------------------

    def counts(self) -> dict[str, int]:
        """How many versions, maps and offline data sets the state holds."""
        named = {
            "extractor versions": tables.Extractor,
            "ranker versions": tables.Ranker,
            "transformations": tables.Transformation,
            "offline data sets": tables.OfflineDataset,
        }
        with self.store.read() as session:
            return {name: session.scalar(select(func.count()).select_from(table)) for name, table in named.items()}

    def export(self) -> dict[str, Any]:
        """All closed tasks as a JSON document (`nni_hyperfd.exchange`)."""
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
                self._close(session, task)
                added += 1
        return added

    # -- inside a transaction ------------------------------------------------------------------------------------------

    def _plan(self, session: Session, task: tables.Task) -> None:
        """Plan what follows once every trial of the task has ended: the picks, the learn trial, or the task's end."""
        settings, space = TaskSettings(**task.settings), _space(task)
        left = settings.budget - sum(t.phase == FINE_TUNE for t in task.trials)
        known = {space.key(t.configuration) for t in task.trials if t.phase in (FINE_TUNE, IMPORT)}
        candidates = [c for c in self._candidates(task, space) if space.key(c) not in known]
        if left > 0 and candidates:
            picks = self._pick(session, task, space, candidates, left)
            task.trials += [Trial(phase=FINE_TUNE, **asdict(pick)) for pick in picks]
        elif task.meta_feature is not None and not any(t.phase == LEARN for t in task.trials):
            task.trials.append(Trial(phase=LEARN, configuration={}))
        else:
            self._close(session, task)
        session.flush()

    def _pick(
        self, session: Session, task: tables.Task, space: SearchSpace, candidates: list[Configuration], n: int
    ) -> list[Recommendation]:
        import torch

        from nni_hyperfd.ranker import selection

        ranked = self._rank(session, task, space, candidates).recommendations
        scores = torch.tensor([r.score for r in ranked])
        settings = TaskSettings(**task.settings)
        return [ranked[i] for i in selection.explore_exploit(scores, n, settings.exploration, settings.seed + task.id)]

    def _close(self, session: Session, task: tables.Task) -> None:
        task.closed = now()
        session.flush()
        self._train_ranker(session, task)

    def _rank(
        self, session: Session, task: tables.Task, space: SearchSpace, candidates: list[Configuration]
    ) -> Ranking:
        import torch

        from nni_hyperfd.ranker import ranker

        versions = Versions(self.store, session)
        encoder, extractor_id = versions.encoder(space)
        past = versions.meta_features(extractor_id, exclude=task.id)
        if task.meta_feature is not None:
            meta_feature = versions.transform(task.meta_feature, task.extractor_id, extractor_id)
        else:
            meta_feature = unknown_meta_feature(past)
        with torch.no_grad():
            scores = ranker.score(encoder(torch.from_numpy(space.encode(candidates))), meta_feature).numpy()
        # Candidates come in seeded random order and the sort is stable, so ties are broken at random.
        order = np.argsort(-scores, kind="stable")
        recommendations = [
            Recommendation(candidates[i], rank, float(scores[i])) for rank, i in enumerate(order, start=1)
        ]
        if task.meta_feature is None:
            return Ranking(recommendations, [])
        distances = {task_id: float(torch.linalg.vector_norm(h - meta_feature)) for task_id, h in past.items()}
        return Ranking(recommendations, sorted(distances.items(), key=lambda item: item[1]))

    def _candidates(self, task: tables.Task, space: SearchSpace) -> list[Configuration]:
        rng = np.random.default_rng([task.settings["seed"], task.id])
        return space.sample(task.settings["candidates"], rng)

    def _train_ranker(self, session: Session, task: tables.Task) -> None:
        """Train the configuration encoder on this task and all earlier ones, towards the newest extractor."""
        import torch

        from nni_hyperfd.ranker import learning
        from nni_hyperfd.ranker.settings import RankerSettings

        versions, space = Versions(self.store, session), _space(task)
        meta_features = versions.meta_features(versions.head().id)
        unknown = unknown_meta_feature(meta_features)
        experience = {}
        for other in session.scalars(
            select(tables.Task).where(
                tables.Task.space_signature == task.space_signature, tables.Task.closed.is_not(None)
            )
        ):
            configurations, performance = _experience(other)
            if configurations:
                experience[other.id] = learning.TaskExperience(
                    torch.from_numpy(space.encode(configurations)),
                    torch.tensor(performance),
                    meta_features.get(other.id, unknown),
                )
        if task.id not in experience:
            return
        current = experience.pop(task.id)
        encoder, _ = versions.encoder(space)
        seed = task.settings["seed"] + task.id
        encoder = learning.update_encoder(encoder, current, [*experience.values()], [], RankerSettings(), seed)
        versions.add_encoder(space, task.id, encoder)


def _keep_space(session: Session, space: SearchSpace) -> str:
    if session.get(tables.Space, space.signature) is None:
        record = tables.Space(signature=space.signature, kind=space.kind, definition=dict(space.definition))
        session.add(record)
        session.flush()
    return space.signature


def _trial(session: Session, task_id: int, parameter_id: int | None) -> Trial | None:
    """The trial that runs under NNI's parameter id; None (and a warning) for one that the platform did not plan."""
    trial = session.scalar(select(Trial).where(Trial.task_id == task_id, Trial.parameter_id == parameter_id))
    if trial is None:
        _logger.warning("Task %d has no trial with parameter id %s; what it reports is ignored.", task_id, parameter_id)
    return trial


def _space(task: tables.Task) -> SearchSpace:
    return SearchSpace.from_nni(task.space.definition, task.space.kind)


def _experience(task: tables.Task) -> tuple[list[Configuration], list[float]]:
    """Configurations and performances of a task's finished trials; the higher the better."""
    finished = [t for t in task.trials if t.phase in (FINE_TUNE, IMPORT) and t.status == "succeeded"]
    sign = 1.0 if task.settings["maximize"] else -1.0
    return [t.configuration for t in finished], [sign * t.performance for t in finished]
