"""The hook inside a trial: NNI's parameters put right, and the two service jobs that run next to the data."""

from __future__ import annotations

import json
import logging
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import nni
import platformdirs
import requests

from nni_hyperfd import wire
from nni_hyperfd.experiment.manager import Manager
from nni_hyperfd.wire import Description, ExtractJob, ExtractorUpdate, LearnJob

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from nni_hyperfd.method.meta_feature import MetaFeatureExtractor
    from nni_hyperfd.privacy.settings import PrivacySettings

_logger = logging.getLogger(__name__)

_IMAGES = 300  # of the training split, drawn once; the meta-feature is a mean, so more change little
_IMAGES_SEED = 0  # the same images for extract and learn, which share the cached features
_LARGEST_CACHE = 2**30
_RECORD_SECONDS = 30  # the manager writes a trial's record a moment after it has started the trial


class Dataset(Protocol):
    """What the service jobs ask of a data set. Heavy work belongs into the methods, not where the object is made."""

    @property
    def folder(self) -> Path | None:
        """Where the data set lies, for the owner's ledger and for `hyperfd privacy forget`; it stays on this machine.

        None: the owner's settings name a place for the ledger.
        """

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
        """Features of training images, each computed from its image alone.

        Args:
            limit: maximum number of images.
            seed: of their draw. Adding, removing or replacing one image of the split must change at most one of the
                drawn ones, as when they are drawn by a hash of each image's name.

        Returns:
            float32 (n, 3, 3, D): image, pyramid stage, anchor group (positive, negative, ignored), feature; NaN
            throughout for a group without anchors.
        """

    def groups(self, limit: int, seed: int) -> Sequence[Hashable] | None:
        """The person or camera of each image that `image_features` draws with these arguments.

        Returns:
            A group for each image, None for an image without one; None if the data set knows no groups. Needed for
            ``unit=group`` in the owner's settings only.
        """


def get_next_parameter(dataset: Dataset | None = None) -> dict[str, Any]:
    """The configuration that this trial is to run; use it in place of `nni.get_next_parameter`.

    NNI 3.0 hands its parameters out in the order in which trials happen to ask; this returns the ones that NNI's web
    UI shows for this very trial. A trial that is sent a service job instead (`extract`, `learn`) does it here, reports
    to the platform and ends with exit code 0. In any other trial that names its data set, what `nni.report_*` sends
    from now on is rounded to two digits, unless the owner's settings say ``off`` or ``ap=exact`` (docs/privacy.md).

    Args:
        dataset: the data set that the experiment is about. Without one the trial works as any NNI trial does; the
            platform then ranks without knowing the data.

    Returns:
        Parameter name -> value; empty when the script does not run inside NNI.

    Raises:
        WireError: the job was sent by another version of nni_hyperfd, or is damaged.
        PrivacyError: the owner's settings are wrong, or do not allow the job.
        RuntimeError: the NNI manager does not name this trial's parameters.
    """
    # NNI starts trials of its own machine with the environment that the experiment was started in.
    os.environ.pop("HYPERFD_TOKEN", None)
    record = _own_record()
    job = wire.job_in(record)
    if dataset is not None:
        _guard(dataset, has_results=job is None and record.get("parameter_id") is not None)
    if job is None:
        return wire.parameters_of_trial(record)
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
    manager, deadline = Manager(_manager_channel(channel)), time.monotonic() + _RECORD_SECONDS
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


def _manager_channel(own: str) -> str:
    """A command channel of NNI's manager.

    A trial on another machine (NNI's remote training service) is told only the channel of the keeper of trials there,
    which has no REST API. That keeper's own settings name the manager; after a resume the newest ones do.

    Args:
        own: the trial's own channel.
    """
    if os.environ.get("NNI_PLATFORM") != "remote":
        return own
    environment = Path(os.environ["NNI_OUTPUT_DIR"]).parents[1]
    settings = sorted(environment.glob("trial_keeper*/trial_keeper_config.json"), key=lambda path: path.stat().st_mtime)
    if not settings:
        raise RuntimeError(f"{environment}: NNI has left no trial_keeper_config.json; trials need NNI 3.0")
    return str(json.loads(settings[-1].read_text())["managerCommandChannel"])


