"""What a run tells the outside, what it leaves on the disk to go on from, and when it gives up."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, EarlyStoppingHook, Hook
from mmengine.runner import Runner

AP = "face/ap50"


def is_validated(runner: Runner, epoch: int) -> bool:
    """Whether the training loop validates after this epoch, counted from 1."""
    loop = runner.train_loop
    return epoch >= loop.val_begin and (epoch % loop.val_interval == 0 or epoch == loop.max_epochs)


@HOOKS.register_module()
class ResumableCheckpoint(CheckpointHook):
    """mmengine's hook, from whose checkpoints a run goes on as if it had not been killed, whenever that was.

    mmengine saves an epoch before its validation, which a resumed run then leaves out; here it is saved afterwards,
    with the validation's result in it. Other epochs are saved when the last checkpoint is older than `seconds`, since
    saving takes longer than an epoch of a small data set. Files are removed only when what replaces them is complete;
    so keep two (`max_keep_ckpts`), as mmengine removes the oldest first.
    """

    def __init__(self, *args, seconds: float = 60.0, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.seconds = seconds
        self.best_ckpt_path = None  # mmengine sets it only where there is a `save_best`

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        self.saved = time.monotonic()

    def after_train_epoch(self, runner: Runner) -> None:
        if not is_validated(runner, runner.epoch + 1) and time.monotonic() - self.saved >= self.seconds:
            super().after_train_epoch(runner)
            self.saved = time.monotonic()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float]) -> None:
        # Without the one path mmengine has nothing to remove, without the other it does not write this epoch twice.
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
    """mmengine's hook, which in a resumed run counts the validations before the interruption as well."""

    def before_train(self, runner: Runner) -> None:
        history = runner.message_hub.log_scalars.get(f"val/{self.monitor}")
        for value in history.data[0] if history else ():
            self.after_val_epoch(runner, {self.monitor: value})


@HOOKS.register_module()
class StopOnInvalidLoss(Hook):
    """Ends the run with FloatingPointError when the loss is NaN or infinite; mmengine would go on and report AP 0."""

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs=None) -> None:
        if not torch.isfinite(outputs["loss"]):
            rate = runner.optim_wrapper.get_lr()["lr"][0]
            raise FloatingPointError(
                f"the loss became {outputs['loss'].item()} in step {runner.iter + 1} (epoch {runner.epoch + 1}) at"
                f" learning rate {rate:g}; lower the learning rate."
            )


@HOOKS.register_module()
class Progress(Hook):
    """Prints a line after each validation, and between them after an epoch if the last line is older than `seconds`.

    The time left is that until the last epoch at the pace so far, validations included; a run that stops for lack of
    progress ends sooner.
    """

    def __init__(self, seconds: float = 10.0) -> None:
        self.seconds = seconds

    def before_train(self, runner: Runner) -> None:
        self.began = self.printed = time.monotonic()
        self.first = runner.epoch

    def before_train_epoch(self, runner: Runner) -> None:
        self.epoch_began, self.images, self.loss = time.monotonic(), 0, 0.0

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs=None) -> None:
        count = len(data_batch["inputs"])
        self.images += count
        self.loss += count * outputs["loss"].item()

    def after_train_epoch(self, runner: Runner) -> None:
        self.pace = self.images * runner.world_size / (time.monotonic() - self.epoch_began)
        if not is_validated(runner, runner.epoch + 1) and time.monotonic() - self.printed >= self.seconds:
            self._print(runner, runner.epoch + 1)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float]) -> None:
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
    """Hands the AP@50 of each validation to `report`."""

    def __init__(self, report: Callable[[float], None]) -> None:
        self.report = report

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float]) -> None:
        if is_main_process():
            self.report(metrics[AP])
