"""Data-anchor-sampling (PyramidBox, Tang et al., 2018): faces are brought to the sizes of the anchors."""

from __future__ import annotations

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

from retinaface.transforms import inside, keep_faces

BORDER = (128, 128, 128)  # what mmdet's geometric transforms fill with as well


@TRANSFORMS.register_module()
class DataAnchorSampling(BaseTransform):
    """A square of `size` pixels around a face that is scaled to the size of a random anchor.

    Of a random face to learn, whose size is the root of its area, the nearest anchor is found; the anchor to scale it
    to is drawn from the smaller ones, that one and the next larger, the face's new size uniformly from half to twice
    the anchor. So small faces are made of large ones rather than the reverse. The square lies anywhere around the face,
    which is made no larger than it; inside the image where the image is larger, and around all of it where not.

    Other faces whose centre lies inside stay, their boxes cut at the edges; landmarks outside count as not annotated.
    Without any face to learn the whole image is scaled to fit.
    """

    def __init__(self, size: int, anchors: list[float]) -> None:
        self.size = size
        self.anchors = np.sort(anchors)

    def transform(self, results: dict) -> dict:
        boxes = results["gt_bboxes"].tensor.numpy().astype(np.float64)
        height, width = results["img"].shape[:2]
        learned = boxes[~results["gt_ignore_flags"].astype(bool)]
        learned = learned[(learned[:, 2:] > learned[:, :2]).all(axis=1)]
        if len(learned):
            face = learned[np.random.randint(len(learned))]
            scale = self._scale(*(face[2:] - face[:2]))
            corner = self._corner(face, np.array([width, height]), self.size / scale)
        else:
            scale, corner = self.size / max(width, height), np.zeros(2)

        # cv2 has the middle of a pixel at whole numbers, boxes have its corner there.
        shift = scale * (0.5 - corner) - 0.5
        matrix = np.float64([[scale, 0, shift[0]], [0, scale, shift[1]]])
        results["img"] = cv2.warpAffine(results["img"], matrix, (self.size, self.size), borderValue=BORDER)
        results["img_shape"] = (self.size, self.size)
        moved = (boxes - np.tile(corner, 2)) * scale
        landmarks = results["gt_landmarks"].copy()
        landmarks[..., :2] = (landmarks[..., :2] - corner) * scale
        keep_faces(results, inside((moved[:, :2] + moved[:, 2:]) / 2, self.size, self.size), moved, landmarks)
        return results

    def _scale(self, width: float, height: float) -> float:
        side = np.sqrt(width * height)
        nearest = np.abs(self.anchors - side).argmin()
        anchor = np.random.choice(self.anchors[: nearest + 2])
        return min(np.random.uniform(anchor / 2, anchor * 2) / side, self.size / max(width, height))

    def _corner(self, face: np.ndarray, image: np.ndarray, side: float) -> np.ndarray:
        lowest = np.maximum(face[2:] - side, np.minimum(0, image - side))
        highest = np.minimum(face[:2], np.maximum(0, image - side))
        return np.random.uniform(lowest, np.maximum(lowest, highest))  # equal, but for rounding, if the face fills it
