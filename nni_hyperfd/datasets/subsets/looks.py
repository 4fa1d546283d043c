"""What an image looks like, in three numbers, and which images look the same."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from nni_hyperfd.datasets.images import Image

LOOKS = ("brightness", "contrast", "blur")
"""Mean (0 to 255), standard deviation and variance of the Laplacian (the larger, the sharper) of the grey image."""

_SIDE = 320  # px of the longer side, to which images are scaled because blur depends on the scale
_CHUNK = 100


def look(image: Image) -> NDArray[np.float32]:
    """Compute `LOOKS` and the 64 bits of the difference hash of an image (height, width, 3).

    Returns:
        (67,); the bits are 0 or 1.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    small = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA)
    scale = _SIDE / max(grey.shape)
    size = [max(1, round(side * scale)) for side in grey.shape[::-1]]
    grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    values = [grey.mean(), grey.std(), cv2.Laplacian(grey, cv2.CV_32F).var()]
    return np.array([*values, *(small[:, 1:] > small[:, :-1]).ravel()], np.float32)


def distinct(bits: NDArray[np.float32], distance: int) -> NDArray[np.int_]:
    """Leave out images that look like an earlier one.

    Args:
        bits: hashes (n, bits) of 0 and 1.
        distance: number of different bits up to which two images look the same.

    Returns:
        Indices of the images that differ from every one kept before them.
    """
    signs = 2 * bits.astype(np.float32) - 1
    kept = np.zeros(len(bits), bool)
    for start in range(0, len(bits), _CHUNK):
        # The dot product of two sign vectors is the number of equal bits minus the number of different ones.
        stop = start + _CHUNK
        product = signs[start:stop] @ signs[:stop].T
        near = product >= bits.shape[1] - 2 * distance
        for index, row in enumerate(near, start=start):
            kept[index] = not (row[:index] & kept[:index]).any()
    return np.flatnonzero(kept)
