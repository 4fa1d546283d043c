"""Experience as a JSON document: what `hyperfd export` writes and `hyperfd import` reads.

It holds tasks, results and weights, and the image features of the platform's own data sets but the private ones; no
images, and of clients nothing but what the state holds, without the updates that they let be used among others only.
Documents of version 1 had no weights. Those of version 2 had an extractor that no client describes its data by any
more, so their results alone are read.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from nni_hyperfd.space import Configuration, SearchSpace
from nni_hyperfd.state import experience
from nni_hyperfd.state.tables import BlobRow, EncoderRow, ExtractorRow, OfflineDatasetRow, SpaceRow
from nni_hyperfd.state.views import TaskView
from nni_hyperfd.task import RESULT_PHASES, Phase, Status, TaskSettings
from nni_hyperfd.wire import Description, is_finite_number

FORMAT = "nni_hyperfd experience"
FORMAT_VERSION = 3
_VERSIONS = (1, 2, FORMAT_VERSION)
_DESCRIPTION = ("meta_feature", "num_images", "num_boxes", "baseline")


class DocumentError(ValueError):
    """The document is no exported experience, or a part of it is wrong; the message names the place."""


@dataclass(frozen=True)
class ExportedResult:
    """A finished trial.

    Attributes:
        phase: one of `RESULT_PHASES`.
        configuration: what it tried.
        performance: what it brought; None for a failed one.
    """

    phase: Phase
    configuration: Configuration
    performance: float | None


@dataclass(frozen=True)
class ExportedTask:
    """A closed task.

    Attributes:
        experiment: the NNI experiment.
        space: its search space.
        settings: how it was searched.
        dataset: the platform's own data set that it stands for, or None.
        extractor: the version that made its meta-feature: a key of `Document.extractors`.
        description: what is known of its data set.
        results: its finished trials.
    """

    experiment: str
    space: SearchSpace
    settings: TaskSettings
    dataset: str | None
    extractor: str
    description: dict[str, Any]
    results: list[ExportedResult]


@dataclass(frozen=True)
class ExportedExtractor:
    """A version of the extractor.

    Attributes:
        parent: the version that it was made from, or None.
        head: whether it was the newest one.
        weights: sha256 of its weights, whether or not they are in `Document.blobs`; None for an initial one.
        importance: sha256 of its importances, or None.
        described: the meta-features of the platform's own data sets under it (safetensors), or None.
    """

    parent: str | None
    head: bool
    weights: str | None
    importance: str | None = None
    described: bytes | None = None


@dataclass(frozen=True)
class ExportedEncoder:
    """A space's newest encoder.

    Attributes:
        space: the search space.
        extractor: the version that it was trained towards.
        weights: sha256, in `Document.blobs`.
        experiment: the task that it learned from last.
    """

    space: SearchSpace
    extractor: str
    weights: str
    experiment: str


@dataclass(frozen=True)
class Document:
    """Everything that a document holds, checked.

    Attributes:
        tasks: in order of arrival.
        extractors: by a name that holds within the document, parents before their children.
        encoders: one for each space that has one.
        offline: name of a data set -> sha256 of its features, in `blobs`.
        blobs: sha256 -> content.
    """

    tasks: list[ExportedTask]
    extractors: dict[str, ExportedExtractor]
    encoders: list[ExportedEncoder]
    offline: dict[str, str]
    blobs: dict[str, bytes]


# -- writing -----------------------------------------------------------------------------------------------------------


def write(session: Session) -> dict[str, Any]:
    """The document of a state: all closed tasks, and what was learned."""
    closed = [task for task in experience.tasks(session) if task.closed is not None]
    newest: dict[str, EncoderRow] = {}
    for row in session.scalars(select(EncoderRow).order_by(EncoderRow.id)):
        newest[row.space_signature] = row
    by_id = {task.id: task for task in closed}
    kept_back = _kept_back(session)
    offline = select(OfflineDatasetRow).where(OfflineDatasetRow.private.is_not(True))
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "tasks": [_task_json(task) for task in closed],
        "extractors": {
            str(row.id): _extractor_json(row) for row in session.scalars(select(ExtractorRow).order_by(ExtractorRow.id))
        },
        "encoders": [
            {
                "space": _space_json(session.get_one(SpaceRow, row.space_signature)),
                "extractor": str(row.extractor_id),
                "weights": row.weights,
                "experiment": by_id[row.task_id].experiment,
            }
            for row in newest.values()
        ],
        "offline": {row.name: row.features for row in session.scalars(offline)},
        "blobs": {
            row.sha256: _to_text(row.data) for row in session.scalars(select(BlobRow)) if row.sha256 not in kept_back
        },
    }


def _kept_back(session: Session) -> set[str | None]:
    """The blobs that nobody else may have: single owners' updates, and private data sets of the platform's own."""
    waiting = select(ExtractorRow.weights, ExtractorRow.importance).where(ExtractorRow.among.is_not(None))
    kept = {digest for row in session.execute(waiting) for digest in row}
    return kept | set(session.scalars(select(OfflineDatasetRow.features).where(OfflineDatasetRow.private.is_(True))))


def _task_json(task: TaskView) -> dict[str, Any]:
    finished = [t for t in task.trials if t.tries and t.status in (Status.SUCCEEDED, Status.FAILED)]
    return {
        "experiment": task.experiment,
        "space": _space_json(task.space),
        "settings": task.settings.to_json(),
        "dataset": task.dataset,
        "extractor": str(task.extractor_id),
        "description": {
            "meta_feature": None if task.meta_feature is None else list(task.meta_feature),
            "num_images": task.num_images,
            "num_boxes": task.num_boxes,
            "baseline": task.baseline,
        },
        "results": [
            {"phase": str(t.phase), "configuration": t.configuration, "performance": t.performance} for t in finished
        ],
    }


def _extractor_json(row: ExtractorRow) -> dict[str, Any]:
    return {
        "parent": None if row.parent_id is None else str(row.parent_id),
        "head": row.head,
        "weights": row.weights,
        "importance": row.importance,
        "described": None if row.described is None else _to_text(row.described),
    }


def _space_json(space: SearchSpace | SpaceRow) -> dict[str, Any]:
    return {"kind": space.kind, "definition": dict(space.definition)}


def _to_text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


# -- reading -----------------------------------------------------------------------------------------------------------


def read(document: Any) -> Document:
    """Check a document, which comes from outside.

    Raises:
        DocumentError: with the place in the document and the reason.
    """
    if not isinstance(document, Mapping) or document.get("format") != FORMAT:
        raise DocumentError("this is no experience that 'hyperfd export' wrote")
    version = document.get("version")
    if version not in _VERSIONS:
        raise DocumentError(
            f"the experience has format {version!r}, this nni_hyperfd reads 1 to {FORMAT_VERSION}; upgrade nni_hyperfd"
        )
    read_task = {1: _first_task, 2: _second_task}.get(version, _task)
    tasks = []
    for index, task in enumerate(_list(document, "tasks")):
        with place(f"tasks[{index}]"):
            tasks.append(read_task(task))
    if version == FORMAT_VERSION:
        return _with_weights(document, tasks)
    return Document(tasks, _named_extractors(tasks), [], {}, {})


def _with_weights(document: Mapping[str, Any], tasks: list[ExportedTask]) -> Document:
    blobs: dict[str, bytes] = {}
    extractors: dict[str, ExportedExtractor] = {}
    encoders: list[ExportedEncoder] = []
    with place("blobs"):
        for digest, text in document["blobs"].items():
            blobs[digest] = _from_text(text)
            if hashlib.sha256(blobs[digest]).hexdigest() != digest:
                raise ValueError(f"{digest[:12]} is damaged (its content has another sha256)")
    for name, extractor in _items(document, "extractors"):
        with place(f"extractors[{name}]"):
            extractors[name] = _extractor(extractor, extractors, blobs)
    if sum(extractor.head for extractor in extractors.values()) > 1:
        raise DocumentError("extractors: only one of them can be the newest")
    for index, task in enumerate(tasks):
        with place(f"tasks[{index}]"):
            _check_extractor(task.extractor, extractors)
    with place("offline"):
        offline = {str(name): digest for name, digest in document["offline"].items()}
        if missing := [name for name, digest in offline.items() if digest not in blobs]:
            raise ValueError(f"the features of {missing[0]} are not among the blobs")
    experiments = {task.experiment for task in tasks}
    for index, encoder in enumerate(_list(document, "encoders")):
        with place(f"encoders[{index}]"):
            encoders.append(_encoder(encoder, blobs, experiments))
            _check_extractor(encoders[-1].extractor, extractors)
    return Document(tasks, extractors, encoders, offline, blobs)


def _extractor(
    extractor: Mapping[str, Any], earlier: Mapping[str, ExportedExtractor], blobs: Mapping[str, bytes]
) -> ExportedExtractor:
    parent, head, described = extractor["parent"], extractor["head"], extractor["described"]
    weights, importance = (_digest(extractor[name]) for name in ("weights", "importance"))
    if parent is not None and parent not in earlier:
        raise ValueError(f"its parent {parent!r} does not come before it")
    if not isinstance(head, bool):
        raise ValueError(f"head cannot be {head!r}")
    if head and any(digest is not None and digest not in blobs for digest in (weights, importance)):
        raise ValueError("it is the newest one, and its weights are not among the blobs")
    return ExportedExtractor(parent, head, weights, importance, None if described is None else _from_text(described))


def _check_extractor(name: str, extractors: Mapping[str, ExportedExtractor]) -> None:
    if name not in extractors:
        raise ValueError(f"extractor: {name!r} is none of the document's")


def _encoder(encoder: Mapping[str, Any], blobs: Mapping[str, bytes], experiments: set[str]) -> ExportedEncoder:
    if encoder["weights"] not in blobs:
        raise ValueError("its weights are not among the blobs")
    if encoder["experiment"] not in experiments:
        raise ValueError(f"its task {encoder['experiment']!r} is none of the document's")
    space, extractor = _space(encoder["space"]), str(encoder["extractor"])
    return ExportedEncoder(space, extractor, encoder["weights"], encoder["experiment"])


def _task(task: Mapping[str, Any]) -> ExportedTask:
    space, dataset = _space(task["space"]), task["dataset"]
    if not isinstance(dataset, str | None):
        raise ValueError(f"dataset: {dataset!r} is no name")
    return ExportedTask(
        str(task["experiment"]),
        space,
        TaskSettings.from_json(task["settings"]),
        dataset,
        str(task["extractor"]),
        _description(task["description"], measured=dataset is None),
        _results(task["results"], space),
    )


def _first_task(task: Mapping[str, Any]) -> ExportedTask:
    """A task of a document of version 1, whose settings said whether it is one of the platform's own data sets."""
    settings = dict(task["settings"])
    own = settings.pop("offline", False)
    if not isinstance(own, bool):
        raise ValueError(f"offline: {own!r} is neither true nor false")
    if isinstance(settings.get("budget"), int) and own:
        settings["candidates"] = max(settings.get("candidates", 0), settings["budget"])
    if not isinstance(task["extractor"], str | None):
        raise ValueError(f"extractor: {task['extractor']!r} is no sha256")
    current = {"settings": settings, "dataset": str(task["experiment"]) if own else None}
    return _task({**task, **current, "extractor": task["extractor"] or ""})


