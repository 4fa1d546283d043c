"""A face data set for `nni_hyperfd.get_next_parameter`: its size, the starting detector's AP@50, and its features."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from nni_hyperfd.datasets import coco
from retinaface.options import CONFIGS, Options
from retinaface.pipelines import use_split

if TYPE_CHECKING:
    from mmdet.models import BaseDetector
    from mmengine.config import Config
    from torch import Tensor
    from torch.utils.data import Dataset

DESCRIBER = CONFIGS / "retinaface_mobilenetv2.py"
"""The detector, with the weights that come with it, that describes data sets, whichever is tuned.

So one extractor, that of the package for instance, serves all search spaces and all starting detectors.
"""


class FaceDataset:
    """Implements `nni_hyperfd.Dataset` for a data set and a starting detector.

    Creating it is fast: annotations are checked when they are first used, and torch and mmdet are imported by the
    methods that need them.

    Args:
        options: the data set, the detector, and the sizes of training and validation.

    Raises:
        ScriptError: the options name no detector to start from, and none comes with their config.
        AnnotationError: (on first use) the annotations cannot be used.
    """

    def __init__(self, options: Options) -> None:
        self.options = options.with_start()
        self.weights = self.options.require_weights()

    @cached_property
    def train(self) -> coco.CocoSplit:
        """The annotations to train on."""
        return coco.load(self.options.data, "train", strict=self.options.strict)

    @cached_property
    def val(self) -> coco.CocoSplit:
        """The annotations to validate on."""
        return coco.load(self.options.data, "val", strict=self.options.strict)

    @property
    def folder(self) -> Path:
        """The data set's folder, where its privacy ledger lies."""
        return self.options.data

    @property
    def num_images(self) -> int:
        """Number of images of the training split."""
        return self.train.num_images

    @property
    def num_boxes(self) -> int:
        """Number of boxes of the training split, without ignored ones."""
        return self.train.num_boxes

    def fingerprint(self) -> str:
        """Name of the data, and of the weights and settings that features and AP depend on: sha256 (hex)."""
        settings = [_settings(options) for options in (self.options, self._describing)]
        parts = [self.train.fingerprint(), self.val.fingerprint(), json.dumps(settings, sort_keys=True)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def evaluate(self) -> float:
        """AP@50, in [0, 1], of the starting detector on the validation split, measured as in every trial."""
        from retinaface.training import validate

        return validate(self.options.load_config(), self.val)

    def image_features(self, limit: int, seed: int) -> Tensor:
        """Features of training images, without their ignored faces.

        Args:
            limit: maximum number of images; they are drawn by a hash of their names, so one image more or less changes
                at most one of them.
            seed: seed of the draw.

        Returns:
            float32 (n, 3, 3, C + 4) on the CPU with n = min(limit, num_images), in the order of the annotation file;
            see `features.image_features` for the axes. The detector is `DESCRIBER`.
        """
        from retinaface.features import extract, frozen

        config, detector = self.describer()
        return extract(frozen(detector), self.training_images(config, limit, seed))

    def describer(self) -> tuple[Config, BaseDetector]:
        """The detector that describes, and its config with this data set's sizes."""
        from retinaface.build import load_detector

        config = self._describing.load_config()
        return config, load_detector(config, self._describing.require_weights())

    @property
    def _describing(self) -> Options:
        return replace(self.options, config=DESCRIBER, weights=None).with_start()

    def groups(self, limit: int, seed: int) -> list[str | None] | None:
        """The key `group` of the images that `image_features` uses, None for one without; None if no image has it."""
        groups = [self.train.images[place].get("group") for place in self._drawn(limit, seed)]
        return groups if any(group is not None for group in groups) else None

    def training_images(self, config: Config, limit: int, seed: int) -> Iterable[dict[str, Any]]:
        """The images that `image_features` uses, as the evaluation pipeline returns them."""
        from torch.utils.data import DataLoader, Subset

        images = Subset(images_of(config, self.train), self._drawn(limit, seed))
        return DataLoader(images, batch_size=None, num_workers=config.val_dataloader.num_workers)

    def _drawn(self, limit: int, seed: int) -> list[int]:
        """Places of at most `limit` training images, in ascending order."""

        def draw(place: int) -> bytes:
            return hashlib.sha256(f"{seed} {self.train.images[place]['file_name']}".encode()).digest()

        return sorted(sorted(range(self.num_images), key=draw)[:limit])


def _settings(options: Options) -> dict[str, Any]:
    """A detector and how images come to it, with the sha256 of its weights."""
    from retinaface.weight_files import weights_file

    config = options.load_config()
    config.model.weights = hashlib.sha256(weights_file(options.require_weights()).read_bytes()).hexdigest()
    # The place of the data does not matter.
    return {"model": config.model, "evaluation": {**config.val_dataloader.dataset, "data_root": None}}


def images_of(config: Config, split: coco.CocoSplit) -> Dataset[dict[str, Any]]:
    """Images of a split as the config's evaluation pipeline returns them, with faces of all sizes."""
    from mmdet.registry import DATASETS

    settings = copy.deepcopy(config.val_dataloader)
    with TemporaryDirectory() as folder:
        use_split(settings, split, Path(folder))
        images: Dataset[dict[str, Any]] = DATASETS.build({**settings.dataset, "min_face": 0.0})
    return images
