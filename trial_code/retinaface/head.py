"""RetinaFace's head: face or background, box and five landmarks, from one 1x1 convolution each a level."""

from __future__ import annotations

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
    """SSD's losses (softmax with mined hard negatives, smooth L1), with weights and a landmark branch.

    `location_weight` and `landmark_weight` multiply their losses. Landmarks are learned only from faces whose five
    points are all annotated.

    `loss_cls` and `loss_bbox` may be others; those of decoded boxes (IoU) want `reg_decoded_bbox`. The background of
    the finest level is the highest of so many scores (S3FD's max-out, against the false positives of small anchors).
    """

    def __init__(
        self,
        *args,
        location_weight: float = 2.0,
        landmark_weight: float = 1.0,
        loss_cls: dict | None = None,
        loss_bbox: dict | None = None,
        background_scores: int = 1,
        **kwargs,
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
        if self.background_scores > 1:  # beside the usual ones, whose weights are inherited
            more = self.num_base_priors[0] * (self.background_scores - 1)
            self.background_conv = nn.Conv2d(self.in_channels[0], more, 1)

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Levels (B, C, H, W) -> for each, with two anchors a cell, 2 x 2 class, 2 x 4 box and 2 x 10 landmark maps."""
        branches = (self.cls_convs, self.reg_convs, self.landmark_convs)
        classes, boxes, landmarks = ([conv(x) for conv, x in zip(convs, maps, strict=True)] for convs in branches)
        if self.background_scores > 1:
            classes[0] = self._max_out(classes[0], self.background_conv(maps[0]))
        return classes, boxes, landmarks

    def _max_out(self, scores: Tensor, more: Tensor) -> Tensor:
        """Scores (B, A x 2, H, W) whose background is the highest of theirs and `more` (B, A x any, H, W)."""
        anchors = self.num_base_priors[0]
        face, background = scores.unflatten(1, (anchors, 2)).split(1, dim=2)
        highest = torch.cat([background, more.unflatten(1, (anchors, -1))], dim=2).amax(dim=2, keepdim=True)
        return torch.cat([face, highest], dim=2).flatten(1, 2)

    def predict_by_feat(self, cls_scores, bbox_preds, _landmark_preds, **kwargs) -> list[InstanceData]:
        return super().predict_by_feat(cls_scores, bbox_preds, **kwargs)

    def loss_by_feat(
        self, cls_scores, bbox_preds, landmark_preds, gt_instances, img_metas, gt_instances_ignore=None
    ) -> dict[str, list[Tensor] | Tensor]:
        losses = super().loss_by_feat(cls_scores, bbox_preds, gt_instances, img_metas, gt_instances_ignore)
        losses["loss_bbox"] = [loss * self.location_weight for loss in losses["loss_bbox"]]
        losses["loss_landmark"] = self._landmark_loss(landmark_preds, gt_instances) * self.landmark_weight
        return losses

    def loss_by_feat_single(
        self, cls_score, bbox_pred, anchor, labels, label_weights, bbox_targets, bbox_weights, avg_factor
    ) -> tuple[Tensor, Tensor]:
        """The class and the box loss of one image, both divided by `avg_factor`; mmdet's own knows one loss of each."""
        losses = self.loss_cls(cls_score, labels, label_weights, reduction_override="none").flatten()
        loss_cls = hard_sum(losses, labels, self.train_cfg["neg_pos_ratio"]) / avg_factor
        if self.reg_decoded_bbox:
            bbox_pred = self.bbox_coder.decode(anchor, bbox_pred)
        return loss_cls[None], self.loss_bbox(bbox_pred, bbox_targets, bbox_weights, avg_factor=avg_factor)

    def _landmark_loss(self, landmark_preds: list[Tensor], gt_instances: list[InstanceData]) -> Tensor:
        """Smooth L1 over the positive anchors of faces with landmarks, divided by their number.

        Which anchors those are is what the assigner has just found for the other two losses. Its indices count valid
        anchors, which are all of them, as the crops of a batch have one size.
        """
        flat = torch.cat([x.permute(0, 2, 3, 1).reshape(len(x), -1, 10) for x in landmark_preds], dim=1)
        samplings = self._raw_positive_infos["sampling_results"]
        predicted, wanted = [], []
        for prediction, gt, sampling in zip(flat, gt_instances, samplings, strict=True):
            points = gt.landmarks[sampling.pos_assigned_gt_inds]  # (positives, 5, 3)
            known = (points[..., 2] > 0).all(dim=1)
            anchors = sampling.pos_priors[known][:, None]
            centre, size = (anchors[..., :2] + anchors[..., 2:]) / 2, anchors[..., 2:] - anchors[..., :2]
            wanted.append(((points[known, :, :2] - centre) / size / LANDMARK_VARIANCE).flatten(1))
            predicted.append(prediction[sampling.pos_inds[known]])
        predicted, wanted = torch.cat(predicted), torch.cat(wanted)
        return smooth_l1_loss(predicted, wanted, beta=self.train_cfg["smoothl1_beta"], avg_factor=max(len(wanted), 1))
