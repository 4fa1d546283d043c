"""The protocol between trial and platform: two jobs, their two answers, and what NNI calls a metric.

A job travels beside the parameters of a trial, an answer inside an intermediate result. Both are JSON objects that name
the version of this protocol. Packing and unpacking are here and nowhere else, so both ends check alike; everything
unpacked comes from outside and is untrusted. torch is imported by the methods that handle tensors, not by this module.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from nni_hyperfd.task import RESULT_PHASES, SEEDS, Phase

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 2
"""Of the protocol. A message of another version is refused, with both versions in the error."""

META_FEATURE_LENGTH = 64
META_FEATURE_NORM = 1e4
"""Longest meta-feature that is accepted: far above any trained extractor's output."""
_LARGEST_WEIGHT = 1e4  # trained weights stay around 1, importances below it
_LARGEST_NUMBER = 1e38  # the difference of two still fits into float32
_LARGEST_COUNT = 2**53
_MOST_TENSORS = 1024
_MOST_VERSIONS = 10_000
_SHA256 = re.compile("[0-9a-f]{64}")

_JOB = "hyperfd"  # beside the parameters of a trial
_ANSWER = "hyperfd"  # in an intermediate result
_PHASE = "phase"  # among the parameters and in the final result of a service trial, for NNI's web UI
_METRIC = "default"  # in an intermediate or final result: NNI's name for the number it shows

WITHHELD = {
    "few": "it has fewer images than its owner's minimum",
    "spent": "its owner's privacy budget is spent",
    "unknown": "its owner has no projection for this extractor",
}
"""Reasons for which a data set is not described, as `privacy.release.Withheld` has them, and what they mean."""

WITHOUT_PLATFORM = f"{Phase.FINE_TUNE}, platform away"
"""Stands for the phase of a trial that was picked from an earlier ranking, where NNI's web UI shows it."""

RESERVED_PARAMETERS = frozenset({_PHASE})
"""Names that a search space must not use."""


class WireError(ValueError):
    """A message is refused; the error names the field, or both versions of the protocol."""


@dataclass(frozen=True, eq=False)
class ExtractJob:
    """Asks a trial to describe its data set.

    Attributes:
        extractor: the extractor's weights by name, float32; empty for the initial extractor.
        may_start_anew: whether a trial whose detector has another width than the extractor may use the initial one.
        versions: sha256 of the weights of all versions whose meta-features the platform can carry over (eq. 4).
    """

    phase: ClassVar[Phase] = Phase.EXTRACT

    extractor: Mapping[str, Tensor]
    may_start_anew: bool = False
    versions: Sequence[str] = ()

    def __post_init__(self) -> None:
        _check_weights("extractor", self.extractor)
        digests = self.versions
        listed = isinstance(digests, Sequence) and not isinstance(digests, str) and len(digests) <= _MOST_VERSIONS
        if not listed or not all(map(_is_sha256, digests)):
            raise WireError(f"versions: a list of at most {_MOST_VERSIONS} sha256 was expected")

    def pack(self) -> dict[str, Any]:
        """The job as a JSON object."""
        fields = {"may_start_anew": self.may_start_anew, "versions": list(self.versions)}
        return _packed(self.phase, fields, _prefixed("extractor", self.extractor))

    @classmethod
    def unpack(cls, message: Any) -> ExtractJob:
        """Check and read a packed job.

        Raises:
            WireError: a field is missing, malformed, or out of range.
        """
        fields, tensors = _unpacked(cls.phase, message, ("may_start_anew", "versions"), ("extractor",))
        return cls(tensors["extractor"], _boolean("may_start_anew", fields["may_start_anew"]), fields["versions"])


