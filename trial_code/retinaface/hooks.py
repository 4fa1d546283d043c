"""Hooks of a training run: what it reports, which checkpoints it saves, and when it stops."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, EarlyStoppingHook, Hook
from mmengine.runner import Runner

AP = "face/ap50"


def is_validated(runner: Runner, epoch: int) -> bool:
    """Whether the training loop validates after this epoch, counted from 1."""
    loop: Any = runner.train_loop
    return bool(epoch >= loop.val_begin and (epoch % loop.val_interval == 0 or epoch == loop.max_epochs))


@HOOKS.register_module()
class ResumableCheckpoint(CheckpointHook):
    """mmengine's hook, with checkpoints from which a killed run can be resumed without losing a validation.

    mmengine saves an epoch before its validation, which a resumed run then skips. Here an epoch is saved after its
    validation, with the result in it. Epochs that are not validated are saved only if the last checkpoint is old,
    since saving takes longer than an epoch of a small data set. A file is removed only when the one that replaces it
    is complete. Since mmengine removes the oldest checkpoint first, keep two of them (`max_keep_ckpts`).

    Args:
        args, kwargs: passed to mmengine's CheckpointHook.
        seconds: minimum age of the last checkpoint before an epoch without validation is saved.
    """

    def __init__(self, *args: Any, seconds: float = 60.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seconds = seconds
        self.best_ckpt_path = None  # mmengine sets it only if there is a `save_best`

    def before_train(self, runner: Runner) -> None:
        """Start to count the age of the last checkpoint."""
        super().before_train(runner)
        self.saved = time.monotonic()

    def after_train_epoch(self, runner: Runner) -> None:
        """Save an epoch without validation if the last checkpoint is old."""
        if not is_validated(runner, runner.epoch + 1) and time.monotonic() - self.saved >= self.seconds:
            super().after_train_epoch(runner)
            self.saved = time.monotonic()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float]) -> None:
        """Save the epoch, and save it as the best one if it is."""
        # Without the first path mmengine has nothing to remove, without the second it does not save the epoch twice.
        previous, self.best_ckpt_path, self.last_ckpt = self.best_ckpt_path, None, None
        super().after_val_epoch(runner, metrics)
        self._save_checkpoint_with_step(runner, runner.epoch, {"epoch": runner.epoch, "iter": runner.iter})
        self.saved = time.monotonic()
        if self.best_ckpt_path is None:
            self.best_ckpt_path = previous
        elif previous not in (None, self.best_ckpt_path):
            Path(previous).unlink(missing_ok=True)


@HOOKS.register_module()
class ResumableEarlyStopping(EarlyStoppingHook):
    """mmengine's hook, which also counts the validations before an interruption."""

    def before_train(self, runner: Runner) -> None:
        """Count the validations that a resumed run has made before."""
        history = runner.message_hub.log_scalars.get(f"val/{self.monitor}")
        for value in history.data[0] if history else ():
            self.after_val_epoch(runner, {self.monitor: value})


@HOOKS.register_module()
class StopOnInvalidLoss(Hook):
    """Ends the run when the loss is NaN or infinite; mmengine would go on and report an AP of 0."""

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict[str, Any], outputs: dict[str, torch.Tensor]
    ) -> None:
        """Check the loss of a step.

        Raises:
            FloatingPointError: the loss is NaN or infinite.
        """
        if not torch.isfinite(outputs["loss"]):
            rate = runner.optim_wrapper.get_lr()["lr"][0]
            raise FloatingPointError(
                f"the loss became {outputs['loss'].item()} in step {runner.iter + 1} (epoch {runner.epoch + 1}) at"
                f" learning rate {rate:g}; lower the learning rate."
            )


@HOOKS.register_module()
class Progress(Hook):
    """Prints a line after each validation, and after other epochs if the last line is old.

    The time left is that until the last epoch, if all epochs take as long as those so far, including validations. A run
    that is stopped early ends sooner.

    Args:
        seconds: minimum age of the last line before one is printed for an epoch without validation.
    """

    def __init__(self, seconds: float = 10.0) -> None:
        self.seconds = seconds

    def before_train(self, runner: Runner) -> None:
        """Start the clock."""
        self.began = self.printed = time.monotonic()
        self.first = runner.epoch

    def before_train_epoch(self, runner: Runner) -> None:
        """Start the sums of an epoch."""
        self.epoch_began, self.images, self.loss = time.monotonic(), 0, 0.0

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict[str, Any], outputs: dict[str, torch.Tensor]
    ) -> None:
        """Add a step to the sums."""
        count = len(data_batch["inputs"])
        self.images += count
        self.loss += count * outputs["loss"].item()

    def after_train_epoch(self, runner: Runner) -> None:
        """Print a line for an epoch without validation if the last line is old."""
        self.pace = self.images * runner.world_size / (time.monotonic() - self.epoch_began)
        if not is_validated(runner, runner.epoch + 1) and time.monotonic() - self.printed >= self.seconds:
            self._print(runner, runner.epoch + 1)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float]) -> None:
        """Print a line for a validation."""
        best = max(runner.message_hub.get_scalar(f"val/{AP}").data[0])
        self._print(runner, runner.epoch, f"AP@50 {metrics[AP]:.4f} (best {best:.4f}), ")

    def _print(self, runner: Runner, epoch: int, validation: str = "") -> None:
        if not is_main_process():
            return
        self.printed = time.monotonic()
        left = (self.printed - self.began) / (epoch - self.first) * (runner.max_epochs - epoch)
        rate = runner.optim_wrapper.get_lr()["lr"][0]
        print(
            f"epoch {epoch}/{runner.max_epochs}: {validation}loss {self.loss / self.images:.3f}, lr {rate:g},"
            f" {self.pace:.1f} images/s, at most {timedelta(seconds=round(left))} left",
            flush=True,
        )


class ReportAP(Hook):
    """Calls `report` with the AP@50 of each validation, in the main process only."""

    def __init__(self, report: Callable[[float], None]) -> None:
        self.report = report

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float]) -> None:
        """Report a validation."""
        if is_main_process():
            self.report(metrics[AP])
