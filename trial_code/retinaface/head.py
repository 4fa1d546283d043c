"""RetinaFace's head: face or background, box and five landmarks, from one 1x1 convolution each a level."""

from __future__ import annotations

import torch
from mmdet.models.dense_heads import SSDHead
from mmdet.models.losses import smooth_l1_loss
from mmdet.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor, nn

LANDMARK_VARIANCE = 0.1


@MODELS.register_module()
class RetinaFaceHead(SSDHead):
    """SSD's losses (softmax with mined hard negatives, smooth L1), with weights and a landmark branch.

    `location_weight` and `landmark_weight` multiply their losses. Landmarks are learned only from faces whose five
    points are all annotated.
    """

    loss_cls = None  # mmdet >= 3.1 reads it while predicting, and SSDHead never sets it (mmdetection#11063)

    def __init__(self, *args, location_weight: float = 2.0, landmark_weight: float = 1.0, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.location_weight = location_weight
        self.landmark_weight = landmark_weight

    def _init_layers(self) -> None:
        def predictors(values: int) -> nn.ModuleList:
            return nn.ModuleList(
                nn.Conv2d(channels, anchors * values, 1)
                for channels, anchors in zip(self.in_channels, self.num_base_priors, strict=True)
            )

        self.cls_convs = predictors(self.cls_out_channels)
        self.reg_convs = predictors(4)
        self.landmark_convs = predictors(10)

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Levels (B, C, H, W) -> for each, with two anchors a cell, 2 x 2 class, 2 x 4 box and 2 x 10 landmark maps."""
        branches = (self.cls_convs, self.reg_convs, self.landmark_convs)
        return tuple([conv(x) for conv, x in zip(convs, maps, strict=True)] for convs in branches)

    def predict_by_feat(self, cls_scores, bbox_preds, _landmark_preds, **kwargs) -> list[InstanceData]:
        return super().predict_by_feat(cls_scores, bbox_preds, **kwargs)

    def loss_by_feat(
        self, cls_scores, bbox_preds, landmark_preds, gt_instances, img_metas, gt_instances_ignore=None
    ) -> dict[str, list[Tensor] | Tensor]:
        losses = super().loss_by_feat(cls_scores, bbox_preds, gt_instances, img_metas, gt_instances_ignore)
        losses["loss_bbox"] = [loss * self.location_weight for loss in losses["loss_bbox"]]
        losses["loss_landmark"] = self._landmark_loss(landmark_preds, gt_instances) * self.landmark_weight
        return losses

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
