"""The platform: what all experiments share. The only writer of state; knows nothing of NNI, mmdet or files.

A task goes through three phases, one trial row each: ``extract`` (the data owner's side makes the meta-feature),
``fine-tune`` (one per pick of the budget) and ``learn`` (the data owner's side updates the extractor). Where a task
stands is read from its rows alone, so a platform that was killed goes on where its state says.

torch is imported by the methods that rank or learn, not by this module.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from nni_hyperfd import exchange
from nni_hyperfd import store as tables
from nni_hyperfd.space import Configuration, SearchSpace, SpaceError
from nni_hyperfd.store import Store, Trial, _now

if TYPE_CHECKING:
    from torch import Tensor

_logger = logging.getLogger(__name__)

EXTRACT, FINE_TUNE, LEARN, IMPORT = "extract", "fine-tune", "learn", "import"
META_FEATURE_LENGTH = 64
SEEDS = range(2**32)  # what every random generator in use takes
_META_FEATURE_NORM = 1e4  # far above any trained extractor's output; stops a client from swamping the ranker
_LARGEST_WEIGHT = 1e4  # likewise: trained weights stay around 1, importances below it
_LARGEST_NUMBER = 1e38  # the difference of two still fits into float32
_OFFLINE_SETS, _OFFLINE_IMAGES = 8, 16  # what a learn job is given of D_off: about 0.4 MB


class ReportError(ValueError):
    """What a trial reported is refused; the message names the field."""


@dataclass(frozen=True)
class TaskSettings:
    """How one task is searched. Checked by `HyperFDTuner`, kept with the task."""

    budget: int = 4
    candidates: int = 200
    exploration: float = 0.5
    seed: int = 0
    maximize: bool = True
    service: bool = True
    """Whether `extract` and `learn` trials are asked for (a plain NNI tuner cannot hear their answers)."""


@dataclass(frozen=True)
class Description:
    """What an `extract` trial tells of its data set: all that ever leaves it before fine-tuning.

    Attributes:
        meta_feature: 64 finite numbers.
        num_images, num_boxes: of the training split.
        baseline: AP@50 of the pretrained detector before fine-tuning, in [0, 1].
    """

    meta_feature: list[float]
    num_images: int
    num_boxes: int
    baseline: float

    @classmethod
    def from_report(cls, report: Any) -> Description:
        """Check a report, which is untrusted.

        Raises:
            ReportError: a field is missing, of the wrong shape, not finite, or out of range.
        """
        if not isinstance(report, Mapping):
            raise ReportError("the report of the extract trial is no JSON object")
        if missing := {"meta_feature", "num_images", "num_boxes", "baseline"} - set(report):
            raise ReportError(f"the report of the extract trial lacks {', '.join(sorted(missing))}")
        meta_feature = check_meta_feature(report["meta_feature"])
        for name in ("num_images", "num_boxes"):
            count = report[name]
            if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count < 2**53:
                raise ReportError(f"{name}: {count!r} is no count")
        baseline = report["baseline"]
        if not is_finite_number(baseline) or not 0 <= baseline <= 1:
            raise ReportError(f"baseline: {baseline!r} is no AP between 0 and 1")
        return cls(meta_feature, report["num_images"], report["num_boxes"], float(baseline))


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


def check_meta_feature(values: Any) -> list[float]:
    """The meta-feature as a list of floats; `ReportError` if it is none."""
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != META_FEATURE_LENGTH:
        raise ReportError(f"meta_feature: a list of {META_FEATURE_LENGTH} numbers was expected")
    if not all(map(is_finite_number, values)):
        raise ReportError("meta_feature: every entry must be a finite number")
    meta_feature = [float(v) for v in values]
    if math.hypot(*meta_feature) > _META_FEATURE_NORM:
        raise ReportError(f"meta_feature: its length exceeds {_META_FEATURE_NORM:g}")
    return meta_feature


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
                extractor_id=_head(session).id,
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
        """Note that a planned trial was handed out under NNI's parameter id."""
        with self.store.write() as session:
            trial = session.get_one(Trial, trial_id)
            trial.status, trial.parameter_id, trial.started = "running", parameter_id, _now()

    def describe(self, task_id: int, parameter_id: int, description: Description) -> None:
        """Keep what the extract trial found out, which ends that phase."""
        with self.store.write() as session:
            trial = _trial(session, task_id, parameter_id)
            if trial is None or trial.phase != EXTRACT or trial.status == "succeeded":
                return
            task = trial.task
            for name, value in asdict(description).items():
                setattr(task, name, value)
            trial.status, trial.performance, trial.ended = "succeeded", description.baseline, _now()

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
            trial.performance, trial.reason, trial.ended = performance, reason, _now()

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
            trial.status, trial.performance, trial.ended = "succeeded", float(performance), _now()

    def release(self, task_id: int, still_running: set[int]) -> None:
        """After a resume: every trial that NNI does not run again is planned anew."""
        with self.store.write() as session:
            for trial in session.get_one(tables.Task, task_id).trials:
                if trial.status == "running" and trial.parameter_id not in still_running:
                    trial.status, trial.started = "planned", None

    def close_task(self, task_id: int, update: Mapping[str, Tensor] | None = None, meta_feature: Any = None) -> None:
        """Learn from the task and commit new versions of extractor and ranker, all in one transaction.

        Args:
            update: ``extractor.*`` and ``importance.*`` tensors from the learn trial, untrusted; None without one.
            meta_feature: the data set's 64 numbers under the updated extractor, untrusted.

        Raises:
            ReportError: the update is refused. Nothing has changed then; call again without it.
        """
        with self.store.write() as session:
            task = session.get_one(tables.Task, task_id)
            if task.closed is not None:
                return
            if update is not None:
                task.meta_feature = check_meta_feature(meta_feature)
                task.extractor_id = self._add_extractor(session, task, update).id
            for trial in task.trials:
                if trial.phase == LEARN and trial.status == "running":
                    trial.status, trial.ended = "succeeded", _now()
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
            task = session.get_one(tables.Task, task_id)
            space = _space(task)
            extractor = session.get_one(tables.Extractor, task.extractor_id)
            tensors: dict[str, Tensor] = {}
            for prefix, digest in (("extractor", extractor.weights), ("importance", extractor.importance)):
                if digest is not None:
                    tensors |= {f"{prefix}.{k}": v for k, v in weights.loads(self.store.get(session, digest)).items()}
            configurations, performance = _experience(task)
            encoder, _ = self._encoder(session, space)
            with torch.no_grad():
                tensors["embeddings"] = encoder(torch.from_numpy(space.encode(configurations)))
            tensors["performance"] = torch.tensor(performance, dtype=torch.float32)
            rng = np.random.default_rng([task.settings["seed"], task.id])
            offline = self._offline(session)
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
                extractor_id=past.extractor_id if past else _head(session).id,
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
            for other, _ in self._offline(session):
                if other.shape[-1] != images.shape[-1]:
                    raise ReportError(
                        f"offline data set {name}: its features have {images.shape[-1]} entries, the ones in the state "
                        f"have {other.shape[-1]}; extract them with the same detector, or use another state"
                    )
            session.merge(tables.OfflineDataset(name=name, features=self.store.put(session, data)))

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
            head = _head(session)
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
                    task.trials.append(Trial(status=outcome, ended=_now(), **asdict(result)))
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
        task.closed = _now()
        session.flush()
        self._train_ranker(session, task)

    def _rank(
        self, session: Session, task: tables.Task, space: SearchSpace, candidates: list[Configuration]
    ) -> Ranking:
        import torch

        from nni_hyperfd.ranker import ranker

        encoder, extractor_id = self._encoder(session, space)
        past = self._meta_features(session, extractor_id, exclude=task.id)
        if task.meta_feature is not None:
            meta_feature = self._transform(session, task.meta_feature, task.extractor_id, extractor_id)
        else:
            meta_feature = _unknown(past)
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

    def _encoder(self, session: Session, space: SearchSpace) -> tuple[Any, int]:
        """The space's newest configuration encoder and the extractor version it was trained towards."""
        from nni_hyperfd.ranker import config_encoder, weights

        encoder = config_encoder.MLPEncoder.initial(space.dim, seed=0)
        newest = session.scalar(
            select(tables.Ranker)
            .where(tables.Ranker.space_signature == space.signature)
            .order_by(tables.Ranker.id.desc())
            .limit(1)
        )
        if newest is None:
            return encoder, _head(session).id
        encoder.load_state_dict(weights.loads(self.store.get(session, newest.weights)))
        return encoder, newest.extractor_id

    def _train_ranker(self, session: Session, task: tables.Task) -> None:
        """Train the configuration encoder on this task and all earlier ones, towards the newest extractor."""
        import torch

        from nni_hyperfd.ranker import learning, settings, weights

        space, head = _space(task), _head(session)
        past = {}
        for other in session.scalars(select(tables.Task).where(tables.Task.space_signature == space.signature)):
            configurations, performance = _experience(other)
            if (other.closed is not None or other is task) and len(configurations) >= 2:
                past[other] = (torch.from_numpy(space.encode(configurations)), torch.tensor(performance))
        meta_features = self._meta_features(session, head.id)
        if task not in past:
            return
        unknown = _unknown(meta_features)
        experience = {
            other: learning.TaskExperience(inputs, performance, meta_features.get(other.id, unknown))
            for other, (inputs, performance) in past.items()
        }
        encoder, _ = self._encoder(session, space)
        current = experience.pop(task)
        seed = task.settings["seed"] + task.id
        encoder = learning.update_encoder(
            encoder, current, list(experience.values()), [], settings.RankerSettings(), seed
        )
        digest = self.store.put(session, weights.dumps(encoder.state_dict()))
        session.add(
            tables.Ranker(space_signature=space.signature, task_id=task.id, extractor_id=head.id, weights=digest)
        )

    def _add_extractor(self, session: Session, task: tables.Task, update: Mapping[str, Tensor]) -> tables.Extractor:
        """Check a client's update and keep it as a version. It becomes the newest one if it was made from that;
        where another task was faster, it serves its own task's meta-feature only."""
        from nni_hyperfd.ranker import weights

        parts = {
            prefix: {name.removeprefix(f"{prefix}."): t for name, t in update.items() if name.startswith(f"{prefix}.")}
            for prefix in ("extractor", "importance")
        }
        parent = session.get_one(tables.Extractor, task.extractor_id)
        head = _head(session)
        try:
            template = self._load_extractor(session, head, parts["extractor"]).state_dict()
            weights.check_like(parts["extractor"], template, "extractor update")
            weights.check_like(parts["importance"], template, "extractor importance")
        except weights.WeightsError as error:
            raise ReportError(str(error)) from None
        if len(template["image.bias"]) != META_FEATURE_LENGTH:
            raise ReportError(f"extractor update: its meta-features do not have {META_FEATURE_LENGTH} numbers")
        if any(float(tensor.abs().max()) > _LARGEST_WEIGHT for tensor in update.values()):
            raise ReportError(f"extractor update: it holds numbers beyond {_LARGEST_WEIGHT:g}")
        if any(bool((t < 0).any()) for t in parts["importance"].values()):
            raise ReportError("extractor importance: it holds negative numbers")
        extractor = tables.Extractor(
            parent_id=parent.id,
            head=parent is head,
            weights=self.store.put(session, weights.dumps(parts["extractor"])),
            importance=self.store.put(session, weights.dumps(parts["importance"])),
        )
        if parent is head:
            head.head = False
        else:
            _logger.warning(
                "Task %d: another experiment has updated the extractor meanwhile; this update is kept for the "
                "task's own meta-feature and does not become the newest version.", task.id,
            )  # fmt: skip
        session.add(extractor)
        session.flush()
        return extractor

    def _meta_features(self, session: Session, target_id: int, exclude: int | None = None) -> dict[int, Tensor]:
        """Task id -> its stored meta-feature, transformed to the extractor version `target_id` (equation 5)."""
        tasks = session.scalars(select(tables.Task).where(tables.Task.closed.is_not(None)).order_by(tables.Task.id))
        return {
            task.id: self._transform(session, task.meta_feature, task.extractor_id, target_id)
            for task in tasks
            if task.meta_feature is not None and task.id != exclude
        }

    def _transform(self, session: Session, meta_feature: list[float], source_id: int, target_id: int) -> Tensor:
        import torch

        h = torch.tensor(meta_feature)
        if source_id == target_id:
            return h
        return self._transformation(session, source_id, target_id) @ h

    def _transformation(self, session: Session, source_id: int, target_id: int) -> Tensor:
        """W of equation 4, fitted on the server's own data sets on first use and kept."""
        from nni_hyperfd.ranker import transform, weights

        kept = session.get(tables.Transformation, (source_id, target_id))
        if kept is not None:
            return weights.loads(self.store.get(session, kept.weights))["W"]
        offline = self._offline(session)
        source, target = (self._describe_offline(session, offline, version) for version in (source_id, target_id))
        matrix = transform.fit_transform(source, target)
        digest = self.store.put(session, weights.dumps({"W": matrix}))
        session.add(tables.Transformation(source_id=source_id, target_id=target_id, weights=digest))
        session.flush()
        return matrix

    def _describe_offline(self, session: Session, offline: list[tuple[Tensor, Tensor]], version: int) -> Tensor:
        """Meta-features (m, 64) of the offline data sets under an extractor version."""
        import torch

        if not offline:
            return torch.zeros(0, META_FEATURE_LENGTH)
        extractor = self._load_extractor(session, session.get_one(tables.Extractor, version))
        with torch.no_grad():
            return torch.stack([extractor(features, counts) for features, counts in offline])

    def _load_extractor(self, session: Session, extractor: tables.Extractor, like: Mapping[str, Tensor] | None = None):
        """A version as a module. The initial one takes its input width from the offline data, else from `like`."""
        from nni_hyperfd.ranker import meta_feature, weights

        if extractor.weights is not None:
            return meta_feature.MetaFeatureExtractor.from_weights(
                weights.loads(self.store.get(session, extractor.weights))
            )
        offline = self._offline(session)
        if offline:
            return meta_feature.MetaFeatureExtractor.initial(offline[0][0].shape[-1], seed=0)
        return meta_feature.MetaFeatureExtractor.from_weights(like or {})

    def _offline(self, session: Session) -> list[tuple[Tensor, Tensor]]:
        """Image features (n, 3, 3, D) and counts (2,) of the server's own data sets."""
        from nni_hyperfd.ranker import features, weights

        records = session.scalars(select(tables.OfflineDataset).order_by(tables.OfflineDataset.name))
        return [features.unpack(weights.loads(self.store.get(session, record.features))) for record in records]