@dataclass(frozen=True, eq=False)
class LearnJob:
    """Asks a trial to update the extractor with its data set.

    Attributes:
        extractor: the extractor's weights by name, float32; empty for the initial extractor.
        importance: of each of the extractor's parameters (eq. 9), >= 0; empty before the first update.
        embeddings: float32 (n, 64), the tried configurations as the platform's encoder sees them.
        performance: float32 (n,), their results, higher is better.
        seed: of everything random in the update.
        offline: image features (M >= 1, 3, 3, D), NaN for an anchor group without anchors, of some of the platform's
            own data sets.
        replay: float32 (k, 64), other clients' meta-features, or None.
    """

    phase: ClassVar[Phase] = Phase.LEARN

    extractor: Mapping[str, Tensor]
    importance: Mapping[str, Tensor]
    embeddings: Tensor
    performance: Tensor
    seed: int = 0
    offline: Sequence[Tensor] = ()
    replay: Tensor | None = None

    def __post_init__(self) -> None:
        for part, tensors in (("extractor", self.extractor), ("importance", self.importance)):
            _check_weights(part, tensors)

    def pack(self) -> dict[str, Any]:
        """The job as a JSON object."""
        from nni_hyperfd.method import features

        tensors = {"results.embeddings": self.embeddings, "results.performance": self.performance}
        if self.replay is not None:
            tensors["replay.meta_features"] = self.replay
        tensors |= _prefixed("extractor", self.extractor) | _prefixed("importance", self.importance)
        for place, images in enumerate(self.offline):
            tensors |= _prefixed(f"offline.{place}", features.pack_images(images))
        return _packed(self.phase, {"seed": self.seed}, tensors)

    @classmethod
    def unpack(cls, message: Any) -> LearnJob:
        """Check and read a packed job.

        Raises:
            WireError: a field is missing, malformed, or out of range.
        """
        from nni_hyperfd.method import features, weights

        parts = ("extractor", "importance", "results", "offline", "replay")
        fields, tensors = _unpacked(cls.phase, message, ("seed",), parts)
        seed, results, replay = fields["seed"], tensors["results"], tensors["replay"].get("meta_features")
        if isinstance(seed, bool) or not isinstance(seed, int) or seed not in SEEDS:
            raise WireError(f"seed: {seed!r} is no whole number from 0 to {SEEDS.stop - 1}")
        embeddings, performance = results.get("embeddings"), results.get("performance")
        if embeddings is None or performance is None or embeddings.ndim != 2 or performance.shape != (len(embeddings),):
            raise WireError("results: one embedding and one performance for each tried configuration were expected")
        for name, rows in (("embeddings", embeddings), ("replay", replay)):
            if rows is not None and (rows.ndim != 2 or rows.shape[1] != META_FEATURE_LENGTH):
                raise WireError(f"{name}: rows of {META_FEATURE_LENGTH} numbers were expected")
        places = {name.split(".")[0] for name in tensors["offline"]}
        if not all(place.isdecimal() for place in places):
            raise WireError("offline: the data sets must be numbered")
        try:
            offline = [
                features.unpack_images(weights.under(tensors["offline"], place)) for place in sorted(places, key=int)
            ]
        except weights.WeightsError as error:
            raise WireError(f"offline: {error}") from None
        return cls(tensors["extractor"], tensors["importance"], embeddings, performance, seed, offline, replay)


