"""The time that loading checked annotations takes: a split like that of WIDER FACE, at first and from the cache.

    python -m nni_hyperfd.benchmark.annotations

There are 10,000 images of 64 pixels with 12 faces each, which is the average of WIDER FACE. For comparison, the time to
read the same file with `json` alone, without any check, is printed.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from nni_hyperfd.datasets import coco

IMAGES, FACES, SIDE, REPEATS = 10_000, 12, 64, 5


def main() -> None:
    """Make the split in a temporary folder, and print the medians."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        make(folder)
        first = _seconds(lambda: coco.load(folder, "train"))
        pairs = [
            (_seconds(lambda: coco.load(folder, "train")), _seconds(lambda: json.loads(_text(folder))))
            for _ in range(REPEATS)
        ]
    again, floor = (median(column) for column in zip(*pairs, strict=True))
    print(
        f"{IMAGES} images, {IMAGES * FACES} faces: {first:.1f} s at first, {again:.2f} s from the cache; json alone "
        f"{floor:.2f} s (medians of {REPEATS}, ratio {again / floor:.1f})"
    )


def make(folder: Path) -> None:
    """Write a split of different images with boxes inside them."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(1, IMAGES + 1):
        file = f"{number}.jpg"
        Image.fromarray(np.full((SIDE, SIDE, 3), rng.integers(256, size=3), np.uint8)).save(folder / "images" / file)
        images.append({"id": number, "file_name": file, "width": SIDE, "height": SIDE})
        corners, sides = rng.uniform(0, SIDE / 2, (FACES, 2)), rng.uniform(2, SIDE / 2, (FACES, 2))
        for box in np.hstack([corners, sides]).round(2).tolist():
            own = {"bbox": box, "area": box[2] * box[3], "iscrowd": 0, "ignore": 0}
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": 1, **own})
    data = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "face"}]}
    (folder / "train.json").write_text(json.dumps(data))


def _text(folder: Path) -> str:
    """The annotation file."""
    return (folder / "train.json").read_text()


def _seconds(work: Callable[[], object]) -> float:
    """Duration of a call."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
