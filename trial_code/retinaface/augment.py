"""mmdet's augmentation operations on faces: landmarks go along, and an operation may act inside a face's box only."""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.datasets.transforms import RandAugment
from mmdet.registry import TRANSFORMS

from retinaface.transforms import inside, keep_faces

_MATRIX = "homography_matrix"  # mmdet's geometric transforms leave there what they did
_SMALLEST = 4


@TRANSFORMS.register_module()
class AugmentFaces(RandAugment):
    """mmdet's RandAugment: `aug_num` random operations of `aug_space`, one after the other.

    Landmarks are moved as the image is; those that leave it count as not annotated, and faces whose centre does are
    dropped.
    """

    def transform(self, results: dict) -> dict:
        for index in self.random_pipeline_index():
            boxes = results["gt_bboxes"].tensor.numpy()
            centres = (boxes[:, :2] + boxes[:, 2:]) / 2
            results.pop(_MATRIX, None)
            results = self.transforms[index](results)
            if (matrix := results.pop(_MATRIX, None)) is not None:
                height, width = results["img_shape"]
                landmarks = _moved(results["gt_landmarks"], matrix)
                kept = inside(_project(centres, matrix), width, height)
                keep_faces(results, kept, results["gt_bboxes"].tensor.numpy(), landmarks)
        return results


@TRANSFORMS.register_module()
class BoxOnly(BaseTransform):
    """One of mmdet's operations inside the box of each face, with probability `prob`; the box stays where it is.

    It is from Zoph et al., "Learning Data Augmentation Strategies for Object Detection", 2019. Landmarks inside the box
    are moved as what is in it; those that leave it count as not annotated. Boxes of less than 4 pixels are left alone.
    """

    def __init__(self, operation: dict, prob: float) -> None:
        self.operation = TRANSFORMS.build(operation)
        self.prob = prob

    def transform(self, results: dict) -> dict:
        image, landmarks = results["img"].copy(), results["gt_landmarks"].copy()
        height, width = image.shape[:2]
        edges = np.rint(results["gt_bboxes"].tensor.numpy()).astype(int)
        for x1, y1, x2, y2 in np.clip(edges, 0, [width, height, width, height]):
            if min(x2 - x1, y2 - y1) < _SMALLEST or np.random.rand() >= self.prob:
                continue
            patch = {"img": image[y1:y2, x1:x2].copy(), "img_shape": (y2 - y1, x2 - x1)}
            patch = self.operation(patch)
            image[y1:y2, x1:x2] = patch["img"]
            if (matrix := patch.get(_MATRIX)) is not None:
                corner = np.float32([x1, y1, 0])
                within = inside(landmarks[..., :2] - corner[:2], x2 - x1, y2 - y1)
                moved = _moved(landmarks - corner, matrix)
                moved[~inside(moved[..., :2], x2 - x1, y2 - y1), 2] = 0
                landmarks[within] = (moved + corner)[within]
        results["img"], results["gt_landmarks"] = image, landmarks
        return results


def _project(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Points (..., 2) where an affine homography (3, 3) puts them."""
    return points @ matrix[:2, :2].T + matrix[:2, 2]


def _moved(landmarks: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return np.concatenate([_project(landmarks[..., :2], matrix), landmarks[..., 2:]], axis=-1).astype(np.float32)
