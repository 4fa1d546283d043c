"""A trial as users write them, quick enough to test NNI's side: a made-up score in place of training.

`--crash N` and friends make the trials misbehave, by their number in the experiment.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import nni

import nni_hyperfd
from support.made_up import MadeUpDataset

FINAL = {"epochs": 2, "seconds": 0.1, "phase": "fine-tune"}  # what trial_code/finetune.py reports beside `default`


class QuickDataset(MadeUpDataset):
    """A made-up data set that can make its service job wait."""

    def before(self) -> None:
        """Called when a service job begins."""

    def fingerprint(self) -> str:
        self.before()
        return super().fingerprint()


class ImageFolder(QuickDataset):
    """Images that really lie on the disk, with boxes in `boxes.json`: name -> list of (x, y, w, h)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.boxes = json.loads((folder / "boxes.json").read_text())
        self.num_images, self.num_boxes = len(self.boxes), sum(map(len, self.boxes.values()))

    def fingerprint(self) -> str:
        return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(self.folder.iterdir()))).hexdigest()

    def image_features(self, limit: int, seed: int):
        import torch
        from PIL import Image

        features = []
        for name, boxes in list(self.boxes.items())[:limit]:
            image = Image.open(self.folder / name)
            pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).float() / 255
            box = torch.tensor(boxes, dtype=torch.float32).mean(0) / max(image.size)
            channels = torch.stack([chunk.mean() for chunk in pixels.chunk(8)])
            features.append(torch.cat([channels, box]).expand(3, 3, 12))
        return torch.stack(features)


def score(parameters: dict) -> float:
    return round(0.5 + 0.1 * parameters["x"] - 0.05 * (parameters["kind"] == "b"), 6)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--ran", type=Path, required=True, help="file for notes on what was really run")
    parser.add_argument("--data", type=int, default=1)
    parser.add_argument("--feature-dim", type=int, default=12)
    parser.add_argument("--images", type=Path, help="folder of images in place of made-up features")
    parser.add_argument("--hook", choices=["dataset", "plain", "none"], default="dataset")
    parser.add_argument("--crash", type=int, nargs="*", default=[])
    parser.add_argument("--nan", type=int, nargs="*", default=[])
    parser.add_argument("--twice", type=int, nargs="*", default=[])
    parser.add_argument("--silent", type=int, nargs="*", default=[])
    parser.add_argument("--hold-service", type=int, nargs="*", default=[], help="numbers of service trials that wait")
    parser.add_argument("--hold", type=Path, help="trial N goes on when the file N appears in this folder, or `all`")
    args = parser.parse_args()
    number = int(os.environ.get("NNI_TRIAL_SEQ_ID", -1))
    if number in args.crash:
        os.kill(os.getpid(), signal.SIGKILL)  # before it asked for parameters: the next trial gets them in NNI 3.0

    if args.hook == "none":
        parameters = nni.get_next_parameter()
    elif args.hook == "plain":
        parameters = nni_hyperfd.get_next_parameter()
    else:
        dataset = ImageFolder(args.images) if args.images else QuickDataset(args.data, args.feature_dim)
        if number in args.hold_service:
            dataset.before = lambda: (note(args.ran, "service", number, {}), wait_for(args.hold, number))
        parameters = nni_hyperfd.get_next_parameter(dataset)
    note(args.ran, "begin", number, parameters)
    if args.hold:
        wait_for(args.hold, number)
    value = score(parameters)
    nni.report_intermediate_result({"default": value / 2})
    if number in args.silent:
        sys.exit(0)
    if number in args.nan:
        value = float("nan")
    nni.report_final_result({"default": value} | FINAL)
    if number in args.twice:
        nni.report_final_result({"default": value + 0.4} | FINAL)
    note(args.ran, "end", number, parameters)


def note(path: Path, event: str, number: int, parameters: dict) -> None:
    entry = {"trial": nni.get_trial_id(), "number": number, "event": event, "parameters": parameters}
    with path.open("a") as file:  # one short write, so that trials do not mix their lines
        file.write(json.dumps(entry | {"time": time.time()}) + "\n")


def wait_for(folder: Path, number: int) -> None:
    while not any((folder / name).exists() for name in (str(number), "all")):
        time.sleep(0.05)


if __name__ == "__main__":
    main()
