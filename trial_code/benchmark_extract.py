"""Measures how fast features are extracted, compared with the bare forward pass of the same detector.

    python benchmark_extract.py --data FOLDER [--eval-size 720] [--limit 200] ...

Both are images per second of one run. "extract" is everything from the JPEG file to the group means, an image at a
time. "forward" is backbone, neck and head, as in a trial's validation, on batches that are already decoded, padded and
normalised.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from retinaface.face_dataset import FaceDataset
from retinaface.options import Options, run_script

if TYPE_CHECKING:
    from mmdet.models import BaseDetector
    from torch import Tensor


BATCH = 8
"""Number of images that the forward pass takes together, as a trial's validation does."""


def main(argv: list[str] | None = None) -> tuple[float, float]:
    """Print and return images per second of extraction and of the forward pass."""
    parser = Options.parser(__doc__)
    parser.add_argument("--limit", type=int, default=200, help="maximum number of images")
    parser.add_argument("--repeats", type=int, default=5, help="number of alternating measurements; medians count")
    arguments = parser.parse_args(argv)
    return measure(FaceDataset(Options.from_arguments(arguments)), arguments.limit, arguments.repeats)


def measure(dataset: FaceDataset, limit: int, repeats: int) -> tuple[float, float]:
    """Print and return images per second of extraction and of the forward pass, medians of `repeats` measurements."""
    import torch
    from mmengine.dataset import pseudo_collate
    from retinaface.features import extract, frozen

    config, detector = dataset.describer()
    detector.to("cuda" if torch.cuda.is_available() else "cpu")
    extractor = frozen(detector)
    images = dataset.training_images(config, limit, dataset.options.seed)
    batches = [
        detector.data_preprocessor(pseudo_collate(list(batch.values())))["inputs"]
        for batch in batches_of_like_size(images, detector.data_preprocessor.pad_size_divisor)
    ]
    count = sum(map(len, batches))
    _forward(detector, batches)  # the first pass allocates memory
    times = [
        (_seconds(lambda: _forward(detector, batches)), _seconds(lambda: extract(extractor, images)))
        for _ in range(repeats)
    ]
    bare, whole = (count / statistics.median(column) for column in zip(*times, strict=True))
    print(f"{count} images: extract {whole:.1f} images/s, forward {bare:.1f} images/s, ratio {whole / bare:.2f}")
    return whole, bare


def batches_of_like_size(samples: Iterable[dict[str, Any]], divisor: int) -> Iterator[dict[int, Any]]:
    """Batches of `BATCH` images at most that have the same size once they are padded to multiples of `divisor`.

    So no image is padded further than by itself.

    Yields:
        Samples by their position among all `samples`.
    """
    waiting: dict[tuple[int, int], dict[int, Any]] = {}
    for position, sample in enumerate(samples):
        height, width = sample["inputs"].shape[-2:]
        shape = math.ceil(height / divisor), math.ceil(width / divisor)
        alike = waiting.setdefault(shape, {})
        alike[position] = sample
        if len(alike) == BATCH:
            yield waiting.pop(shape)
    yield from waiting.values()


def _forward(detector: BaseDetector, batches: list[Tensor]) -> None:
    import torch

    with torch.inference_mode():
        for batch in batches:
            detector(batch)
        if torch.cuda.is_available():
            torch.cuda.synchronize()


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    run_script(main)
