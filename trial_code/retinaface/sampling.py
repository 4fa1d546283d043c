"""Data-anchor-sampling (PyramidBox, Tang et al., 2018): faces are scaled to the sizes of the anchors."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS
from numpy.typing import NDArray

from retinaface.transforms import inside, keep_faces

BORDER = (128, 128, 128)  # as mmdet's geometric transforms fill it

_Float64 = NDArray[np.float64]


@TRANSFORMS.register_module()
class DataAnchorSampling(BaseTransform):
    """Crops a square around a face that is scaled to about the size of a random anchor.

    A random face that is not ignored is chosen; its size is the square root of its area. The anchor is drawn from the
    one nearest to that size, all smaller ones and the next larger one, and the new size uniformly from half to twice
    the anchor. So large faces become small ones more often than the reverse. The face is never made larger than the
    square, which is placed uniformly such that it contains the face; inside the image if the image is larger than the
    square, and around the image otherwise.

    Other faces whose centre lies inside are kept, and their boxes are clipped; landmarks outside count as not
    annotated. Without any face that is not ignored, the whole image is scaled to fit.

    Args:
        size: side of the square in pixels.
        anchors: sides of the anchors in pixels.
    """

    def __init__(self, size: int, anchors: list[float]) -> None:
        self.size = size
        self.anchors = np.sort(anchors)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Scale and crop a sample."""
        boxes = results["gt_bboxes"].tensor.numpy().astype(np.float64)
        height, width = results["img"].shape[:2]
        scale, corner = self._choose(boxes[~results["gt_ignore_flags"].astype(bool)], width, height)

        # In cv2 the centre of a pixel has whole coordinates, in boxes its corner has.
        shift = scale * (0.5 - corner) - 0.5
        matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]], np.float64)
        results["img"] = cv2.warpAffine(results["img"], matrix, (self.size, self.size), borderValue=BORDER)
        results["img_shape"] = (self.size, self.size)
        moved = (boxes - np.tile(corner, 2)) * scale
        landmarks = results["gt_landmarks"].copy()
        landmarks[..., :2] = (landmarks[..., :2] - corner) * scale
        keep_faces(results, inside((moved[:, :2] + moved[:, 2:]) / 2, self.size, self.size), moved, landmarks)
        return results

    def _choose(self, boxes: _Float64, width: int, height: int) -> tuple[float, _Float64]:
        """Scale of the image, and left and upper edge (2,) of the square, from the boxes (n, 4) of the faces."""
        boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]
        if not len(boxes):
            return self.size / max(width, height), np.zeros(2)
        face = boxes[np.random.randint(len(boxes))]
        scale = self._scale(*(face[2:] - face[:2]))
        return scale, self._corner(face, np.array([width, height]), self.size / scale)

    def _scale(self, width: float, height: float) -> float:
        """Random scale for a face of this size."""
        side = np.sqrt(width * height)
        nearest = np.abs(self.anchors - side).argmin()
        anchor = np.random.choice(self.anchors[: nearest + 2])
        return float(min(np.random.uniform(anchor / 2, anchor * 2) / side, self.size / max(width, height)))

    def _corner(self, face: _Float64, image: NDArray[np.int_], side: float) -> _Float64:
        """Random left and upper edge of a square of this side (in pixels of the image) that contains the face."""
        lowest = np.maximum(face[2:] - side, np.minimum(0, image - side))
        highest = np.minimum(face[:2], np.maximum(0, image - side))
        # Both are equal, up to rounding, if the face fills the square.
        return np.asarray(np.random.uniform(lowest, np.maximum(lowest, highest)))
