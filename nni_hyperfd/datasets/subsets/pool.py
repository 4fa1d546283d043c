"""The images of all sources as one list."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nni_hyperfd.datasets import coco
from nni_hyperfd.datasets.subsets.errors import SubsetsError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Pool:
    """Images in the order of `SPLITS`, and of the sources within a split.

    Attributes:
        paths: absolute path of each image.
        splits: (n,) name of each image's split.
        images: record of each image, with `width` and `height`.
        faces: annotations of each image, as in `coco.CocoSplit`.
    """

    paths: list[Path]
    splits: NDArray[np.str_]
    images: list[coco.Record]
    faces: list[list[coco.Record]]

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Which images (n,) have a face that is not ignored."""
        return np.array([any(map(coco.is_usable, faces)) for faces in self.faces])

    def select(self, indices: NDArray[np.int_]) -> Pool:
        """Return the images at these indices."""
        return Pool(
            [self.paths[index] for index in indices],
            self.splits[indices],
            [self.images[index] for index in indices],
            [self.faces[index] for index in indices],
        )


def read(sources: Sequence[Path]) -> Pool:
    """Load all splits of all sources.

    Args:
        sources: folders of data sets.

    Raises:
        AnnotationError: a source cannot be used.
        SubsetsError: a source is named twice.
    """
    if len({source.resolve() for source in sources}) < len(sources):
        raise SubsetsError(f"{', '.join(map(str, sources))}: one folder is named twice; name every source once.")
    paths: list[Path] = []
    splits: list[str] = []
    images: list[coco.Record] = []
    faces: list[list[coco.Record]] = []
    for split in SPLITS:
        for source in sources:
            # A data set must have a training split: `coco.load` says so if it is missing.
            if split != "train" and not (source / f"{split}.json").exists():
                continue
            data = coco.load(source, split)
            by_image: dict[int, list[coco.Record]] = defaultdict(list)
            for annotation in data.annotations:
                by_image[annotation["image_id"]].append(annotation)
            paths += [data.image_path(image).absolute() for image in data.images]
            splits += [split] * data.num_images
            images += data.images
            faces += [by_image[image["id"]] for image in data.images]
    return Pool(paths, np.array(splits), images, faces)
