"""What trials report, checked before it is believed: all of it comes from outside."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

META_FEATURE_LENGTH = 64
_META_FEATURE_NORM = 1e4  # far above any trained extractor's output; stops a client from swamping the ranker
_LARGEST_WEIGHT = 1e4  # likewise: trained weights stay around 1, importances below it
_LARGEST_NUMBER = 1e38  # the difference of two still fits into float32


class ReportError(ValueError):
    """What a trial reported is refused; the message names the field."""


@dataclass(frozen=True)
class Description:
    """What an `extract` trial tells of its data set: all that ever leaves it before fine-tuning.

    Attributes:
        meta_feature: 64 finite numbers.
        num_images, num_boxes: of the training split.
        baseline: AP@50 of the pretrained detector before fine-tuning, in [0, 1].
        initial: whether the meta-feature is that of the initial extractor, as the given one does not fit the detector.
    """

    meta_feature: list[float]
    num_images: int
    num_boxes: int
    baseline: float
    initial: bool = False

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
        initial = report.get("initial", False)
        if not isinstance(initial, bool):
            raise ReportError(f"initial: {initial!r} is neither true nor false")
        return cls(meta_feature, report["num_images"], report["num_boxes"], float(baseline), initial)


@dataclass(frozen=True)
class ExtractorUpdate:
    """What a `learn` trial returns.

    Attributes:
        extractor, importance: weights of the updated extractor, and the importance of each (equation 9).
        meta_feature: 64 finite numbers, of the trial's data set under the updated extractor.
    """

    extractor: dict[str, Tensor]
    importance: dict[str, Tensor]
    meta_feature: list[float]

    @classmethod
    def from_report(cls, report: Any) -> ExtractorUpdate:
        """Check a report, which is untrusted. Whether the weights are an extractor's is for `Versions` to see.

        Raises:
            ReportError: a field is missing, no weights, not finite, or out of range.
        """
        from nni_hyperfd.method import weights

        if not isinstance(report, Mapping):
            raise ReportError("the report of the learn trial is no JSON object")
        try:
            tensors = weights.loads(weights.from_text(report["update"]))
            meta_feature = check_meta_feature(report["meta_feature"])
        except KeyError as error:
            raise ReportError(f"the report of the learn trial lacks {error.args[0]}") from None
        except weights.WeightsError as error:
            raise ReportError(f"extractor update: {error}") from None
        if any(float(tensor.abs().max()) > _LARGEST_WEIGHT for tensor in tensors.values() if tensor.numel()):
            raise ReportError(f"extractor update: it holds numbers beyond {_LARGEST_WEIGHT:g}")
        extractor, importance = (weights.under(tensors, prefix) for prefix in ("extractor", "importance"))
        if any(bool((tensor < 0).any()) for tensor in importance.values()):
            raise ReportError("extractor importance: it holds negative numbers")
        return cls(extractor, importance, meta_feature)


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


def is_finite_number(value: Any) -> bool:
    """Whether this is a number that the ranker can work with, in float32: no NaN, nothing beyond +-1e38."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _LARGEST_NUMBER
