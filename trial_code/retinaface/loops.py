"""Validation at several scales."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from mmdet.models.test_time_augs import DetTTAModel
from mmdet.registry import LOOPS
from mmengine.config import ConfigDict
from mmengine.runner import ValLoop, autocast

if TYPE_CHECKING:
    from mmengine.runner import Runner


@LOOPS.register_module()
class MultiScaleValLoop(ValLoop):
    """Validates with mmdet's test-time augmentation, which mmengine offers in its test loop only.

    mmdet's DetTTAModel joins the detections at all scales of the pipeline's TestTimeAug, and applies non-maximum
    suppression once more, with the settings for one scale.
    """

    def __init__(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        super().__init__(runner, *args, **kwargs)
        test = runner.cfg.model.test_cfg
        merging = ConfigDict(nms=test.nms, max_per_img=test.max_per_img)
        self.merged = DetTTAModel(module=runner.model, tta_cfg=merging)

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: dict[str, Any]) -> None:
        """Process one batch, as in mmengine's ValLoop."""
        self.runner.call_hook("before_val_iter", batch_idx=idx, data_batch=data_batch)
        with autocast(enabled=self.fp16):
            outputs = self.merged.test_step(data_batch)
        self.evaluator.process(data_samples=outputs, data_batch=data_batch)
        self.runner.call_hook("after_val_iter", batch_idx=idx, data_batch=data_batch, outputs=outputs)