@dataclass(frozen=True)
class Description:
    """A trial's answer to `ExtractJob`: all that leaves its data set before fine-tuning (docs/privacy.md).

    Attributes:
        meta_feature: 64 finite numbers, no longer than `META_FEATURE_NORM`; None where the owner withholds it.
        num_images: of the training split, rounded unless the owner's settings are off; None where it is withheld.
        num_boxes: of the training split; None unless the owner's settings are off.
        baseline: AP@50 of the pretrained detector on the validation split before fine-tuning, in [0, 1].
        initial: whether the initial extractor made the meta-feature, as the given one does not fit the detector.
        seconds: what describing took.
        extractor: sha256 of the weights that made the meta-feature, which may be an earlier version's; None for the
            initial extractor.
        withheld: a word that says why there is no meta-feature (`privacy.release.Withheld`); None if there is one.
        among: number of owners' updates of the extractor that must be averaged before anything of this owner's one is
            handed on; 0: he allows none, so there is no learn job.
        share: whether other owners' learn jobs may be given the meta-feature.
    """

    phase: ClassVar[Phase] = Phase.EXTRACT

    meta_feature: Sequence[float] | None
    num_images: int | None
    num_boxes: int | None
    baseline: float
    initial: bool = False
    seconds: float = 0.0
    extractor: str | None = None
    withheld: str | None = None
    among: int = 0
    share: bool = False

    def __post_init__(self) -> None:
        if self.meta_feature is not None:
            object.__setattr__(self, "meta_feature", checked_meta_feature(self.meta_feature))
        for name in ("num_images", "num_boxes"):
            if getattr(self, name) is not None:
                _check_count(name, getattr(self, name))
        _check_count("among", self.among)
        if not is_finite_number(self.baseline) or not 0 <= self.baseline <= 1:
            raise WireError(f"baseline: {self.baseline!r} is no AP between 0 and 1")
        for name in ("initial", "share"):
            _boolean(name, getattr(self, name))
        if self.extractor is not None and not _is_sha256(self.extractor):
            raise WireError(f"extractor: {self.extractor!r} is no sha256")
        if self.withheld is not None and (self.withheld not in WITHHELD or self.meta_feature is not None):
            raise WireError(f"withheld: {self.withheld!r} is no reason for it")
        _check_duration(self.seconds)

    def pack(self) -> dict[str, Any]:
        """The answer as a JSON object."""
        fields = {name: getattr(self, name) for name in _DESCRIPTION}
        meta_feature = None if self.meta_feature is None else list(self.meta_feature)
        return _packed(self.phase, fields | {"meta_feature": meta_feature})

    @classmethod
    def unpack(cls, message: Any) -> Description:
        """Check and read a packed answer.

        Raises:
            WireError: a field is missing, of the wrong shape, not finite, or out of range.
        """
        fields, _ = _unpacked(cls.phase, message, _DESCRIPTION)
        return cls(**fields)


_DESCRIPTION = (
    *("meta_feature", "num_images", "num_boxes", "baseline", "initial", "seconds"),
    *("extractor", "withheld", "among", "share"),
)


@dataclass(frozen=True, eq=False)
class ExtractorUpdate:
    """A trial's answer to `LearnJob`.

    Whether the weights are an extractor's is for the platform to see, which knows the version they come from.

    Attributes:
        extractor: weights of the updated extractor by name, float32.
        importance: of each of them (eq. 9), >= 0.
        meta_feature: 64 finite numbers, of the trial's data set under the updated extractor.
        seconds: what the update took.
    """

    phase: ClassVar[Phase] = Phase.LEARN

    extractor: Mapping[str, Tensor]
    importance: Mapping[str, Tensor]
    meta_feature: Sequence[float]
    seconds: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "meta_feature", checked_meta_feature(self.meta_feature))
        for part, tensors in (("extractor", self.extractor), ("importance", self.importance)):
            _check_weights(part, tensors)
        if any(bool((tensor < 0).any()) for tensor in self.importance.values()):
            raise WireError("importance: it holds negative numbers")
        _check_duration(self.seconds)

    def pack(self) -> dict[str, Any]:
        """The answer as a JSON object."""
        tensors = _prefixed("extractor", self.extractor) | _prefixed("importance", self.importance)
        return _packed(self.phase, {"meta_feature": list(self.meta_feature), "seconds": self.seconds}, tensors)

    @classmethod
    def unpack(cls, message: Any) -> ExtractorUpdate:
        """Check and read a packed answer.

        Raises:
            WireError: a field is missing, the weights are damaged, not finite, or out of range.
        """
        fields, tensors = _unpacked(cls.phase, message, ("meta_feature", "seconds"), ("extractor", "importance"))
        if not tensors["extractor"]:
            raise WireError("extractor: the answer holds no weights")
        return cls(tensors["extractor"], tensors["importance"], fields["meta_feature"], fields["seconds"])


