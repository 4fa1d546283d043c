"""Measures what fine-tuning gains on each of many data sets: AP@50 on their test images before and after.

    python transfer.py --data FOLDER --out FOLDER [--only NAME ...] [--seeds 3] ...

--data is a folder of data sets. Each finished run is a row of OUT/transfer.csv, and each data set has a figure with
detections on its test images, which must stay on this machine like the images themselves. The same command continues
where it was stopped.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinaface.folders import data_sets
from retinaface.options import Options, run_script

from nni_hyperfd.datasets import coco
from nni_hyperfd.files import RowFile, note

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from mmengine.config import Config
    from torch import Tensor

COLUMNS = ("domain", "seed", "before", "after", "validation", "epochs", "seconds")
PICTURES = 12
SURE = 0.5
"""Smallest score of the detections that are drawn."""


def main(argv: list[str] | None = None) -> None:
    """Do the missing runs and print the table."""
    parser = Options.parser(__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the table, the figures and checkpoints")
    parser.add_argument("--only", nargs="+", help="names of the data sets to use; all by default")
    parser.add_argument("--seeds", type=int, default=3, help="runs on each data set, with seeds from 0")
    parser.add_argument("--parameters", type=json.loads, default={}, help="JSON object of training parameters")
    arguments = parser.parse_args(argv)
    options = Options.from_arguments(arguments).with_start()
    folders = data_sets(options.data, "test", arguments.only)
    table = Table(arguments.out, {**dataclasses.asdict(options), "parameters": arguments.parameters})
    for name, folder in folders.items():
        for seed in range(arguments.seeds):
            if not table.has(name, seed):
                own = dataclasses.replace(options, data=folder, seed=seed)
                table.add(transfer(own, arguments.parameters, arguments.out, table.before(name)))
    print(table.summary())


def transfer(
    options: Options, parameters: Mapping[str, Any], out: Path, before: float | None = None
) -> dict[str, str | float]:
    """Fine-tune on one data set, and draw the figure if the seed is 0.

    Args:
        options: the data set, the starting detector and how to train.
        parameters: training parameters.
        out: folder for the figure and the checkpoints.
        before: AP@50 on the test images before; measured if None.

    Returns:
        The row of the table.
    """
    from retinaface.parameters import apply_parameters
    from retinaface.training import train, tuned, validate

    name = options.data.name
    splits = {split: coco.load(options.data, split, strict=options.strict) for split in ("train", "val", "test")}
    if before is None:
        before = validate(options.load_config(), splits["test"])
    config = apply_parameters(options.load_config(), parameters)
    print(f"{name}, seed {options.seed}: AP@50 {before:.4f} on its test images before", flush=True)
    outcome = train(config, splits["train"], splits["val"], out / f"{name}-{options.seed}", gpus=options.gpus)
    config = tuned(config, outcome)
    after = validate(config, splits["test"])
    print(f"{name}, seed {options.seed}: AP@50 {after:.4f} after", flush=True)
    if options.seed == 0:
        untuned, shown = options.load_config(), options.load_config()
        shown.model = config.model
        draw(splits["test"], [untuned, shown], out / f"{name}.png")
    values = (name, options.seed, before, after, outcome.best, outcome.epochs, round(outcome.seconds))
    return dict(zip(COLUMNS, values, strict=True))


class Table:
    """The rows of all runs, each on disk as soon as it is known.

    Args:
        folder: folder of the table.
        settings: what all rows were measured with.

    Raises:
        FolderError: the folder has rows that were measured with other settings.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        note(folder / "settings.json", settings)
        self.file = RowFile(folder / "transfer.csv", COLUMNS)
        self.rows, self.add = self.file.rows, self.file.add

    def has(self, domain: str, seed: int) -> bool:
        """Whether the table has the row of a run."""
        return any((row["domain"], row["seed"]) == (domain, str(seed)) for row in self.rows)

    def before(self, domain: str) -> float | None:
        """AP@50 of a data set before fine-tuning, if it is known."""
        return next((float(row["before"]) for row in self.rows if row["domain"] == domain), None)

    def summary(self) -> str:
        """Markdown table of each data set's AP@50 before and after: mean and standard deviation over the seeds."""
        lines = ["| data set | before | after | deviation | seeds |", "| --- | --- | --- | --- | --- |"]
        for domain in dict.fromkeys(row["domain"] for row in self.rows):
            after = [float(row["after"]) for row in self.rows if row["domain"] == domain]
            spread = f"{statistics.stdev(after):.3f}" if len(after) > 1 else ""
            mean = statistics.mean(after)
            lines.append(f"| {domain} | {self.before(domain):.3f} | {mean:.3f} | {spread} | {len(after)} |")
        return "\n".join(lines)


def draw(split: coco.CocoSplit, configs: Sequence[Config], path: Path) -> None:
    """Draw faces as annotated (white) and as found by two detectors (orange and green).

    Args:
        split: the annotations, from which images are chosen evenly.
        configs: configs of the two detectors, with the weights that they name.
        path: PNG file to write.
    """
    import matplotlib.pyplot as plt
    from PIL import Image, ImageOps

    count = min(PICTURES, split.num_images)
    places = [round(k * split.num_images / count) for k in range(count)]
    found = [detections(config, split, places) for config in configs]
    figure, axes = plt.subplots(-(-count // 4), 4, figsize=(16, 4 * -(-count // 4)), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, place, *boxes in zip(axes.flat, places, *found, strict=False):
        image = split.images[place]
        axis.imshow(ImageOps.exif_transpose(Image.open(split.image_path(image))).convert("RGB"))
        _add_boxes(axis, [a["bbox"] for a in split.annotations if a["image_id"] == image["id"]], "white", 3)
        for rows, colour, width in zip(boxes, ("tab:orange", "lime"), (2.5, 1.5), strict=True):
            _add_boxes(axis, [(x1, y1, x2 - x1, y2 - y1) for x1, y1, x2, y2 in rows.tolist()], colour, width)
    figure.suptitle(f"{path.stem}: annotated (white), found before (orange) and after fine-tuning (green)")
    figure.tight_layout()
    figure.savefig(path, dpi=60)
    plt.close(figure)


def _add_boxes(axis: Axes, boxes: Sequence[Sequence[float]], colour: str, width: float) -> None:
    """Draw boxes (x, y, width, height)."""
    from matplotlib.patches import Rectangle

    for x, y, w, h in boxes:
        axis.add_patch(Rectangle((x, y), w, h, fill=False, edgecolor=colour, linewidth=width))


def detections(config: Config, split: coco.CocoSplit, places: Sequence[int]) -> list[Tensor]:
    """Boxes (n, 4) with a score of at least 0.5 in some images, as x1, y1, x2, y2 in pixels of the file.

    Args:
        config: config of the detector, with the weights that it names.
        split: the annotations.
        places: indices of the images.
    """
    import torch
    from mmengine.dataset import pseudo_collate
    from retinaface.build import load_detector
    from retinaface.face_dataset import images_of

    detector = load_detector(config, config.model.weights).to("cuda" if torch.cuda.is_available() else "cpu")
    images = images_of(config, split)
    found = []
    with torch.no_grad():
        for place in places:
            (result,) = detector.test_step(pseudo_collate([images[place]]))
            sure = result.pred_instances.scores >= SURE
            found.append(result.pred_instances.bboxes[sure].cpu())
    return found


if __name__ == "__main__":
    run_script(main)
