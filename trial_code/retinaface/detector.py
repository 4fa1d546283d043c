"""The whole detector as mmdet builds it."""

from __future__ import annotations

from mmdet.models.detectors import SingleStageDetector
from mmdet.registry import MODELS


@MODELS.register_module()
class RetinaFace(SingleStageDetector):
    """A single-stage detector that starts from `weights`, a file or name that `convert.load_weights` takes.

    `inherits` is the config of the detector that the weights are of, where this one has another shape (`inherit`).
    """

    def __init__(self, *args, weights: str | None = None, inherits: dict | None = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.weights = weights
        self.inherits = inherits

    def init_weights(self) -> None:
        """Called by mmengine before training, and before a checkpoint to resume from is read."""
        from retinaface.convert import load_weights
        from retinaface.inherit import inherit

        super().init_weights()
        if self.weights is None:
            return
        if self.inherits is None:
            load_weights(self, self.weights)
        else:
            filled = load_weights(MODELS.build(self.inherits), self.weights)
            part = self if isinstance(filled, RetinaFace) else self.backbone
            tensors, summary = inherit(filled.state_dict(), part.state_dict())
            part.load_state_dict(tensors)
            print(f"{self.weights}: {summary}", flush=True)
