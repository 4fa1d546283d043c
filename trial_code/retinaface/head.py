"""RetinaFace's head: three 1x1 convolutions per level, for class (face, background), box and five landmarks."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.dense_heads import SSDHead
from mmdet.models.losses import smooth_l1_loss
from mmdet.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor, nn

from retinaface.losses import hard_sum

LANDMARK_VARIANCE = 0.1


@MODELS.register_module()
class RetinaFaceHead(SSDHead):
    """SSD's head with weighted losses and a landmark branch.

    Landmarks are learned only from faces whose five points are all annotated.

    Args:
        args, kwargs: passed to mmdet's SSDHead.
        location_weight: factor of the box loss.
        landmark_weight: factor of the landmark loss.
        loss_cls: config of the class loss, softmax cross entropy if None. Hard negatives are mined for all of them.
        loss_bbox: config of the box loss, smooth L1 if None; losses of decoded boxes (IoU) need `reg_decoded_bbox`.
        background_scores: number of background scores of the finest level, the highest of which is used. S3FD's
            max-out has 3, against false positives of small anchors.
    """

    def __init__(
        self,
        *args: Any,
        location_weight: float = 2.0,
        landmark_weight: float = 1.0,
        loss_cls: dict[str, Any] | None = None,
        loss_bbox: dict[str, Any] | None = None,
        background_scores: int = 1,
        **kwargs: Any,
    ) -> None:
        self.background_scores = background_scores
        super().__init__(*args, **kwargs)
        self.location_weight = location_weight
        self.landmark_weight = landmark_weight
        beta = self.train_cfg["smoothl1_beta"] if self.train_cfg else 1.0
        self.loss_cls = MODELS.build(loss_cls or {"type": "CrossEntropyLoss"})
        self.loss_bbox = MODELS.build(loss_bbox or {"type": "SmoothL1Loss", "beta": beta})

    def _init_layers(self) -> None:
        def predictors(values: int) -> nn.ModuleList:
            return nn.ModuleList(
                nn.Conv2d(channels, anchors * values, 1)
                for channels, anchors in zip(self.in_channels, self.num_base_priors, strict=True)
            )

        self.cls_convs = predictors(self.cls_out_channels)
        self.reg_convs = predictors(4)
        self.landmark_convs = predictors(10)
        if self.background_scores > 1:  # separate from the usual ones, whose weights can be inherited
            more = self.num_base_priors[0] * (self.background_scores - 1)
            self.background_conv = nn.Conv2d(self.in_channels[0], more, 1)

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Levels (B, C, H, W) -> maps of each level for A anchors per cell: classes (B, A x 2, H, W), boxes, landmarks.

        The maps of boxes have A x 4 channels, those of landmarks A x 10.
        """
        branches = (self.cls_convs, self.reg_convs, self.landmark_convs)
        classes, boxes, landmarks = ([conv(x) for conv, x in zip(convs, maps, strict=True)] for convs in branches)
        if self.background_scores > 1:
            classes[0] = self._max_out(classes[0], self.background_conv(maps[0]))
        return classes, boxes, landmarks

    def _max_out(self, scores: Tensor, more: Tensor) -> Tensor:
        """Scores (B, A x 2, H, W) whose background is the highest of their own and of `more` (B, A x n, H, W)."""
        anchors = self.num_base_priors[0]
        face, background = scores.unflatten(1, (anchors, 2)).split(1, dim=2)
        highest = torch.cat([background, more.unflatten(1, (anchors, -1))], dim=2).amax(dim=2, keepdim=True)
        return torch.cat([face, highest], dim=2).flatten(1, 2)

    def predict_by_feat(
        self, cls_scores: list[Tensor], bbox_preds: list[Tensor], _landmark_preds: list[Tensor], **kwargs: Any
    ) -> list[InstanceData]:
        """Detections of each image, from the maps that `forward` returns."""
        detections: list[InstanceData] = super().predict_by_feat(cls_scores, bbox_preds, **kwargs)
        return detections

    def loss_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        landmark_preds: list[Tensor],
        gt_instances: list[InstanceData],
        img_metas: list[dict[str, Any]],
        gt_instances_ignore: list[InstanceData] | None = None,
    ) -> dict[str, list[Tensor] | Tensor]:
        """The losses of a batch, from the maps that `forward` returns; see mmdet's SSDHead for the other arguments."""
        losses: dict[str, list[Tensor] | Tensor] = super().loss_by_feat(
            cls_scores, bbox_preds, gt_instances, img_metas, gt_instances_ignore
        )
        losses["loss_bbox"] = [loss * self.location_weight for loss in losses["loss_bbox"]]
        losses["loss_landmark"] = self._landmark_loss(landmark_preds, gt_instances) * self.landmark_weight
        return losses

    def loss_by_feat_single(
        self,
        cls_score: Tensor,
        bbox_pred: Tensor,
        anchor: Tensor,
        labels: Tensor,
        label_weights: Tensor,
        bbox_targets: Tensor,
        bbox_weights: Tensor,
        avg_factor: float,
    ) -> tuple[Tensor, Tensor]:
        """Class loss (1,) and box loss of one image; unlike SSDHead's it uses `loss_cls` and `loss_bbox`.

        Args:
            cls_score: (A, 2) logits.
            bbox_pred: (A, 4) encoded boxes.
            anchor: (A, 4) as x1, y1, x2, y2.
            labels: (A,), 0 for a face and 1 for background.
            label_weights: (A,).
            bbox_targets: (A, 4), encoded or not as `reg_decoded_bbox` says.
            bbox_weights: (A, 4).
            avg_factor: both losses are divided by it.
        """
        losses = self.loss_cls(cls_score, labels, label_weights, reduction_override="none").flatten()
        loss_cls = hard_sum(losses, labels, self.train_cfg["neg_pos_ratio"]) / avg_factor
        if self.reg_decoded_bbox:
            bbox_pred = self.bbox_coder.decode(anchor, bbox_pred)
        return loss_cls[None], self.loss_bbox(bbox_pred, bbox_targets, bbox_weights, avg_factor=avg_factor)

    def _landmark_loss(self, landmark_preds: list[Tensor], gt_instances: list[InstanceData]) -> Tensor:
        """Smooth L1 over the positive anchors of faces with landmarks, divided by their number.

        The anchors are those that the assigner has just found for the other two losses. Its indices count valid
        anchors only; all are valid, since the crops of a batch have the same size.
        """
        flat = torch.cat([x.permute(0, 2, 3, 1).reshape(len(x), -1, 10) for x in landmark_preds], dim=1)
        samplings = self._raw_positive_infos["sampling_results"]
        predictions, targets = [], []
        for prediction, gt, sampling in zip(flat, gt_instances, samplings, strict=True):
            points = gt.landmarks[sampling.pos_assigned_gt_inds]  # (positives, 5, 3)
            known = (points[..., 2] > 0).all(dim=1)
            anchors = sampling.pos_priors[known][:, None]
            centre, size = (anchors[..., :2] + anchors[..., 2:]) / 2, anchors[..., 2:] - anchors[..., :2]
            targets.append(((points[known, :, :2] - centre) / size / LANDMARK_VARIANCE).flatten(1))
            predictions.append(prediction[sampling.pos_inds[known]])
        wanted, beta = torch.cat(targets), self.train_cfg["smoothl1_beta"]
        loss: Tensor = smooth_l1_loss(torch.cat(predictions), wanted, beta=beta, avg_factor=max(len(wanted), 1))
        return loss
