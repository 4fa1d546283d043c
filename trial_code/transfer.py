"""What fine-tuning brings on each of many data sets: AP@50 on their test images before and after, over several seeds.

    python transfer.py --data FOLDER --weights FILE --out FOLDER [--only NAME ...] [--seeds 3] ...

--data is a folder of data sets. Every finished run is a row of OUT/transfer.csv, every data set has a figure with
detections on its test images, which stays on this machine as the images do. Called again with the same options the
command goes on where it was stopped.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evaluate import data_sets
from retinaface.job import Job, JobError, run_script
from retinaface.rows import RowFile, note

from nni_hyperfd.datasets import coco

if TYPE_CHECKING:
    from mmengine.config import Config
    from torch import Tensor

COLUMNS = ("domain", "seed", "before", "after", "validation", "epochs", "seconds")
PICTURES = 12
SURE = 0.5


def main(argv: list[str] | None = None) -> None:
    parser = Job.parser(__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the table, the figures and checkpoints")
    parser.add_argument("--only", nargs="+", help="names of the data sets to take; all by default")
    parser.add_argument("--seeds", type=int, default=3, help="runs on each data set, with seeds from 0")
    parser.add_argument("--parameters", type=json.loads, default={}, help="JSON object of training parameters")
    arguments = parser.parse_args(argv)
    job = Job.from_arguments(arguments)
    if job.weights is None:
        raise JobError("the detector to start from is not given; name its file with --weights.")
    folders = {path.name: path for path in data_sets(job.data, "test")}
    if strange := [name for name in arguments.only or () if name not in folders]:
        raise JobError(f"--only names {', '.join(strange)}; {job.data} has the data sets {', '.join(folders)}.")
    table = Table(arguments.out, {**dataclasses.asdict(job), "parameters": arguments.parameters})
    for folder in [folders[name] for name in arguments.only or folders]:
        for seed in range(arguments.seeds):
            if not table.has(folder.name, seed):
                own = dataclasses.replace(job, data=folder, seed=seed)
                table.add(transfer(own, arguments.parameters, arguments.out, table.before(folder.name)))
    print(table.summary())


def transfer(job: Job, parameters: dict, out: Path, before: float | None = None) -> dict:
    """Fine-tune on one data set; the row for the table. `before` is measured unless it is known already."""
    from retinaface.parameters import apply_parameters
    from retinaface.training import train, tuned, validate

    name = job.data.name
    splits = {split: coco.load(job.data, split, strict=job.strict) for split in ("train", "val", "test")}
    if before is None:
        before = validate(job.load_config(), splits["test"])
    config = apply_parameters(job.load_config(), parameters)
    print(f"{name}, seed {job.seed}: AP@50 {before:.4f} on its test images before", flush=True)
    outcome = train(config, splits["train"], splits["val"], out / f"{name}-{job.seed}", gpus=job.gpus)
    config = tuned(config, outcome)
    after = validate(config, splits["test"])
    print(f"{name}, seed {job.seed}: AP@50 {after:.4f} after", flush=True)
    if job.seed == 0:
        untuned, shown = job.load_config(), job.load_config()
        shown.model = config.model
        draw(splits["test"], [untuned, shown], out / f"{name}.png")
    values = (name, job.seed, before, after, outcome.best, outcome.epochs, round(outcome.seconds))
    return dict(zip(COLUMNS, values, strict=True))


class Table:
    """The rows, each written when it is known; `settings` are what they were all measured with."""

    def __init__(self, folder: Path, settings: dict) -> None:
        note(folder / "settings.json", settings)
        self.file = RowFile(folder / "transfer.csv", COLUMNS)
        self.rows, self.add = self.file.rows, self.file.add

    def has(self, domain: str, seed: int) -> bool:
        return any((row["domain"], row["seed"]) == (domain, str(seed)) for row in self.rows)

    def before(self, domain: str) -> float | None:
        return next((float(row["before"]) for row in self.rows if row["domain"] == domain), None)

    def summary(self) -> str:
        """Markdown: each data set's AP before, and its mean and standard deviation over the seeds after."""
        lines = ["| data set | before | after | deviation | seeds |", "| --- | --- | --- | --- | --- |"]
        for domain in dict.fromkeys(row["domain"] for row in self.rows):
            after = [float(row["after"]) for row in self.rows if row["domain"] == domain]
            spread = f"{statistics.stdev(after):.3f}" if len(after) > 1 else ""
            mean = statistics.mean(after)
            lines.append(f"| {domain} | {self.before(domain):.3f} | {mean:.3f} | {spread} | {len(after)} |")
        return "\n".join(lines)


def draw(split: coco.CocoSplit, configs: Sequence[Config], path: Path) -> None:
    """Faces as annotated (white), and found by each config's detector with a score of at least 0.5 (orange, green)."""
    import matplotlib.pyplot as plt
    from matplotlib.patches import Rectangle
    from PIL import Image, ImageOps

    count = min(PICTURES, split.num_images)
    places = [round(k * split.num_images / count) for k in range(count)]
    chosen = [split.images[place] for place in places]
    found = [detections(config, split, places) for config in configs]
    figure, axes = plt.subplots(-(-count // 4), 4, figsize=(16, 4 * -(-count // 4)), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, *boxes in zip(axes.flat, chosen, *found, strict=False):
        axis.imshow(ImageOps.exif_transpose(Image.open(split.image_path(image))).convert("RGB"))
        truth = [a["bbox"] for a in split.annotations if a["image_id"] == image["id"]]
        drawn = [("white", truth)] + [
            (colour, [(x1, y1, x2 - x1, y2 - y1) for x1, y1, x2, y2 in rows.tolist()])
            for colour, rows in zip(("tab:orange", "lime"), boxes, strict=True)
        ]
        for width, (colour, rows) in zip((3, 2.5, 1.5), drawn, strict=True):
            for x, y, w, h in rows:
                axis.add_patch(Rectangle((x, y), w, h, fill=False, edgecolor=colour, linewidth=width))
    figure.suptitle(f"{path.stem}: annotated (white), found before (orange) and after fine-tuning (green)")
    figure.tight_layout()
    figure.savefig(path, dpi=60)
    plt.close(figure)


def detections(config: Config, split: coco.CocoSplit, places: Sequence[int]) -> list[Tensor]:
    """Boxes (n, 4) that the config's detector is sure of in some of a split's images, in pixels of the file."""
    import torch
    from mmengine.dataset import pseudo_collate
    from retinaface.convert import load_detector
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
