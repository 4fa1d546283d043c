"""What an image looks like, in three numbers, and which images look the same."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

LOOKS = ("brightness", "contrast", "blur")
_SIDE = 320  # px of the longer side: blur depends on the scale
_CHUNK = 100


def read_image(path: Path) -> NDArray[np.uint8]:
    """The picture (height, width, 3), BGR, as the detector sees it; OSError where it cannot be read any more."""
    # OpenCV's own reading takes no file names that are not UTF-8.
    data = np.frombuffer(path.read_bytes(), np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise OSError(0, "the image has changed since the check and cannot be decoded", str(path))
    return image


def look(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """`LOOKS`, then the 64 bits of the difference hash.

    Of the grey picture, scaled to 320 px: mean (0 to 255), standard deviation, and variance of the Laplacian (the
    larger, the sharper).
    """
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    small = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA)
    scale = _SIDE / max(grey.shape)
    size = [max(1, round(side * scale)) for side in grey.shape[::-1]]
    grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    values = [grey.mean(), grey.std(), cv2.Laplacian(grey, cv2.CV_32F).var()]
    return np.array([*values, *(small[:, 1:] > small[:, :-1]).ravel()], np.float32)


def distinct(bits: NDArray[np.float32], distance: int) -> NDArray[np.int_]:
    """Places of the images that differ in more than ``distance`` of their (n, bits) hash from every one kept before."""
    signs = 2 * bits.astype(np.float32) - 1
    kept = np.zeros(len(bits), bool)
    for start in range(0, len(bits), _CHUNK):
        # The dot product of two sign vectors is the number of equal bits less that of unequal ones.
        stop = start + _CHUNK
        product = signs[start:stop] @ signs[:stop].T
        near = product >= bits.shape[1] - 2 * distance
        for place, row in enumerate(near, start=start):
            kept[place] = not (row[:place] & kept[:place]).any()
    return np.flatnonzero(kept)
