"""Classification losses that mmdet does not have; its box losses are used as they are.

All take logits (n, 2), face first, and labels (n,), 0 for a face and 1 for background.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from mmdet.models.losses import CrossEntropyLoss, FocalLoss
from mmdet.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class AdditiveMarginLoss(CrossEntropyLoss):
    """Cross entropy whose logit z of the true class y is lowered by a margin m.

    The loss is -log(e^(z_y - m) / (e^(z_y - m) + e^z_other)), the large margin of CosFace (Wang et al., 2018). ASFD
    names it as the source of its margin-based classification, without a formula. CosFace also normalises weights and
    features, which is left out here: a detector that was trained without it could not be fine-tuned with it.

    Args:
        margin: m.
        kwargs: passed to mmdet's CrossEntropyLoss.
    """

    def __init__(self, margin: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.margin = margin

    def forward(self, scores: Tensor, labels: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The loss of logits (n, 2) and labels (n,), reduced as in CrossEntropyLoss."""
        true = F.one_hot(labels, scores.shape[1])
        loss: Tensor = super().forward(scores - self.margin * true, labels, *args, **kwargs)
        return loss


@MODELS.register_module()
class SoftmaxFocalLoss(FocalLoss):
    """mmdet's focal loss for the softmax of two logits, which is the sigmoid of their difference."""

    def forward(self, scores: Tensor, labels: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The loss of logits (n, 2) and labels (n,), reduced as in FocalLoss."""
        # For targets of the same shape as the logits mmdet uses its version in torch, which needs no compiled mmcv.
        loss: Tensor = super().forward(scores[:, :1] - scores[:, 1:], (labels == 0)[:, None], *args, **kwargs)
        return loss


def hard_sum(losses: Tensor, labels: Tensor, ratio: int | None) -> Tensor:
    """Sum of the losses of all faces and of the hardest background anchors.

    Args:
        losses: (n,).
        labels: (n,), 0 for a face and 1 for background.
        ratio: number of background anchors per face; None takes all of them.
    """
    faces, background = losses[labels == 0], losses[labels == 1]
    if ratio is not None:
        background, _ = background.topk(min(ratio * len(faces), len(background)))
    return faces.sum() + background.sum()
