"""Classification losses for the scores of face and background that mmdet lacks; its box losses need no change.

All take (n, 2) scores as logits, face first, and (n,) labels, 0 for a face and 1 for background.
"""

from __future__ import annotations

import torch.nn.functional as F
from mmdet.models.losses import CrossEntropyLoss, FocalLoss
from mmdet.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class AdditiveMarginLoss(CrossEntropyLoss):
    """Cross entropy with margin m off the score z of the right class y: -log(e^(z_y - m) / (e^(z_y - m) + e^z_other)).

    This is the large margin of CosFace (Wang et al., 2018), after which ASFD has its margin-based classification (whose
    formula it does not give), on the scores as they are. CosFace normalises weights and features; a detector that was
    trained without could not go on from there.
    """

    def __init__(self, margin: float = 1.0, **kwargs) -> None:
        super().__init__(**kwargs)
        self.margin = margin

    def forward(self, scores: Tensor, labels: Tensor, *args, **kwargs) -> Tensor:
        right = F.one_hot(labels, scores.shape[1])
        return super().forward(scores - self.margin * right, labels, *args, **kwargs)


@MODELS.register_module()
class SoftmaxFocalLoss(FocalLoss):
    """mmdet's focal loss for the softmax of two scores, which is the sigmoid of their difference."""

    def forward(self, scores: Tensor, labels: Tensor, *args, **kwargs) -> Tensor:
        # Targets of the scores' shape take mmdet's version in torch, which needs no compiled mmcv on a GPU.
        return super().forward(scores[:, :1] - scores[:, 1:], (labels == 0)[:, None], *args, **kwargs)


def hard_sum(losses: Tensor, labels: Tensor, ratio: int | None) -> Tensor:
    """The sum of losses (n,) over faces and over the highest ones of background, `ratio` times as many as the faces.

    None takes all of the background.
    """
    faces, background = losses[labels == 0], losses[labels == 1]
    if ratio is not None:
        background, _ = background.topk(min(ratio * len(faces), len(background)))
    return faces.sum() + background.sum()
