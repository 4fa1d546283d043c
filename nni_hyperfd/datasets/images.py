"""Reading and writing image files with OpenCV."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from nni_hyperfd import files

Image = NDArray[np.uint8]
"""(height, width, 3), BGR."""


def read_image(path: Path) -> Image:
    """Read an image file that was checked before.

    Returns:
        (height, width, 3), BGR, as the detector sees it (after Exif rotation).

    Raises:
        OSError: the file cannot be read or decoded any more.
    """
    # cv2.imread takes no file names that are not UTF-8.
    data = np.frombuffer(path.read_bytes(), np.uint8)
    image: Image | None = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise OSError(0, "the image has changed since the check and cannot be decoded", str(path))
    return image


def save_image(path: Path, image: Image) -> None:
    """Write an image file completely or not at all.

    Args:
        path: the file, `.jpg` or `.png`.
        image: (height, width, 3), BGR.

    Raises:
        ValueError: the file has another suffix.
    """
    options = {".jpg": [cv2.IMWRITE_JPEG_QUALITY, 92], ".png": []}
    if path.suffix not in options:
        raise ValueError(f"{path}: the picture cannot be written in this format; name a .jpg or .png file.")
    data = cv2.imencode(path.suffix, image, options[path.suffix])[1]
    files.write_bytes(path, data.tobytes())
