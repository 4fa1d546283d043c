"""Label statistics: what the annotations of an image say, in numbers (the last row of Table 10)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nni_hyperfd.datasets import coco

STATISTICS = (
    "log faces",
    "log ignored faces",
    "smallest face",
    "middle face",
    "largest face",
    "spread of sizes",
    "covered share",
    "mean x",
    "mean y",
    "spread of x",
    "spread of y",
    "log width / height of faces",
    "log width / height of the image",
    "log side of the image",
)
"""Sizes: log of the side of a square of the face's area, as a share of the image's; x and y as shares, too."""

_NONE = np.log(0.005)  # the size of a face where there is none: below any that can be seen


def statistics(image: coco.Record, faces: list[coco.Record]) -> NDArray[np.float32]:
    """`STATISTICS` of one image; those of position and spread are 0 where there is no face."""
    width, height = image["width"], image["height"]
    boxes = np.array([face["bbox"] for face in faces if not face["ignore"] and not face["iscrowd"]], float)
    boxes = boxes.reshape(-1, 4)
    form = [np.log(width / height), np.log(width * height) / 2]
    counts = [np.log1p(len(boxes)), np.log1p(len(faces) - len(boxes))]
    if not len(boxes):
        return np.array([*counts, _NONE, _NONE, _NONE, *np.zeros(7), *form], np.float32)
    x, y, w, h = (boxes / [width, height, width, height]).T
    sizes = np.log(w * h) / 2
    x, y = x + w / 2 - 0.5, y + h / 2 - 0.5
    places = [x.mean(), y.mean(), x.std(), y.std()]
    shape = np.log(boxes[:, 2] / boxes[:, 3]).mean()
    scale = [sizes.min(), np.median(sizes), sizes.max(), sizes.std(), (w * h).sum()]
    return np.array([*counts, *scale, *places, shape, *form], np.float32)