def _second_task(task: Mapping[str, Any]) -> ExportedTask:
    """A task of a document of version 2, whose extractors are not read."""
    return _task({**task, "extractor": ""})


def _named_extractors(tasks: list[ExportedTask]) -> dict[str, ExportedExtractor]:
    """The versions that tasks of earlier documents name by the sha256 of their weights."""
    return {task.extractor: ExportedExtractor(None, False, task.extractor or None) for task in tasks}


def _space(space: Mapping[str, Any]) -> SearchSpace:
    return SearchSpace.from_nni(space["definition"], space["kind"])


def _description(given: Mapping[str, Any], measured: bool) -> dict[str, Any]:
    description = {name: given[name] for name in _DESCRIPTION}
    if any(value is not None for value in description.values()):
        # Nobody measures the AP before fine-tuning on the platform's own data sets.
        unmeasured = description["baseline"] is None and not measured
        checked = Description(**description | ({"baseline": 0.0} if unmeasured else {}))
        if checked.meta_feature is not None:
            description["meta_feature"] = list(checked.meta_feature)
    return description


def _results(given: Any, space: SearchSpace) -> list[ExportedResult]:
    results = []
    for index, result in enumerate(given):
        with place(f"results[{index}]", ValueError):
            performance = result["performance"]
            if performance is not None and not is_finite_number(performance):
                raise ValueError(f"{performance!r} is no finite number")
            if result["phase"] not in RESULT_PHASES:
                raise ValueError(f"{result['phase']!r} is no phase of a result")
            canonical = space.canonical(result["configuration"])
            results.append(ExportedResult(Phase(result["phase"]), canonical, performance))
    return results


def _list(document: Mapping[str, Any], name: str) -> list[Any]:
    if not isinstance(document.get(name), list):
        raise DocumentError(f"{name}: a list was expected")
    return list(document[name])


def _items(document: Mapping[str, Any], name: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(document.get(name), Mapping):
        raise DocumentError(f"{name}: a JSON object was expected")
    yield from document[name].items()


def _digest(value: Any) -> str | None:
    if not isinstance(value, str | None):
        raise ValueError(f"{value!r} is no sha256")
    return value


def _from_text(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError) as error:
        raise ValueError(f"it is no base64 text: {error}") from None


@contextmanager
def place(name: str, kind: type[ValueError] = DocumentError) -> Iterator[None]:
    """Let errors name the place in the document."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise kind(f"{name}: {reason}") from error