def _guard(dataset: Dataset, has_results: bool) -> None:
    """Let this trial report and print what its owner's settings allow, and note where NNI keeps it.

    Args:
        dataset: its data set.
        has_results: whether it reports results of its own to NNI.
    """
    from nni_hyperfd.experiment.reporting import report_through
    from nni_hyperfd.privacy import redaction, settings, traces
    from nni_hyperfd.privacy.results import rounded

    owner, folder, output = settings.of_owner(), _folder(dataset), os.environ.get("NNI_OUTPUT_DIR")
    if has_results and owner.rounds_ap:
        report_through(rounded)
    if folder is not None and output is not None:
        traces.leave(folder, traces.Trace(output, nni.get_experiment_id()))
        if not owner.off:
            redaction.install(folder)


def _folder(dataset: Dataset) -> Path | None:
    """Where the data set lies; None where it does not say, or is of before this attribute."""
    folder = getattr(dataset, "folder", None)
    return None if folder is None else Path(folder)


def _extract(dataset: Dataset, job: ExtractJob) -> None:
    """Describe the data set as far as its owner allows, and tell the AP@50 that fine-tuning has to beat."""
    from nni_hyperfd.privacy import settings
    from nni_hyperfd.privacy.results import rounded

    begin, owner = time.monotonic(), settings.of_owner()
    network = _network(job.extractor)
    baseline = float(dataset.evaluate())
    baseline = rounded(baseline) if owner.rounds_ap else baseline
    describe = _described if owner.off else _described_privately
    described = describe(dataset, network, job, owner, baseline)
    seconds = float(round(time.monotonic() - begin))  # in full it would tell the number of images
    described = replace(described, seconds=seconds, among=owner.among if owner.learn else 0, share=owner.share)
    nni.report_intermediate_result(wire.intermediate_result(described))
    nni.report_final_result(wire.final_result(described))


def _described(
    dataset: Dataset, network: MetaFeatureExtractor | None, job: ExtractJob, owner: PrivacySettings, baseline: float
) -> Description:
    """The description of a data set whose owner's settings are off."""
    import torch

    from nni_hyperfd.privacy import release

    features = _features(dataset, _IMAGES)
    network, initial = _fitting(network, features.shape[-1], job.may_start_anew)
    extractor = release.Extractor(None if initial else _digest(job), job.versions)
    projection = release.projection_for(extractor, network.feature_dim, owner)
    with torch.no_grad():
        if projection is None:
            meta_feature = network(features).tolist()
        else:  # so that descriptions with and without noise are comparable
            meta_feature = projection.described(network.image_vectors(features).numpy()).tolist()
    counts = int(dataset.num_images), int(dataset.num_boxes)
    return Description(meta_feature, *counts, baseline, initial, extractor=extractor.weights)


def _described_privately(
    dataset: Dataset, network: MetaFeatureExtractor | None, job: ExtractJob, owner: PrivacySettings, baseline: float
) -> Description:
    """The noised description of a data set, or none, as its owner's settings say (docs/privacy.md)."""
    from nni_hyperfd.privacy import release
    from nni_hyperfd.privacy.settings import Unit

    data = release.DataSet(_folder(dataset), dataset.fingerprint())
    door = release.Door(data, release.Extractor(_digest(job), job.versions), owner)
    described: release.Description | release.Withheld | None = door.again()
    if described is None:
        limit = dataset.num_images if owner.unit is Unit.GROUP else _IMAGES
        features = _features(dataset, limit)
        units = release.units_of(features.numpy(), _groups(dataset, limit), owner.unit)
        described = door.describe(lambda: _vectors(network, features), units, features.shape[-1])
    if isinstance(described, release.Withheld):
        _logger.warning("The data set is not described: %s. The platform ranks without.", described.explained(owner))
        return Description(None, None, None, baseline, withheld=described.value)
    return Description(described.meta_feature, described.size, None, baseline, extractor=described.extractor)


def _groups(dataset: Dataset, limit: int) -> Sequence[Hashable] | None:
    """The group of each image; None where the data set, perhaps of before this method, knows none."""
    groups = getattr(dataset, "groups", None)
    return None if groups is None else groups(limit, _IMAGES_SEED)


