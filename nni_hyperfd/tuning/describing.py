"""Describing a data set before anything is paid for: it happens here, and nothing is kept or sent. Imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from nni_hyperfd.datasets import coco
from nni_hyperfd.method import weights
from nni_hyperfd.method.features import unpack
from nni_hyperfd.method.meta_feature import MetaFeatureExtractor
from nni_hyperfd.method.recipe import INITIAL_SEED
from nni_hyperfd.platform import Platform
from nni_hyperfd.privacy import release
from nni_hyperfd.privacy.settings import PrivacySettings
from nni_hyperfd.tuning import image_features
from nni_hyperfd.tuning.errors import TuningError
from nni_hyperfd.tuning.first_look import faces_in_words

_IMAGES = 100  # that are described; the mean of more differs little


@dataclass(frozen=True)
class Description:
    """A data set as the state's extractor describes it.

    Attributes:
        meta_feature: 64 numbers, without noise, for they stay here.
        words: its faces, in words.
    """

    meta_feature: tuple[float, ...]
    words: str


def describe(platform: Platform, data: coco.CocoSplit, options: str = "") -> Description:
    """Describe a data set by the newest extractor of a state.

    Args:
        platform: of the state.
        data: the training split.
        options: more options of `trial_code/describe.py`, as on a command line.

    Raises:
        TuningError: it cannot be described, or the state was learned with another detector than the trials describe by.
    """
    extractor, digest = _extractor(platform)
    with TemporaryDirectory() as place:
        file = image_features.write(data.folder, Path(place), _IMAGES, options)
        features, _ = unpack(weights.loads(file.read_bytes()))
    width = features.shape[-1]
    if extractor is None:
        extractor = MetaFeatureExtractor.initial(width, INITIAL_SEED)
    if extractor.feature_dim != width:
        raise TuningError(
            f"the state was learned with image features of {extractor.feature_dim} numbers, and those of this version "
            f"have {width}; name another state"
        )
    door = release.Extractor(digest, platform.versions.digests())
    projection = release.projection_for(door, width, PrivacySettings(off=True))
    with torch.no_grad():
        if projection is None:
            vector = extractor(features).tolist()
        else:  # as the descriptions are that the state has
            vector = projection.described(extractor.image_vectors(features).numpy()).tolist()
    return Description(tuple(vector), faces_in_words(data))


def _extractor(platform: Platform) -> tuple[MetaFeatureExtractor | None, str | None]:
    """The newest extractor of a state, and the sha256 of its weights; None for an untrained one."""
    known, _ = platform.versions.tensors(platform.versions.head_id())
    if not known:
        return None, None
    return MetaFeatureExtractor.from_weights(known), weights.sha256(weights.dumps(known))
