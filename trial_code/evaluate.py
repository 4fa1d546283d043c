"""How good a detector is on face data sets: a table of AP@50, once ours, once from pycocotools.

    python evaluate.py --data FOLDER --weights FILE [--config configs/X.py] [--split test] [--eval-size 720] [--wider]

FOLDER is a data set, or a folder of data sets. pycocotools differs from the AP@50 of MMDetection, which is ours, in
what it does with ignored faces and in taking precision at 101 points of recall. --wider adds the columns easy, medium
and hard of WIDER FACE's own protocol, for annotations with its difficulties (see retinaface/wider.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
from pathlib import Path

from retinaface.job import Job, JobError, run_script

from nni_hyperfd.datasets import coco

COCO = {"type": "CocoMetric", "metric": "bbox"}
COLUMNS = {"AP@50": "face/ap50", "pycocotools": "coco/bbox_mAP_50"}
WIDER_COLUMNS = {level: f"wider/{level}" for level in ("easy", "medium", "hard")}


def main(argv: list[str] | None = None) -> dict[str, dict[str, float]]:
    parser = Job.parser(__doc__.splitlines()[0])
    parser.add_argument("--split", default="test", help="which json file of each data set")
    parser.add_argument("--wider", action="store_true", help="WIDER FACE's easy, medium and hard as well")
    arguments = parser.parse_args(argv)
    job = Job.from_arguments(arguments)
    if job.weights is None:
        raise JobError("there is no detector to evaluate; name its file with --weights.")
    columns = {**COLUMNS, **(WIDER_COLUMNS if arguments.wider else {})}
    print(_row(["data set", "images", "faces", *columns]), _row(["---"] * (3 + len(columns))), sep="\n", flush=True)
    table = {}
    for folder in data_sets(job.data, arguments.split):
        split = coco.load(folder, arguments.split, strict=job.strict)
        found = measure(dataclasses.replace(job, data=folder), split, arguments.wider)
        table[folder.name] = {column: found[key] for column, key in columns.items()}
        cells = [f"{value:.3f}" for value in table[folder.name].values()]
        print(_row([folder.name, str(split.num_images), str(found["face/faces"]), *cells]), flush=True)
    return table


def data_sets(folder: Path, split: str) -> list[Path]:
    """The folder itself if it has this split, otherwise those of its sub-folders that do."""
    found = [path for path in (folder, *sorted(folder.glob("*"))) if (path / f"{split}.json").is_file()]
    if not found:
        raise JobError(f"neither {folder} nor a folder in it has a {split}.json; name a data set or a folder of them.")
    return found[:1] if found[0] == folder else found


def measure(job: Job, split: coco.CocoSplit, wider: bool = False) -> dict[str, float]:
    """All metrics of the job's detector on a split, from one pass over its images."""
    from retinaface.pipelines import find_transform
    from retinaface.training import evaluate

    config = job.load_config()
    find_transform(config.val_dataloader, "PackDetInputs").meta_keys += ("instances",)
    evaluators = [config.val_evaluator, COCO] + ([{"type": "WiderFaceAP"}] if wider else [])
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools tells all its steps
        return evaluate(config, split, evaluators)


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    run_script(main)