def _head(session: Session) -> tables.Extractor:
    """The newest extractor version; the initial one is made on first use."""
    head = session.scalar(select(tables.Extractor).where(tables.Extractor.head))
    if head is None:
        head = tables.Extractor(head=True)
        session.add(head)
        session.flush()
    return head


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


def _unknown(past: Mapping[int, Tensor]) -> Tensor:
    """What stands for a data set without meta-feature: the mean of the known ones, else one fixed direction, so that
    the score is the same for all such data sets and still learns which configurations are good in general."""
    import torch

    if past:
        return torch.stack(list(past.values())).mean(0)
    return torch.full((META_FEATURE_LENGTH,), META_FEATURE_LENGTH**-0.5)


def _space(task: tables.Task) -> SearchSpace:
    return SearchSpace.from_nni(task.space.definition, task.space.kind)


def _experience(task: tables.Task) -> tuple[list[Configuration], list[float]]:
    """Configurations and performances of a task's finished trials; the higher the better."""
    finished = [t for t in task.trials if t.phase in (FINE_TUNE, IMPORT) and t.status == "succeeded"]
    sign = 1.0 if task.settings["maximize"] else -1.0
    return [t.configuration for t in finished], [sign * t.performance for t in finished]


def is_finite_number(value: Any) -> bool:
    """Whether this is a number that the ranker can work with, in float32: no NaN, nothing beyond +-1e38."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _LARGEST_NUMBER
