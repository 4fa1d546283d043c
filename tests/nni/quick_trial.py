"""A trial as users write them, quick enough to test NNI's side: a made-up score in place of training.

`--fail N` and friends make the trials misbehave, by their number in the experiment.
"""

import argparse
import os
import signal
import sys

import nni
import torch

import nni_hyperfd


class QuickDataset:
    """A data set in the sense of `nni_hyperfd.trial.Dataset`, with features drawn from its seed."""

    num_images, num_boxes = 20, 31

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def fingerprint(self) -> str:
        return f"quick-{self.seed}"

    def evaluate(self) -> float:
        return 0.25

    def image_features(self, limit: int, seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1000 * self.seed + seed)
        features = torch.randn(min(limit, self.num_images), 3, 3, 12, generator=generator)
        features[::3, :, 0] = torch.nan  # images without a positive anchor
        return features


def score(parameters: dict) -> float:
    return round(0.5 + 0.1 * parameters["x"] - 0.05 * (parameters["kind"] == "b"), 6)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=int, default=1)
    parser.add_argument("--hook", choices=["dataset", "plain", "none"], default="dataset")
    parser.add_argument("--crash", type=int, nargs="*", default=[])
    parser.add_argument("--nan", type=int, nargs="*", default=[])
    parser.add_argument("--twice", type=int, nargs="*", default=[])
    parser.add_argument("--silent", type=int, nargs="*", default=[])
    parser.add_argument("--hold", help="file that has to appear before an ordinary trial reports")
    args = parser.parse_args()
    number = int(os.environ.get("NNI_TRIAL_SEQ_ID", -1))
    if number in args.crash:
        os.kill(os.getpid(), signal.SIGKILL)  # before it asked for parameters: the next trial gets them in NNI 3.0

    if args.hook == "none":
        parameters = nni.get_next_parameter()
    else:
        parameters = nni_hyperfd.get_next_parameter(QuickDataset(args.data) if args.hook == "dataset" else None)
    if args.hold:
        wait_for(args.hold)
    value = score(parameters)
    nni.report_intermediate_result({"default": value / 2})
    if number in args.silent:
        sys.exit(0)
    if number in args.nan:
        value = float("nan")
    nni.report_final_result({"default": value, "kind": "quick"})
    if number in args.twice:
        nni.report_final_result({"default": value + 0.4, "kind": "quick"})


def wait_for(path: str) -> None:
    import time

    while not os.path.exists(path):
        time.sleep(0.05)


if __name__ == "__main__":
    main()
