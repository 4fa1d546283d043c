"""mmdet's augmentation operations for faces: landmarks are transformed too, optionally only inside of face boxes."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.datasets.transforms import RandAugment
from mmdet.registry import TRANSFORMS
from numpy.typing import NDArray

from retinaface.transforms import FloatArray, inside, keep_faces

_MATRIX = "homography_matrix"
"""Key under which mmdet's geometric transforms leave their matrix."""

_SMALLEST = 4  # pixels


@TRANSFORMS.register_module()
class AugmentFaces(RandAugment):
    """mmdet's RandAugment: `aug_num` random operations of `aug_space`, one after the other.

    Landmarks are moved with the image. Those that leave it count as not annotated, and faces whose centre leaves it are
    dropped.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Apply the operations to a sample."""
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
    """One of mmdet's operations inside the box of each face; the box itself stays where it is.

    Landmarks inside the box are moved with its content; those that leave it count as not annotated. Boxes of less than
    4 pixels are not changed. Source: Zoph et al., "Learning Data Augmentation Strategies for Object Detection", 2019.

    Args:
        operation: config of the operation.
        prob: probability that a face is changed.
    """

    def __init__(self, operation: dict[str, Any], prob: float) -> None:
        self.operation = TRANSFORMS.build(operation)
        self.prob = prob

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Apply the operation to a sample."""
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
                _move_inside(landmarks, (x1, y1, x2, y2), matrix)
        results["img"], results["gt_landmarks"] = image, landmarks
        return results


def _move_inside(landmarks: FloatArray, box: tuple[int, int, int, int], matrix: NDArray[Any]) -> None:
    """Move the landmarks that lie in a box as its content was moved, in place."""
    x1, y1, x2, y2 = box
    corner = np.array([x1, y1, 0], np.float32)
    within = inside(landmarks[..., :2] - corner[:2], x2 - x1, y2 - y1)
    moved = _moved(landmarks - corner, matrix)
    moved[~inside(moved[..., :2], x2 - x1, y2 - y1), 2] = 0
    landmarks[within] = (moved + corner)[within]


def _project(points: NDArray[Any], matrix: NDArray[Any]) -> NDArray[Any]:
    """Points (..., 2) transformed by an affine homography (3, 3)."""
    projected: NDArray[Any] = points @ matrix[:2, :2].T + matrix[:2, 2]
    return projected


def _moved(landmarks: FloatArray, matrix: NDArray[Any]) -> FloatArray:
    return np.concatenate([_project(landmarks[..., :2], matrix), landmarks[..., 2:]], axis=-1).astype(np.float32)
