"""The hook inside a trial: NNI's parameters put right, and the two service jobs that run next to the data."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import nni
import platformdirs
import requests

from nni_hyperfd.experiment.manager import Manager

if TYPE_CHECKING:
    from torch import Tensor

    from nni_hyperfd.method.meta_feature import MetaFeatureExtractor

_logger = logging.getLogger(__name__)

_IMAGES = 256  # of the training split, drawn once; the meta-feature is a mean, so more change little
_SEED = 0
_RECORD_SECONDS = 30  # the manager writes a trial's record a moment after it has started the trial


class Dataset(Protocol):
    """What the service jobs ask of a data set. Heavy work belongs into the methods, not where the object is made.

    Attributes:
        num_images, num_boxes: of the training split.
    """

    num_images: int
    num_boxes: int

    def fingerprint(self) -> str:
        """A name for exactly these images, annotations and detector weights. It stays on this machine."""

    def evaluate(self) -> float:
        """AP@50 of the pretrained detector on the validation split, before fine-tuning, in [0, 1]."""

    def image_features(self, limit: int, seed: int) -> Tensor:
        """Features of at most `limit` training images drawn by `seed`: float32 (n, 3, 3, D), image, pyramid stage,
        anchor group (positive, negative, ignored), feature; NaN throughout for a group without anchors."""


def get_next_parameter(dataset: Dataset | None = None) -> dict[str, Any]:
    """The configuration that this trial is to run; use it in place of `nni.get_next_parameter`.

    NNI 3.0 hands its parameters out in the order in which trials happen to ask; this returns the ones that NNI's web
    UI shows for this very trial. A trial that is sent a service job instead (`extract`, `learn`) does it here, reports
    to the platform and ends with exit code 0.

    Args:
        dataset: the data set that the experiment is about. Without one the trial works as any NNI trial does; the
            platform then ranks without knowing the data.

    Returns:
        Parameter name -> value; empty when the script does not run inside NNI.
    """
    record = _own_record()
    parameters = dict(record.get("parameters") or {})
    job = record.get("hyperfd")
    if job is None:
        return parameters
    parameters.pop("phase", None)
    if dataset is None:
        _logger.warning(
            "This trial was asked to describe the data set but was given none, so it runs an ordinary configuration "
            "and the platform ranks without a meta-feature: call nni_hyperfd.get_next_parameter(dataset)."
        )
        return parameters
    if job["phase"] == "extract":
        _extract(dataset, job)
    else:
        _learn(dataset, job)
    raise SystemExit(0)


def _own_record() -> dict[str, Any]:
    """What the tuner sent for this trial, not for whichever trial asks first (NNI issues 5689, 5693, 5726)."""
    nni.get_next_parameter()  # takes one entry out of the manager's queue, as NNI expects of every trial
    channel = os.environ.get("NNI_TRIAL_COMMAND_CHANNEL")
    if not channel:
        return nni.trial._params or {}
    manager, deadline = Manager(channel), time.monotonic() + _RECORD_SECONDS
    while True:
        try:
            record = manager.record_of(nni.get_trial_id())
            break
        except (requests.RequestException, KeyError, IndexError) as error:
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"The NNI manager did not name this trial's parameters within {_RECORD_SECONDS} s ({error}); "
                    "the trial would run with another trial's, so it stops."
                ) from error
            time.sleep(0.2)
    nni.trial._params = record  # metrics carry its parameter_id
    return record


def _extract(dataset: Dataset, job: dict[str, Any]) -> None:
    """Describe the data set: its meta-feature, two counts, and the AP@50 that fine-tuning has to beat."""
    import torch

    begin = time.monotonic()
    features = _features(dataset)
    extractor, initial = _extractor(_tensors(job), features.shape[-1], job.get("may_start_anew", False))
    with torch.no_grad():
        meta_feature = extractor(features, _counts(dataset)).tolist()
    baseline = float(dataset.evaluate())
    answer = {
        "meta_feature": meta_feature,
        "num_images": int(dataset.num_images),
        "num_boxes": int(dataset.num_boxes),
        "baseline": baseline,
        "seconds": round(time.monotonic() - begin, 3),
    }
    if initial:
        answer["initial"] = True
    nni.report_intermediate_result({"default": baseline, "hyperfd": answer})
    # NNI's hyper-parameter plot breaks a trial's line off before an axis that it has no value on, and every entry here
    # becomes an axis: only what fine-tuning trials report as well.
    nni.report_final_result({"default": baseline, "seconds": answer["seconds"], "phase": "extract"})


def _learn(dataset: Dataset, job: dict[str, Any]) -> None:
    """Update the extractor with this task's results (equation 11) and return its weights.

    It reports no final result: NNI would take any number as an AP, and this job has none of its own.
    """
    from nni_hyperfd.method import features as image_features
    from nni_hyperfd.method import learning, settings, weights

    begin = time.monotonic()
    given = _tensors(job)
    features = _features(dataset)
    offline = [
        image_features.unpack(weights.under(given, f"offline.{index}"))
        for index in range(sum(name.endswith(".present") for name in given))
    ]
    task = learning.ClientTask(
        features,
        _counts(dataset),
        given["embeddings"],
        given["performance"],
        [images for images, _ in offline],
        [counts for _, counts in offline],
        given.get("replay"),
    )
    extractor, _ = _extractor(weights.under(given, "extractor"), features.shape[-1])
    importance = weights.under(given, "importance") or None
    update = learning.update_extractor(extractor, importance, task, settings.RankerSettings(), _SEED)
    tensors = {f"extractor.{name}": tensor for name, tensor in update.extractor.state_dict().items()}
    tensors |= {f"importance.{name}": tensor for name, tensor in update.importance.items()}
    answer = {
        "update": weights.to_text(weights.dumps(tensors)),
        "meta_feature": update.meta_feature.tolist(),
        "seconds": round(time.monotonic() - begin, 3),
    }
    nni.report_intermediate_result({"hyperfd": answer})


def _features(dataset: Dataset) -> Tensor:
    """The data set's image features, kept on this machine: `learn` needs what `extract` has computed."""
    from nni_hyperfd.method import features as image_features
    from nni_hyperfd.method import weights

    path = Path(platformdirs.user_cache_path("nni_hyperfd")) / f"{dataset.fingerprint()}.safetensors"
    try:
        return image_features.unpack(weights.loads(path.read_bytes()))[0]
    except FileNotFoundError:
        pass
    except weights.WeightsError as error:
        _logger.warning("The cached image features in %s are not usable (%s); they are computed anew.", path, error)
    features = dataset.image_features(_IMAGES, _SEED)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_bytes(weights.dumps(image_features.pack(features, _counts(dataset))))
    partial.replace(path)
    return features


