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

from nni_hyperfd import wire
from nni_hyperfd.experiment.manager import Manager
from nni_hyperfd.files import write_bytes
from nni_hyperfd.wire import Description, ExtractJob, ExtractorUpdate, LearnJob

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from nni_hyperfd.method.meta_feature import MetaFeatureExtractor

_logger = logging.getLogger(__name__)

_IMAGES = 256  # of the training split, drawn once; the meta-feature is a mean, so more change little
_IMAGES_SEED = 0  # the same images for extract and learn, which share the cached features
_RECORD_SECONDS = 30  # the manager writes a trial's record a moment after it has started the trial


class Dataset(Protocol):
    """What the service jobs ask of a data set. Heavy work belongs into the methods, not where the object is made."""

    @property
    def num_images(self) -> int:
        """Images of the training split."""

    @property
    def num_boxes(self) -> int:
        """Boxes of the training split."""

    def fingerprint(self) -> str:
        """A name for exactly these images, annotations and detector weights. It stays on this machine."""

    def evaluate(self) -> float:
        """AP@50 of the pretrained detector on the validation split, before fine-tuning, in [0, 1]."""

    def image_features(self, limit: int, seed: int) -> Tensor:
        """Features of training images.

        Args:
            limit: maximum number of images.
            seed: of their draw.

        Returns:
            float32 (n, 3, 3, D): image, pyramid stage, anchor group (positive, negative, ignored), feature; NaN
            throughout for a group without anchors.
        """


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

    Raises:
        WireError: the job was sent by another version of nni_hyperfd, or is damaged.
        RuntimeError: the NNI manager does not name this trial's parameters.
    """
    record = _own_record()
    job = wire.job_in(record)
    if job is None:
        return dict(record.get("parameters") or {})
    if dataset is None:
        _logger.warning(
            "This trial was asked to describe the data set but was given none, so it runs an ordinary configuration "
            "and the platform ranks without a meta-feature: call nni_hyperfd.get_next_parameter(dataset)."
        )
        return wire.parameters_in(record)
    if isinstance(job, ExtractJob):
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


def _extract(dataset: Dataset, job: ExtractJob) -> None:
    """Describe the data set: its meta-feature, two counts, and the AP@50 that fine-tuning has to beat."""
    import torch

    begin = time.monotonic()
    features = _features(dataset)
    extractor, initial = _extractor(job.extractor, features.shape[-1], job.may_start_anew)
    with torch.no_grad():
        meta_feature = extractor(features, _counts(dataset)).tolist()
    description = Description(
        meta_feature=meta_feature,
        num_images=int(dataset.num_images),
        num_boxes=int(dataset.num_boxes),
        baseline=float(dataset.evaluate()),
        initial=initial,
        seconds=round(time.monotonic() - begin, 3),
    )
    nni.report_intermediate_result(wire.intermediate_result(description))
    nni.report_final_result(wire.final_result(description))


def _learn(dataset: Dataset, job: LearnJob) -> None:
    """Update the extractor with this task's results (eq. 11) and return its weights.

    It reports no final result: NNI would take any number as an AP, and this job has none of its own.
    """
    from nni_hyperfd.method.learning import ClientTask, update_extractor
    from nni_hyperfd.method.settings import RankerSettings

    begin = time.monotonic()
    features = _features(dataset)
    task = ClientTask(features, _counts(dataset), job.embeddings, job.performance, job.offline, job.replay)
    extractor, _ = _extractor(job.extractor, features.shape[-1])
    learned = update_extractor(extractor, job.importance or None, task, RankerSettings(), job.seed)
    update = ExtractorUpdate(
        learned.extractor.state_dict(),
        learned.importance,
        learned.meta_feature.tolist(),
        round(time.monotonic() - begin, 3),
    )
    nni.report_intermediate_result(wire.intermediate_result(update))


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
    features = dataset.image_features(_IMAGES, _IMAGES_SEED)
    write_bytes(path, weights.dumps(image_features.pack(features, _counts(dataset))))
    return features


def _extractor(
    given: Mapping[str, Tensor], feature_dim: int, may_start_anew: bool = False
) -> tuple[MetaFeatureExtractor, bool]:
    """The extractor for a detector's features, and whether it is an initial one in place of one that does not fit.

    It has the given weights; without any it is the initial one, which all clients make alike.
    """
    from nni_hyperfd.method.meta_feature import MetaFeatureExtractor
    from nni_hyperfd.method.recipe import INITIAL_SEED

    if not given:
        return MetaFeatureExtractor.initial(feature_dim, INITIAL_SEED), False
    extractor = MetaFeatureExtractor.from_weights(given)
    if extractor.feature_dim == feature_dim:
        return extractor, False
    if may_start_anew:
        return MetaFeatureExtractor.initial(feature_dim, INITIAL_SEED), True
    raise ValueError(
        f"The platform's extractor was made for a detector with {extractor.feature_dim - 4} channels, this trial's "
        f"has {feature_dim - 4}: start from a detector of the same architecture, or name another state file in "
        "classArgs."
    )


def _counts(dataset: Dataset) -> Tensor:
    import torch

    return torch.tensor([dataset.num_images, dataset.num_boxes], dtype=torch.float32)
