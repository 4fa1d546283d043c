"""Label statistics: what the annotations of an image say, in numbers (last row of Table 10 of the HyperFD paper)."""

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
"""Logarithms are natural, and those of counts are of the count plus 1.

Sizes are the logarithm of sqrt(area of the face / area of the image); middle is the median, spread the standard
deviation. x and y are of the centres of faces, as shares of width and height, 0 in the middle. The side of the image is
sqrt(width * height) in px.
"""

_NONE = np.log(0.005)  # the size where there is no face: smaller than any that can be recognised


def statistics(image: coco.Record, faces: list[coco.Record]) -> NDArray[np.float32]:
    """Compute `STATISTICS` (14,) of one image; without a usable face, those of position, spread and share are 0.

    Args:
        image: its record, with `width` and `height`.
        faces: its annotations, as in `coco.CocoSplit`.
    """
    width, height = image["width"], image["height"]
    boxes = np.array([face["bbox"] for face in faces if coco.is_usable(face)], float).reshape(-1, 4)
    form = [np.log(width / height), np.log(width * height) / 2]
    counts = [np.log1p(len(boxes)), np.log1p(len(faces) - len(boxes))]
    if not len(boxes):
        return np.array([*counts, _NONE, _NONE, _NONE, *np.zeros(7), *form], np.float32)
    x, y, w, h = (boxes / [width, height, width, height]).T
    sizes = np.log(w * h) / 2
    x, y = x + w / 2 - 0.5, y + h / 2 - 0.5
    positions = [x.mean(), y.mean(), x.std(), y.std()]
    shape = np.log(boxes[:, 2] / boxes[:, 3]).mean()
    scale = [sizes.min(), np.median(sizes), sizes.max(), sizes.std(), (w * h).sum()]
    return np.array([*counts, *scale, *positions, shape, *form], np.float32)
