"""Prints a table of a detector's AP@50 on face data sets, measured by this trial and by pycocotools.

    python evaluate.py --data FOLDER [--config configs/X.py] [--split test] [--eval-size 720] [--wider]

FOLDER is a data set, or a folder of data sets. AP@50 of the trial is that of MMDetection; pycocotools treats ignored
faces differently, and takes the precision at 101 points of recall. --wider adds the columns easy, medium and hard of
WIDER FACE's own protocol, for annotations with its difficulties (see retinaface/wider.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
import io

from retinaface.folders import data_sets
from retinaface.options import Options, run_script

from nni_hyperfd.datasets import coco

COCO = {"type": "CocoMetric", "metric": "bbox"}
COLUMNS = {"AP@50": "face/ap50", "pycocotools": "coco/bbox_mAP_50"}
WIDER_COLUMNS = {level: f"wider/{level}" for level in coco.WIDER_LEVELS}


def main(argv: list[str] | None = None) -> dict[str, dict[str, float]]:
    """Print the table; returns its values by data set and column."""
    parser = Options.parser(__doc__)
    parser.add_argument("--split", default="test", help="which json file of each data set")
    parser.add_argument("--wider", action="store_true", help="WIDER FACE's easy, medium and hard as well")
    arguments = parser.parse_args(argv)
    options = Options.from_arguments(arguments).with_start()
    columns = {**COLUMNS, **(WIDER_COLUMNS if arguments.wider else {})}
    folders = data_sets(options.data, arguments.split)
    print(_row(["data set", "images", "faces", *columns]), _row(["---"] * (3 + len(columns))), sep="\n", flush=True)
    table = {}
    for name, folder in folders.items():
        split = coco.load(folder, arguments.split, strict=options.strict)
        found = measure(dataclasses.replace(options, data=folder), split, arguments.wider)
        table[name] = {column: found[key] for column, key in columns.items()}
        cells = [f"{value:.3f}" for value in table[name].values()]
        print(_row([name, str(split.num_images), str(found["face/faces"]), *cells]), flush=True)
    return table


def measure(options: Options, split: coco.CocoSplit, wider: bool = False) -> dict[str, float]:
    """All metrics of a detector on a split, from a single pass over its images.

    Args:
        options: the detector and the size of the images.
        split: the annotations.
        wider: include WIDER FACE's own protocol.
    """
    from retinaface.pipelines import find_transform
    from retinaface.training import evaluate

    config = options.load_config()
    find_transform(config.val_dataloader, "PackDetInputs").meta_keys += ("instances",)
    evaluators = [config.val_evaluator, COCO] + ([{"type": "WiderFaceAP"}] if wider else [])
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints each of its steps
        return evaluate(config, split, evaluators)


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    run_script(main)
