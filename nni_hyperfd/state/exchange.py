"""Experience as a JSON document: what `hyperfd export` writes and `hyperfd import` reads. No weights, no images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nni_hyperfd.space.search_space import Configuration, SearchSpace, SpaceError
from nni_hyperfd.state.store import Task
from nni_hyperfd.task import FINE_TUNE, IMPORT, PRESETS, REPLAYS, SEEDS, TaskSettings
from nni_hyperfd.wire import META_FEATURE_LENGTH, Description, is_finite_number

FORMAT = "nni_hyperfd experience"
FORMAT_VERSION = 1


class DocumentError(ValueError):
    """The document is no exported experience, or a part of it is wrong; the message names the place."""


@dataclass(frozen=True)
class Result:
    """A finished trial: its phase, configuration and performance (None for a failed one)."""

    phase: str
    configuration: Configuration
    performance: float | None


@dataclass(frozen=True)
class ExportedTask:
    """A closed task. `extractor` is the sha256 of the weights that made `meta_feature`; None for the initial ones."""

    experiment: str
    space: SearchSpace
    settings: dict[str, Any]
    extractor: str | None
    description: dict[str, Any]
    results: list[Result]


def write(tasks: Iterable[tuple[Task, str | None]]) -> dict[str, Any]:
    """The document of tasks, each with the sha256 of its extractor."""
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "tasks": [
            {
                "experiment": task.experiment,
                "space": {"kind": task.space.kind, "definition": task.space.definition},
                "settings": task.settings,
                "extractor": extractor,
                "description": {name: getattr(task, name) for name in _DESCRIPTION},
                "results": [
                    {"phase": t.phase, "configuration": t.configuration, "performance": t.performance}
                    for t in task.trials
                    if t.phase in _RESULT_PHASES and t.status in ("succeeded", "failed")
                ],
            }
            for task, extractor in tasks
        ],
    }


def read(document: Any) -> list[ExportedTask]:
    """Check a document, which comes from outside.

    Raises:
        DocumentError: with the place in the document and the reason.
    """
    if not isinstance(document, Mapping) or document.get("format") != FORMAT:
        raise DocumentError("this is no experience that 'hyperfd export' wrote")
    if document.get("version") != FORMAT_VERSION:
        raise DocumentError(
            f"the experience has format {document.get('version')!r}, this nni_hyperfd reads {FORMAT_VERSION}; "
            "upgrade nni_hyperfd"
        )
    tasks = []
    if not isinstance(document.get("tasks"), list):
        raise DocumentError("tasks: a list was expected")
    for index, task in enumerate(document["tasks"]):
        try:
            tasks.append(_task(task))
        except (KeyError, TypeError, ValueError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else error
            raise DocumentError(f"tasks[{index}]: {reason}") from error
    return tasks


_DESCRIPTION = ("meta_feature", "num_images", "num_boxes", "baseline")
_RESULT_PHASES = (FINE_TUNE, IMPORT)


def _task(task: Mapping[str, Any]) -> ExportedTask:
    space = SearchSpace.from_nni(task["space"]["definition"], task["space"]["kind"])
    description = {name: task["description"][name] for name in _DESCRIPTION}
    if any(value is not None for value in description.values()):
        # The meta-feature alone may be missing: `Platform.import_` leaves out what it cannot use.
        placeholder = {"meta_feature": [0.0] * META_FEATURE_LENGTH} if description["meta_feature"] is None else {}
        if description["baseline"] is None and task["settings"].get("offline"):
            placeholder["baseline"] = 0.0  # nobody has measured it on the platform's own data sets
        Description.from_report(description | placeholder)
    settings = asdict(TaskSettings(**task["settings"]))
    for name, default in asdict(TaskSettings()).items():
        # A whole share may come as 1: not every JSON writer knows 1.0.
        if type(settings[name]) is not type(default) and not (name == "exploration" and settings[name] in (0, 1)):
            raise ValueError(f"settings: {name} cannot be {settings[name]!r}")
    if settings["seed"] not in SEEDS:
        raise ValueError(f"settings: seed {settings['seed']} is not within 0 and {SEEDS.stop - 1}")
    for name, known in (("preset", PRESETS), ("replay", REPLAYS)):
        if settings[name] not in known:
            raise ValueError(f"settings: {name} {settings[name]!r} is none of {', '.join(known)}")
    if not isinstance(task["extractor"], str | None):
        raise ValueError(f"extractor: {task['extractor']!r} is no sha256")
    results = []
    for index, result in enumerate(task["results"]):
        performance = result["performance"]
        if performance is not None and not is_finite_number(performance):
            raise ValueError(f"results[{index}]: {performance!r} is no finite number")
        if result["phase"] not in _RESULT_PHASES:
            raise ValueError(f"results[{index}]: {result['phase']!r} is no phase of a result")
        try:
            results.append(Result(result["phase"], space.canonical(result["configuration"]), performance))
        except SpaceError as error:
            raise ValueError(f"results[{index}]: {error}") from None
    return ExportedTask(str(task["experiment"]), space, settings, task["extractor"], description, results)
