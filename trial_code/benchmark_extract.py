"""How fast the features of a data set are extracted, beside the bare forward pass of the same detector.

    python benchmark_extract.py --data FOLDER --weights FILE [--config ...] [--eval-size 720] [--limit 200] ...

Both in images a second, from one run. "extract" is everything from the JPEG file to the group means; "forward" is
backbone, neck and head, as a trial's validation runs them, on batches that were decoded, padded and normalised before.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from retinaface.face_dataset import FaceDataset
from retinaface.job import Job, run_script


def main(argv: list[str] | None = None) -> tuple[float, float]:
    parser = Job.parser(__doc__.splitlines()[0])
    parser.add_argument("--limit", type=int, default=200, help="the most images to take")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each, taken in turn; medians count")
    arguments = parser.parse_args(argv)
    dataset = FaceDataset(Job.from_arguments(arguments))

    import torch
    from mmengine.dataset import pseudo_collate
    from retinaface.convert import load_detector
    from retinaface.features import batches_of_like_size, extract, frozen

    config = dataset.job.load_config()
    detector = load_detector(config, dataset.job.weights)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    detector.to(device)
    extractor = frozen(detector)
    images = dataset.training_images(config, arguments.limit, dataset.job.seed)
    batches = [
        detector.data_preprocessor(pseudo_collate(list(batch.values())))["inputs"]
        for batch in batches_of_like_size(images, detector.data_preprocessor.pad_size_divisor)
    ]
    count = sum(map(len, batches))

    def forward() -> None:
        with torch.inference_mode():
            for batch in batches:
                detector(batch)
            if device == "cuda":
                torch.cuda.synchronize()

    forward()  # the first pass allocates
    times = [(_seconds(forward), _seconds(lambda: extract(extractor, images))) for _ in range(arguments.repeats)]
    bare, whole = (count / statistics.median(column) for column in zip(*times, strict=True))
    print(f"{count} images: extract {whole:.1f} images/s, forward {bare:.1f} images/s, ratio {whole / bare:.2f}")
    return whole, bare


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    run_script(main)