def _extractor(
    given: dict[str, Tensor], feature_dim: int, may_start_anew: bool = False
) -> tuple[MetaFeatureExtractor, bool]:
    """The extractor with the given weights; the initial one where the platform has none yet, or has one for another
    detector that it can do without. And whether that is the case."""
    from nni_hyperfd.method.meta_feature import MetaFeatureExtractor

    if not given:
        return MetaFeatureExtractor.initial(feature_dim, seed=0), False
    extractor = MetaFeatureExtractor.from_weights(given)
    if extractor.feature_dim == feature_dim:
        return extractor, False
    if may_start_anew:
        return MetaFeatureExtractor.initial(feature_dim, seed=0), True
    raise ValueError(
        f"The platform's extractor was made for a detector with {extractor.feature_dim - 4} channels, this trial's "
        f"has {feature_dim - 4}: start from a detector of the same architecture, or name another state file in "
        "classArgs."
    )


def _tensors(job: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors that came with the job, checked against the sha256 beside them."""
    from nni_hyperfd.method import weights

    if job["weights"] is None:
        return {}
    data = weights.from_text(job["weights"])
    if weights.sha256(data) != job["sha256"]:
        raise RuntimeError("The weights that came with this job are damaged (sha256 differs); run the trial again.")
    return weights.loads(data)


def _counts(dataset: Dataset) -> Tensor:
    import torch

    return torch.tensor([dataset.num_images, dataset.num_boxes], dtype=torch.float32)