Job = ExtractJob | LearnJob
Answer = Description | ExtractorUpdate


# -- where messages travel ---------------------------------------------------------------------------------------------


def trial_record(
    parameter_id: int, configuration: Mapping[str, Any], job: Job | None = None, note: str | None = None
) -> dict[str, Any]:
    """What NNI is told to start a trial with, as NNI's own tuners write it, and the job beside it.

    The job is no parameter, so NNI's web UI does not draw it; of a service trial the UI shows the phase, of another one
    the note, if there is one.
    """
    phase = note if job is None else str(job.phase)
    parameters = dict(configuration) if phase is None else {_PHASE: phase, **configuration}
    record: dict[str, Any] = {
        "parameter_id": parameter_id,
        "parameter_source": "algorithm",
        "parameters": parameters,
        "parameter_index": 0,
    }
    return record if job is None else record | {_JOB: job.pack()}


def parameters_in(record: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration in a trial's record."""
    return {name: value for name, value in (record.get("parameters") or {}).items() if name != _PHASE}


def parameters_of_trial(record: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters in an ordinary trial's record, without our note; one of any experiment may have a `phase`."""
    parameters = dict(record.get("parameters") or {})
    return parameters_in(record) if parameters.get(_PHASE) == WITHOUT_PLATFORM else parameters


def job_in(record: Mapping[str, Any]) -> Job | None:
    """The job in a trial's record; None for an ordinary trial.

    Raises:
        WireError: the job is of another version of the protocol, or malformed.
    """
    message = record.get(_JOB)
    if message is None:
        return None
    kind = ExtractJob if isinstance(message, Mapping) and message.get("phase") == Phase.EXTRACT else LearnJob
    return kind.unpack(message)


def intermediate_result(answer: Answer) -> dict[str, Any]:
    """An answer as an intermediate result for NNI, whose curve shows the baseline of a description."""
    number = {_METRIC: answer.baseline} if isinstance(answer, Description) else {}
    return {**number, _ANSWER: answer.pack()}


def answer_in(value: Any) -> Any:
    """The packed answer in an intermediate result, to be unpacked; None where there is none."""
    return value.get(_ANSWER) if isinstance(value, Mapping) else None


def final_result(description: Description) -> dict[str, Any]:
    """What an extract trial reports as its final result.

    NNI's hyper-parameter plot breaks a trial's line off before an axis that it has no value on, and every entry of a
    final result becomes an axis: only what fine-tuning trials report as well.
    """
    return {_METRIC: description.baseline, "seconds": description.seconds, _PHASE: str(description.phase)}


def is_service_result(value: Any) -> bool:
    """Whether a final result is a service trial's, whose answer came as an intermediate result."""
    return isinstance(value, Mapping) and value.get(_PHASE) in (Phase.EXTRACT, Phase.LEARN)


def phase_of(parameters: Mapping[str, Any]) -> Phase:
    """The phase that a trial's parameters name; fine-tuning where they name none that is known."""
    known = {phase.value: phase for phase in Phase if phase not in RESULT_PHASES}
    named = parameters.get(_PHASE)
    return known.get(named, Phase.FINE_TUNE) if isinstance(named, str) else Phase.FINE_TUNE


def final_number(value: Any) -> float | None:
    """The performance in what NNI calls a metric: the number itself, or the entry `default` of a JSON object.

    Returns:
        The performance, or None where there is no finite number.
    """
    number = value.get(_METRIC) if isinstance(value, Mapping) else value
    return float(number) if number is not None and is_finite_number(number) else None


def load_json(text: Any) -> Any:
    """What a trial or a user has sent as JSON; anything else comes back as it is, for the receiver to refuse.

    Not `nni.load`: that runs the pickles it finds, and what a trial sends is not trusted.
    """
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return text


# -- what is checked ---------------------------------------------------------------------------------------------------


def is_finite_number(value: Any) -> bool:
    """Whether this is a number that the ranker can work with in float32: no NaN, nothing beyond +-1e38."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _LARGEST_NUMBER


def checked_meta_feature(values: Any) -> tuple[float, ...]:
    """A meta-feature as a tuple of floats.

    Raises:
        WireError: it is none: not 64 finite numbers, or too long.
    """
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != META_FEATURE_LENGTH:
        raise WireError(f"meta_feature: a list of {META_FEATURE_LENGTH} numbers was expected")
    if not all(map(is_finite_number, values)):
        raise WireError("meta_feature: every entry must be a finite number")
    if math.hypot(*values) > META_FEATURE_NORM:
        raise WireError(f"meta_feature: its length exceeds {META_FEATURE_NORM:g}")
    return tuple(float(value) for value in values)


def _packed(phase: Phase, fields: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> dict[str, Any]:
    message: dict[str, Any] = {"version": VERSION, "phase": str(phase), **fields}
    if tensors is not None:
        from nni_hyperfd.method import weights

        data = weights.dumps(tensors)
        message |= {"tensors": weights.to_text(data), "sha256": weights.sha256(data)}
    return message


def _unpacked(
    phase: Phase, message: Any, names: Sequence[str], parts: Sequence[str] = ()
) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """The named fields of a message, and its tensors by the named parts."""
    if not isinstance(message, Mapping):
        raise WireError(f"the message of the {phase} trial is no JSON object")
    if message.get("version") != VERSION:
        raise WireError(
            f"the message of the {phase} trial has version {message.get('version')!r} of the protocol, this side "
            f"speaks {VERSION}; install the same nni_hyperfd for tuner and trials"
        )
    if message.get("phase") != phase:
        raise WireError(f"the message is of phase {message.get('phase')!r}, {str(phase)!r} was expected")
    expected = {*names, *(("tensors", "sha256") if parts else ())}
    given = set(message) - {"version", "phase"}
    if missing := expected - given:
        raise WireError(f"the message of the {phase} trial lacks {', '.join(sorted(missing))}")
    if unknown := given - expected:
        raise WireError(f"the message of the {phase} trial must not hold {', '.join(sorted(map(repr, unknown)))}")
    return {name: message[name] for name in names}, _tensors(message, parts) if parts else {}


def _tensors(message: Mapping[str, Any], parts: Sequence[str]) -> dict[str, dict[str, Tensor]]:
    from nni_hyperfd.method import weights

    try:
        data = weights.from_text(message["tensors"])
        if weights.sha256(data) != message["sha256"]:
            raise WireError("tensors: they are damaged (sha256 differs); run the trial again")
        tensors = weights.loads(data)
    except weights.WeightsError as error:
        raise WireError(f"tensors: {error}") from None
    if len(tensors) > _MOST_TENSORS:
        raise WireError(f"tensors: {len(tensors)} are more than the {_MOST_TENSORS} that a message may hold")
    if strange := [name for name in tensors if name.split(".")[0] not in parts]:
        raise WireError(f"tensors: {strange[0]!r} does not belong to this message")
    return {part: weights.under(tensors, part) for part in parts}


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _check_weights(part: str, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if not (tensor.abs() <= _LARGEST_WEIGHT).all():  # NaN is not, either
            raise WireError(f"{part}: {name} holds numbers beyond {_LARGEST_WEIGHT:g}")


def _check_count(name: str, count: Any) -> None:
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count < _LARGEST_COUNT:
        raise WireError(f"{name}: {count!r} is no count")


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def _check_duration(seconds: Any) -> None:
    if not is_finite_number(seconds) or seconds < 0:
        raise WireError(f"seconds: {seconds!r} is no duration")


def _boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise WireError(f"{name}: {value!r} is neither true nor false")
    return value
