"""Validation at several scales."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from mmdet.models.test_time_augs import DetTTAModel
from mmdet.registry import LOOPS
from mmengine.config import ConfigDict
from mmengine.runner import ValLoop, autocast

if TYPE_CHECKING:
    from mmengine.runner import Runner


@LOOPS.register_module()
class MultiScaleValLoop(ValLoop):
    """Validates what mmdet's DetTTAModel makes of the detections at all scales of the pipeline's TestTimeAug.

    They are put together and suppressed once more, as at one scale. mmengine has this for its test loop only.
    """

    def __init__(self, runner: Runner, *args, **kwargs) -> None:
        super().__init__(runner, *args, **kwargs)
        test = runner.cfg.model.test_cfg
        merging = ConfigDict(nms=test.nms, max_per_img=test.max_per_img)
        self.merged = DetTTAModel(module=runner.model, tta_cfg=merging)

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: dict) -> None:
        self.runner.call_hook("before_val_iter", batch_idx=idx, data_batch=data_batch)
        with autocast(enabled=self.fp16):
            outputs = self.merged.test_step(data_batch)
        self.evaluator.process(data_samples=outputs, data_batch=data_batch)
        self.runner.call_hook("after_val_iter", batch_idx=idx, data_batch=data_batch, outputs=outputs)
