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

    ``paths`` (absolute), ``splits`` (str), ``images`` (records with ``width`` and ``height``) and ``faces`` (the
    annotations of each, as `coco.CocoSplit` has them) have one entry per image.
    """

    paths: list[Path]
    splits: NDArray[np.str_]
    images: list[coco.Record]
    faces: list[list[coco.Record]]

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Which images have a face that is not ignored."""
        return np.array([any(not face["ignore"] and not face["iscrowd"] for face in own) for own in self.faces])

    def chosen(self, places: NDArray[np.int_]) -> Pool:
        """Only the images at these places."""
        paths, images, faces = (
            [entries[place] for place in places] for entries in (self.paths, self.images, self.faces)
        )
        return Pool(paths, self.splits[places], images, faces)


def read(sources: Sequence[Path]) -> Pool:
    """All splits of all sources; raises AnnotationError for a faulty one, SubsetsError where one is named twice."""
    if len({source.resolve() for source in sources}) < len(sources):
        raise SubsetsError(f"{', '.join(map(str, sources))}: one folder is named twice; name every source once.")
    paths, splits, images, faces = [], [], [], []
    for split in SPLITS:
        for source in sources:
            # Without a training split it is no data set, and the check says so.
            if split != "train" and not (source / f"{split}.json").exists():
                continue
            data = coco.load(source, split)
            by_image = defaultdict(list)
            for annotation in data.annotations:
                by_image[annotation["image_id"]].append(annotation)
            paths += [data.image_path(image).absolute() for image in data.images]
            splits += [split] * data.num_images
            images += data.images
            faces += [by_image[image["id"]] for image in data.images]
    return Pool(paths, np.array(splits), images, faces)