def _vectors(network: MetaFeatureExtractor | None, features: Tensor) -> NDArray[np.float32]:
    """The vector of each image, one at a time: in a batch, rounding lets images change each other's last bits."""
    import numpy as np
    import torch

    assert network is not None, "an untrained extractor has no projection"
    with torch.no_grad():
        return np.stack([network.image_vectors(image[None])[0].numpy() for image in features])


def _learn(dataset: Dataset, job: LearnJob) -> None:
    """Update the extractor with this task's results (eq. 11) and return its weights, if the owner allows it.

    It reports no final result: NNI would take any number as an AP, and this job has none of its own.
    """
    from nni_hyperfd.method.learning import ClientTask, update_extractor
    from nni_hyperfd.method.settings import RankerSettings
    from nni_hyperfd.privacy import settings
    from nni_hyperfd.privacy.settings import VARIABLE, PrivacyError

    if not settings.of_owner().learn:
        raise PrivacyError(f"the platform asks for an update of the extractor, which {VARIABLE} does not allow")
    begin = time.monotonic()
    features = _features(dataset, _IMAGES)
    task = ClientTask(features, job.embeddings, job.performance, job.offline, job.replay)
    extractor, _ = _fitting(_network(job.extractor), features.shape[-1])
    learned = update_extractor(extractor, job.importance or None, task, RankerSettings(), job.seed)
    update = ExtractorUpdate(
        learned.extractor.state_dict(),
        learned.importance,
        learned.meta_feature.tolist(),
        round(time.monotonic() - begin, 3),
    )
    nni.report_intermediate_result(wire.intermediate_result(update))


def _features(dataset: Dataset, limit: int) -> Tensor:
    """The data set's image features, kept on this machine for a while: another job needs them again."""
    from nni_hyperfd.method import features as image_features
    from nni_hyperfd.method import weights
    from nni_hyperfd.privacy import caches, traces

    folder = Path(platformdirs.user_cache_path("nni_hyperfd"))
    caches.expire(folder)
    path = folder / f"{dataset.fingerprint()}-{limit}.safetensors"
    try:
        return image_features.unpack_images(weights.loads(path.read_bytes(), _LARGEST_CACHE))
    except FileNotFoundError:
        pass
    except weights.WeightsError as error:
        _logger.warning("The cached image features in %s are not usable (%s); they are computed anew.", path, error)
    features = dataset.image_features(limit, _IMAGES_SEED)
    if (data := _folder(dataset)) is not None:
        traces.leave(data, traces.Trace(str(path)))
    caches.write(path, weights.dumps(image_features.pack_images(features)))
    return features


def _digest(job: ExtractJob) -> str | None:
    """The sha256 of the job's extractor, by which the platform knows it; None for the initial one."""
    from nni_hyperfd.method import weights

    return weights.sha256(weights.dumps(job.extractor)) if job.extractor else None


def _network(given: Mapping[str, Tensor]) -> MetaFeatureExtractor | None:
    """The extractor of these weights, which come from outside; None for none.

    Raises:
        WeightsError: they are no extractor's.
        WireError: they make vectors of another length.
    """
    from nni_hyperfd.method.meta_feature import MetaFeatureExtractor

    if not given:
        return None
    extractor = MetaFeatureExtractor.from_weights(given)
    if extractor.hidden != wire.META_FEATURE_LENGTH:
        raise wire.WireError(
            f"extractor: its vectors have {extractor.hidden} numbers, {wire.META_FEATURE_LENGTH} were expected"
        )
    return extractor


def _fitting(
    given: MetaFeatureExtractor | None, feature_dim: int, may_start_anew: bool = False
) -> tuple[MetaFeatureExtractor, bool]:
    """The extractor for a detector's features, and whether it is an initial one in place of one that does not fit.

    Without a given one it is the initial one, which all clients make alike.
    """
    from nni_hyperfd.method.meta_feature import MetaFeatureExtractor
    from nni_hyperfd.method.recipe import INITIAL_SEED

    if given is not None and given.feature_dim == feature_dim:
        return given, False
    if given is None or may_start_anew:
        return MetaFeatureExtractor.initial(feature_dim, INITIAL_SEED), given is not None
    raise ValueError(
        f"The platform's extractor was made for a detector with {given.feature_dim - 4} channels, this trial's "
        f"has {feature_dim - 4}: start from a detector of the same architecture, or name another state file in "
        "classArgs."
    )
