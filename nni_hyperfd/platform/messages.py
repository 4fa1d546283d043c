"""What a platform's server and its clients send each other: JSON objects that mirror the views.

Both ends use these models, so that they check alike and the OpenAPI description has their names. Jobs and answers of
trials are packed by `nni_hyperfd.wire`; they are JSON objects here.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from nni_hyperfd.platform import forgetting
from nni_hyperfd.space import SearchSpace
from nni_hyperfd.state.views import TaskView, TrialView
from nni_hyperfd.task import Phase, Status, TaskSettings

Id = Annotated[int, Field(strict=True, ge=1, lt=2**63)]
"""Of a task or trial."""
ParameterId = Annotated[int, Field(strict=True, ge=0, lt=2**53)]
"""NNI's name for a trial."""
_LARGEST, _DEEPEST = 1e38, 50
Number = Annotated[float, Field(ge=-_LARGEST, le=_LARGEST)]
"""A number that the ranker can work with in float32."""
Plain = Annotated[dict[str, Any], AfterValidator(lambda value: _plain(value))]
"""A JSON object of the usual size: every number within float32 or, if whole, exact in float64; no text that is none."""
_Time = Annotated[
    datetime,
    BeforeValidator(lambda time: _from_wire(time)),
    PlainSerializer(lambda time: time.replace(tzinfo=timezone.utc).isoformat()),
]
"""A time, with its zone on the wire and in UTC without one in the views, as the state has it."""


class Message(BaseModel):
    """Of all messages: fields that are not known are refused, and so are NaN and infinity."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class SpaceMessage(Message):
    """A search space."""

    kind: str
    definition: Plain

    @classmethod
    def of(cls, space: SearchSpace) -> SpaceMessage:
        """The message that stands for a space."""
        return cls(kind=space.kind, definition=dict(space.definition))

    def space(self) -> SearchSpace:
        """The space, checked.

        Raises:
            SpaceError: it is malformed.
        """
        return SearchSpace.from_nni(self.definition, self.kind)


class TrialMessage(Message):
    """A `TrialView`."""

    id: Id
    parameter_id: ParameterId | None
    phase: Phase
    status: Status
    configuration: dict[str, Any]
    rank: int | None
    score: float | None
    performance: float | None
    reason: str | None
    started: _Time | None
    ended: _Time | None
    is_result: bool

    @classmethod
    def of(cls, view: TrialView) -> TrialMessage:
        """The message that stands for a view."""
        return cls(**{name: getattr(view, name) for name in cls.model_fields})

    def view(self) -> TrialView:
        """The view."""
        return TrialView(**{name: getattr(self, name) for name in type(self).model_fields})


class TaskMessage(Message):
    """A `TaskView`."""

    id: Id
    experiment: str
    space: SpaceMessage
    settings: dict[str, Any]
    dataset: str | None
    extractor_id: int
    meta_feature: tuple[float, ...] | None
    num_images: int | None
    num_boxes: int | None
    baseline: float | None
    created: _Time
    closed: _Time | None
    trials: tuple[TrialMessage, ...]
    among: int | None
    share: bool | None

    @classmethod
    def of(cls, view: TaskView) -> TaskMessage:
        """The message that stands for a view."""
        plain = {name: getattr(view, name) for name in cls.model_fields}
        return cls(
            **plain
            | {
                "space": SpaceMessage.of(view.space),
                "settings": view.settings.to_json(),
                "trials": tuple(map(TrialMessage.of, view.trials)),
            }
        )

    def view(self) -> TaskView:
        """The view."""
        plain = {name: getattr(self, name) for name in type(self).model_fields}
        return TaskView(
            **plain
            | {
                "space": self.space.space(),
                "settings": TaskSettings.from_json(self.settings),
                "trials": tuple(trial.view() for trial in self.trials),
            }
        )


class OpenTask(Message):
    """Asks to begin the task of an experiment, or to go on with it."""

    experiment: Annotated[str, Field(min_length=1, max_length=200, pattern="^[^\\x00]+$")]
    space: SpaceMessage
    settings: Plain


class OpenedTask(Message):
    """The id of a task."""

    id: Id


class NextTrial(Message):
    """The next trial, if there is one to run now."""

    trial: TrialMessage | None


class Start(Message):
    """Says under which parameter id a trial was handed out."""

    parameter_id: ParameterId


class Pick(Message):
    """A configuration that the client has picked, with its place in the ranking that it had."""

    configuration: dict[str, Any]
    rank: Annotated[int, Field(ge=1, lt=2**53)] | None = None


class Recommended(Message):
    """A configuration that was not tried, with its place in a ranking, and its score."""

    configuration: dict[str, Any]
    rank: Annotated[int, Field(ge=1, lt=2**53)]
    score: Number


class RankingMessage(Message):
    """The best untried candidates, from the best one."""

    recommended: list[Recommended]


class JobMessage(Message):
    """What a service trial is to do; its `tensors` are replaced by a body of safetensors, named by their `sha256`."""

    job: dict[str, Any] | None


class Described(Message):
    """A packed `wire.Description`."""

    description: dict[str, Any]


class Result(Message):
    """What a trial brought; None for a failed one."""

    performance: Number | None
    reason: Annotated[str, Field(max_length=2000), AfterValidator(lambda text: text.replace("\0", " "))] | None = None


class Experience(Message):
    """A result that comes with its configuration."""

    configuration: Plain
    performance: Number
    phase: Phase


class Release(Message):
    """Trial id and parameter id of each trial that does not run any more."""

    gone: Annotated[list[tuple[Id, ParameterId | None]], Field(max_length=100_000)]


class Close(Message):
    """A packed `wire.ExtractorUpdate`, or None."""

    update: dict[str, Any] | None = None


class Forgotten(Message):
    """Whether a task was removed."""

    removed: bool


class Deleted(Message):
    """What was deleted, and what is left of it (`platform.forgetting.Deleted`)."""

    tasks: list[int]
    extractors: list[int]
    newest: bool
    said: list[str]

    @classmethod
    def of(cls, deleted: forgetting.Deleted) -> Deleted:
        """The message that stands for it."""
        extractors = list(deleted.extractors)
        return cls(tasks=list(deleted.task_ids), extractors=extractors, newest=deleted.newest, said=deleted.sentences())


class Problem(BaseModel):
    """Why a request was refused (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str


def _plain(value: Any, depth: int = 0) -> Any:
    """A JSON value that any database and any ranker can take."""
    if depth > _DEEPEST:
        raise ValueError(f"it is nested more than {_DEEPEST} deep")
    if isinstance(value, str):
        value.encode()  # raises for halves of characters
    elif isinstance(value, dict):
        for name, entry in value.items():
            name.encode()
            _plain(entry, depth + 1)
    elif isinstance(value, list):
        for entry in value:
            _plain(entry, depth + 1)
    elif isinstance(value, float):
        if not abs(value) <= _LARGEST:
            raise ValueError(f"{value} is not finite, or too large")
    elif isinstance(value, int) and abs(value) >= 2**53:
        raise ValueError("a whole number is too large")
    return value


def _from_wire(time: Any) -> Any:
    if isinstance(time, str):
        time = datetime.fromisoformat(time.replace("Z", "+00:00"))
    if isinstance(time, datetime) and time.tzinfo is not None:
        time = time.astimezone(timezone.utc).replace(tzinfo=None)
    return time
