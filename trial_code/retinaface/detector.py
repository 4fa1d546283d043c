"""The detector as a whole."""

from __future__ import annotations

from typing import Any

from mmdet.models.detectors import SingleStageDetector
from mmdet.registry import MODELS

from retinaface.convert import load_weights
from retinaface.inherit import inherit


@MODELS.register_module()
class RetinaFace(SingleStageDetector):
    """A single-stage detector that starts from given weights.

    Args:
        args, kwargs: passed to mmdet's SingleStageDetector.
        weights: what `convert.load_weights` accepts; random weights if None.
        inherits: config of the detector that the weights belong to, if its tensors differ from this one's (`inherit`).
    """

    def __init__(
        self, *args: Any, weights: str | None = None, inherits: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.weights = weights
        self.inherits = inherits

    def init_weights(self) -> None:
        """Load the weights to start from; mmengine calls this before training and before it resumes a checkpoint."""
        super().init_weights()
        if self.weights is None:
            return
        if self.inherits is None:
            load_weights(self, self.weights)
            return
        filled = load_weights(MODELS.build(self.inherits), self.weights)
        part = self if isinstance(filled, RetinaFace) else self.backbone
        tensors, summary = inherit(filled.state_dict(), part.state_dict())
        part.load_state_dict(tensors)
        print(f"{self.weights}: {summary}", flush=True)
