"""A face data set as the trial hook sees it: how big it is, how good the starting detector is on it, its features."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from nni_hyperfd.datasets import coco
from retinaface.job import Job, JobError

if TYPE_CHECKING:
    from mmengine.config import Config
    from torch import Tensor
    from torch.utils.data import Dataset


class FaceDataset:
    """Implements `nni_hyperfd.experiment.trial.Dataset` for the data and the starting detector of a job.

    Making it costs nothing: annotations are checked when they are first asked for (coco.AnnotationError), and torch
    and mmdet are imported by the methods that need them.
    """

    def __init__(self, job: Job) -> None:
        if job.weights is None:
            raise JobError("the detector to start from is not given; name its file with --weights.")
        self.job = job

    @cached_property
    def train(self) -> coco.CocoSplit:
        return coco.load(self.job.data, "train", strict=self.job.strict)

    @cached_property
    def val(self) -> coco.CocoSplit:
        return coco.load(self.job.data, "val", strict=self.job.strict)

    @property
    def num_images(self) -> int:
        """Images of the training split."""
        return self.train.num_images

    @property
    def num_boxes(self) -> int:
        """Boxes of the training split, without ignored ones."""
        return self.train.num_boxes

    def fingerprint(self) -> str:
        """sha256 (hex) of data, detector weights and those settings that features and AP depend on."""
        from retinaface.convert import weights_file

        config = self.job.load_config()
        config.model.weights = hashlib.sha256(weights_file(self.job.weights).read_bytes()).hexdigest()
        evaluation = {**config.val_dataloader.dataset, "data_root": None}  # where the data lie changes nothing
        settings = {"model": config.model, "evaluation": evaluation}
        parts = [self.train.fingerprint(), self.val.fingerprint(), json.dumps(settings, sort_keys=True)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def evaluate(self) -> float:
        """AP@50 in [0, 1] of the starting detector on the validation split, measured as in every trial."""
        from retinaface.training import validate

        return validate(self.job.load_config(), self.val)

    def image_features(self, limit: int, seed: int) -> Tensor:
        """float32 (n, 3, 3, C + 4) on the CPU: the features of n = min(limit, num_images) training images.

        Which images is drawn by `seed`, without replacement; they come in the order of the annotation file. See
        `features.image_features` for the axes; ignored boxes take no part.
        """
        from retinaface.convert import load_detector
        from retinaface.features import extract, frozen

        config = self.job.load_config()
        detector = frozen(load_detector(config, self.job.weights))
        return extract(detector, self.training_images(config, limit, seed))

    def training_images(self, config: Config, limit: int, seed: int) -> Iterable[dict]:
        """The images that `image_features` looks at, as the evaluation pipeline gives them."""
        import numpy as np
        from torch.utils.data import DataLoader, Subset

        chosen = np.random.default_rng(seed).choice(self.num_images, min(limit, self.num_images), replace=False)
        images = Subset(images_of(config, self.train), sorted(chosen))
        return DataLoader(images, batch_size=None, num_workers=config.val_dataloader.num_workers)


def images_of(config: Config, split: coco.CocoSplit) -> Dataset:
    """A split's images as the config's evaluation pipeline gives them, none of their faces too small to count."""
    from mmdet.registry import DATASETS

    from retinaface.training import use_split

    settings = copy.deepcopy(config.val_dataloader)
    with TemporaryDirectory() as folder:
        use_split(settings, split, Path(folder))
        return DATASETS.build({**settings.dataset, "min_face": 0.0})
