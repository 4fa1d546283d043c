"""What a run tells the outside, and when it gives up."""

from __future__ import annotations

from collections.abc import Callable

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner


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


class ReportAP(Hook):
    """Collects the AP@50 of each validation in `values` and hands it to `report`."""

    def __init__(self, report: Callable[[float], None]) -> None:
        self.report = report
        self.values: list[float] = []

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float]) -> None:
        self.values.append(metrics["face/ap50"])
        self.report(metrics["face/ap50"])
