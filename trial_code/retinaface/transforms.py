"""RetinaFace's augmentation: mmdet's transforms, which also move the five landmarks, and a random square crop.

`gt_landmarks` is a float32 array (faces, 5, 3) of x, y (pixels) and visibility (0: not annotated). The order is left
eye, right eye, nose, left and right corner of the mouth, as seen in the image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, RandomFlip, Resize
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

MIRRORED_ORDER = [1, 0, 2, 4, 3]


@TRANSFORMS.register_module()
class LoadFaceAnnotations(LoadAnnotations):
    """Loads boxes, labels, ignore flags and landmarks of a FaceCocoDataset."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the annotations to a sample."""
        results = super().transform(results)
        landmarks = [instance["landmarks"] for instance in results["instances"]]
        results["gt_landmarks"] = np.array(landmarks, np.float32).reshape(-1, 5, 3)
        return results


@TRANSFORMS.register_module()
class RandomSquareCrop(BaseTransform):
    """Crops a random square whose side is uniform in [min_ratio, 1] times the image's shorter side.

    Squares are drawn until one contains the centre of a face that is not ignored. If none of them does, the largest
    possible square is put around a random face. Faces whose centre lies inside are kept, and their boxes are clipped.
    Landmarks outside count as not annotated. Without any face that is not ignored, the first square is taken.

    Args:
        min_ratio: smallest side, as a share of the image's shorter side.
        tries: number of squares that are drawn.
    """

    def __init__(self, min_ratio: float, tries: int = 250) -> None:
        self.min_ratio = min_ratio
        self.tries = tries

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Crop a sample."""
        boxes = results["gt_bboxes"].tensor.numpy()
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        height, width = results["img"].shape[:2]
        x, y, side = self._choose(width, height, centres[~results["gt_ignore_flags"].astype(bool)])

        results["img"] = results["img"][y : y + side, x : x + side]
        results["img_shape"] = (side, side)
        kept = inside(centres - [x, y], side, side)
        landmarks = results["gt_landmarks"] - np.array([x, y, 0], np.float32)
        keep_faces(results, kept, boxes - [x, y, x, y], landmarks)
        return results

    def _choose(self, width: int, height: int, centres: FloatArray) -> tuple[int, int, int]:
        """Left and upper edge and side of the square, given the centres (n, 2) of the faces."""
        shorter = min(width, height)
        sides = np.maximum(1, np.rint(shorter * np.random.uniform(self.min_ratio, 1, self.tries))).astype(int)
        x = np.floor(np.random.uniform(0, width - sides + 1)).astype(int)
        y = np.floor(np.random.uniform(0, height - sides + 1)).astype(int)
        if not len(centres):
            return x[0], y[0], sides[0]
        corners = np.stack([x, y], axis=1)
        holds = inside(centres - corners[:, None], sides[:, None], sides[:, None]).any(axis=1)
        if holds.any():
            first = holds.argmax()
            return x[first], y[first], sides[first]
        centre = centres[np.random.randint(len(centres))]
        corner = np.clip(centre - shorter / 2, 0, [width - shorter, height - shorter]).astype(int)
        return corner[0], corner[1], shorter


def inside(points: NDArray[Any], width: NDArray[Any] | int, height: NDArray[Any] | int) -> Mask:
    """Whether each of the points (..., 2) lies in an image of this size."""
    across, down = points[..., 0], points[..., 1]
    mask: Mask = (across >= 0) & (across < width) & (down >= 0) & (down < height)
    return mask


def keep_faces(results: dict[str, Any], kept: Mask, boxes: FloatArray, landmarks: FloatArray) -> None:
    """Keep some of a sample's faces, after they have been moved.

    Boxes are clipped at the edges of the image; landmarks outside count as not annotated.

    Args:
        results: the sample, changed in place.
        kept: (n,), whether each face is kept.
        boxes: (n, 4), new boxes as x1, y1, x2, y2.
        landmarks: (n, 5, 3), new landmarks.
    """
    height, width = results["img_shape"]
    clipped = np.clip(boxes[kept], 0, [width, height, width, height])
    results["gt_bboxes"] = HorizontalBoxes(clipped.astype(np.float32))
    for key in ("gt_bboxes_labels", "gt_ignore_flags"):
        results[key] = results[key][kept]
    landmarks = landmarks[kept]
    landmarks[~inside(landmarks[..., :2], width, height), 2] = 0
    results["gt_landmarks"] = landmarks


@TRANSFORMS.register_module()
class ResizeFaces(Resize):
    """mmdet's Resize, which also moves the landmarks."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Resize a sample."""
        results = super().transform(results)
        results["gt_landmarks"] = results["gt_landmarks"] * np.array([*results["scale_factor"], 1], np.float32)
        return results


@TRANSFORMS.register_module()
class FlipFaces(RandomFlip):
    """mmdet's RandomFlip, horizontally, which also mirrors the landmarks and swaps left and right."""

    def _flip(self, results: dict[str, Any]) -> None:
        super()._flip(results)
        landmarks = results["gt_landmarks"][:, MIRRORED_ORDER]
        landmarks[..., 0] = results["img_shape"][1] - landmarks[..., 0]
        results["gt_landmarks"] = landmarks


@TRANSFORMS.register_module()
class PackFaceInputs(PackDetInputs):
    """mmdet's PackDetInputs, which also packs the landmarks."""

    mapping_table = {**PackDetInputs.mapping_table, "gt_landmarks": "landmarks"}
