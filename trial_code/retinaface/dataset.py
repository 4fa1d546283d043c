"""Checked COCO face annotations as an mmdet data set."""

from __future__ import annotations

import numpy as np
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS


@DATASETS.register_module()
class FaceCocoDataset(CocoDataset):
    """Faces with their landmarks; takes what `nni_hyperfd.datasets.coco` has checked and written.

    A face is ignored, that is neither a training target nor counted for or against a detection, if its annotation says
    `ignore` or `iscrowd`, or if its shorter side is less than `min_face` times the shorter side of its image (the
    paper's 36 of 720 pixels is 0.05).
    """

    METAINFO = {"classes": ("face",), "palette": [(0, 255, 0)]}

    def __init__(self, *args, min_face: float = 0.0, **kwargs) -> None:
        self.min_face = min_face
        super().__init__(*args, **kwargs)

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """mmdet's own drops `ignore` annotations and knows no landmarks, so it is asked for the image only."""
        info = super().parse_data_info({**raw_data_info, "raw_ann_info": []})
        smallest = self.min_face * min(info["width"], info["height"])
        info["instances"] = [_instance(annotation, smallest) for annotation in raw_data_info["raw_ann_info"]]
        return info


def _instance(annotation: dict, smallest: float) -> dict:
    x, y, width, height = annotation["bbox"]
    ignored = annotation.get("ignore") or annotation.get("iscrowd") or min(width, height) < smallest
    landmarks = np.zeros((5, 3)) if annotation.get("keypoints") is None else np.reshape(annotation["keypoints"], (5, 3))
    return {
        "bbox": [x, y, x + width, y + height],
        "bbox_label": 0,
        "ignore_flag": int(bool(ignored)),
        "landmarks": landmarks.astype(np.float32),
    }
