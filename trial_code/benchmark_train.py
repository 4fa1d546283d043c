"""Measures how fast a trial trains and evaluates, compared with a bare PyTorch loop over the same model and loader.

    python benchmark_train.py --data FOLDER [--config ...] [--size 320] [--batch-size 8] [--limit 64] ...

Both are images per second of one run, measured in turn; use --cpu-time on a machine with other load. "trial" is an
epoch with everything that a trial does in it, or one of its validations with the metric. "bare" is only loader, forward
pass, loss, backward pass and optimizer step, or loader and detections. The time from the start of this program to its
first step, including imports, is printed as well.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from retinaface.face_dataset import FaceDataset
from retinaface.options import Options, run_script
from retinaface.pipelines import use_split


def main(argv: list[str] | None = None) -> dict[str, tuple[float, float]]:
    """Print and return images per second of the trial and of the bare loop, for training and for evaluation."""
    parser = Options.parser(__doc__)
    parser.add_argument("--limit", type=int, default=64, help="maximum number of images of an epoch and a validation")
    parser.add_argument("--repeats", type=int, default=5, help="number of alternating measurements; medians count")
    parser.add_argument("--cpu-time", action="store_true", help="CPU time of this process; with --workers 0, no GPU")
    arguments = parser.parse_args(argv)
    dataset = FaceDataset(Options.from_arguments(arguments))
    measured = measure(dataset, arguments.limit, arguments.repeats, arguments.cpu_time)
    for what, (trial, bare) in measured.items():
        print(f"{what}: trial {trial:.1f} images/s, bare loop {bare:.1f} images/s, ratio {trial / bare:.2f}")
    print(f"largest memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")
    return measured


def measure(dataset: FaceDataset, limit: int, repeats: int, cpu_time: bool = False) -> dict[str, tuple[float, float]]:
    """Medians of images per second of the trial and of the bare loop, for training and for evaluation.

    Args:
        dataset: the data set and the starting detector.
        limit: maximum number of images of an epoch and a validation.
        repeats: number of measurements.
        cpu_time: measure CPU time of this process instead of wall-clock time.
    """
    from retinaface.build import build_runner
    from retinaface.parameters import apply_parameters

    config = apply_parameters(dataset.options.load_config(), {"learning_rate": 1e-5})
    # The first epoch, which allocates memory, and the last one, which is validated, are not counted.
    config.train_cfg.update(max_epochs=repeats + 2, val_interval=repeats + 2)
    for loader in (config.train_dataloader, config.val_dataloader):
        loader.dataset.indices = limit
    began = _EpochBegan(cpu_time)
    measurements = _Measurements(began, repeats)
    with TemporaryDirectory() as folder:
        use_split(config.train_dataloader, dataset.train, Path(folder))
        use_split(config.val_dataloader, dataset.val, Path(folder))
        runner = build_runner(config, Path(folder))
        # Everything else that happens in an epoch lies between these two.
        runner.register_hook(began, priority="HIGHEST")
        runner.register_hook(measurements, priority="LOWEST")
        runner.train()
    return {
        what: (statistics.median(trial), statistics.median(bare)) for what, (trial, bare) in measurements.rates.items()
    }


class _EpochBegan(Hook):
    """Notes when a training epoch begins."""

    def __init__(self, cpu_time: bool) -> None:
        self.cpu_time = cpu_time
        self.at = 0.0

    def now(self) -> float:
        """Seconds of the clock in use, after all work of the GPU is done."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.process_time() if self.cpu_time else time.perf_counter()

    def before_train_epoch(self, runner: Runner) -> None:
        self.at = self.now()


class _Measurements(Hook):
    """Runs the bare loop after each epoch, and the trial's validation beside the bare one after the last.

    Attributes:
        rates: images per second of the trial and of the bare loop, for training and for evaluation.
    """

    def __init__(self, began: _EpochBegan, repeats: int) -> None:
        self.began, self.repeats = began, repeats
        self.rates: dict[str, tuple[list[float], list[float]]] = {"training": ([], []), "evaluation": ([], [])}

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if runner.iter == 0:
            print(f"start-up: {time.time() - psutil.Process().create_time():.1f} s to the first step", flush=True)

    def after_train_epoch(self, runner: Runner) -> None:
        loader = runner.train_dataloader
        images = len(loader.dataset)
        trial = images / (self.began.now() - self.began.at)
        bare = self._rate(lambda: _train(runner.model, runner.optim_wrapper.optimizer, loader), images)
        if 0 < runner.epoch <= self.repeats:
            self._add("training", trial, bare)

    def after_train(self, runner: Runner) -> None:
        model, loader = runner.model.eval(), runner.val_dataloader
        images = len(loader.dataset)
        for _ in range(self.repeats):
            trial = self._rate(lambda: _validate(runner.val_loop), images)
            self._add("evaluation", trial, self._rate(lambda: _detect(model, loader), images))

    def _rate(self, work: Callable[[], None], images: int) -> float:
        began = self.began.now()
        work()
        return images / (self.began.now() - began)

    def _add(self, what: str, trial: float, bare: float) -> None:
        for values, value in zip(self.rates[what], (trial, bare), strict=True):
            values.append(value)


def _train(model: Any, optimizer: torch.optim.Optimizer, loader: Any) -> None:
    """An epoch with only what a training loop needs."""
    model.train()
    for batch in loader:
        batch = model.data_preprocessor(batch, True)
        losses = model.loss(batch["inputs"], batch["data_samples"])
        loss: Any = sum(torch.stack(part).sum() if isinstance(part, list) else part for part in losses.values())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10)
        optimizer.step()


def _validate(loop: Any) -> None:
    """A validation of the trial, without the hooks that report it."""
    with torch.no_grad():
        for number, batch in enumerate(loop.dataloader):
            loop.run_iter(number, batch)
    loop.evaluator.evaluate(len(loop.dataloader.dataset))


def _detect(model: Any, loader: Any) -> None:
    """Detections in all images."""
    with torch.no_grad():
        for batch in loader:
            model.test_step(batch)


if __name__ == "__main__":
    run_script(main)
