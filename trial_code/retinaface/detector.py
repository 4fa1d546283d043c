"""The whole detector as mmdet builds it."""

from __future__ import annotations

from mmdet.models.detectors import SingleStageDetector
from mmdet.registry import MODELS


@MODELS.register_module()
class RetinaFace(SingleStageDetector):
    """A single-stage detector that starts from `weights`, a file or name that `convert.load_weights` takes."""

    def __init__(self, *args, weights: str | None = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.weights = weights

    def init_weights(self) -> None:
        """Called by mmengine before training, and before a checkpoint to resume from is read."""
        from retinaface.convert import load_weights

        super().init_weights()
        if self.weights is not None:
            load_weights(self, self.weights)
