"""RetinaFace's augmentation: mmdet's transforms with five landmarks carried along, and the square crop it lacks.

`gt_landmarks` is a float32 array (faces, 5, 3) of x, y, visibility (0: not annotated) in pixels, in the order left
eye, right eye, nose, left and right corner of the mouth, as seen in the image.
"""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, RandomFlip, Resize
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes

MIRRORED_ORDER = [1, 0, 2, 4, 3]


@TRANSFORMS.register_module()
class LoadFaceAnnotations(LoadAnnotations):
    """Boxes, labels, ignore flags and landmarks of a FaceCocoDataset."""

    def transform(self, results: dict) -> dict:
        results = super().transform(results)
        landmarks = [instance["landmarks"] for instance in results["instances"]]
        results["gt_landmarks"] = np.array(landmarks, np.float32).reshape(-1, 5, 3)
        return results


@TRANSFORMS.register_module()
class RandomSquareCrop(BaseTransform):
    """A random square whose side is uniform in [min_ratio, 1] of the image's shorter side.

    The first of `tries` squares that holds the centre of a face to learn is taken; should none, a face is picked and
    the largest square put around it. Faces whose centre lies inside stay, their boxes cut at the edges. Landmarks that
    fall outside count as not annotated. Without any face to learn the first square is taken.
    """

    def __init__(self, min_ratio: float, tries: int = 250) -> None:
        self.min_ratio = min_ratio
        self.tries = tries

    def transform(self, results: dict) -> dict:
        boxes = results["gt_bboxes"].tensor.numpy()
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        height, width = results["img"].shape[:2]
        x, y, side = self._choose(width, height, centres[~results["gt_ignore_flags"].astype(bool)])

        results["img"] = results["img"][y : y + side, x : x + side]
        results["img_shape"] = (side, side)
        kept = inside(centres - [x, y], side, side)
        keep_faces(results, kept, boxes - [x, y, x, y], results["gt_landmarks"] - np.float32([x, y, 0]))
        return results

    def _choose(self, width: int, height: int, centres: np.ndarray) -> tuple[int, int, int]:
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


def inside(points: np.ndarray, width: np.ndarray | int, height: np.ndarray | int) -> np.ndarray:
    """Which points (..., 2) lie in an image of this size."""
    across, down = points[..., 0], points[..., 1]
    return (across >= 0) & (across < width) & (down >= 0) & (down < height)


def keep_faces(results: dict, kept: np.ndarray, boxes: np.ndarray, landmarks: np.ndarray) -> None:
    """Of faces that have been moved to these boxes (n, 4) and landmarks (n, 5, 3), keep those of the mask `kept` (n,).

    Boxes are cut at the edges of the image; landmarks outside count as not annotated.
    """
    height, width = results["img_shape"]
    cut = np.clip(boxes[kept], 0, [width, height, width, height])
    results["gt_bboxes"] = HorizontalBoxes(cut.astype(np.float32))
    for key in ("gt_bboxes_labels", "gt_ignore_flags"):
        results[key] = results[key][kept]
    landmarks = landmarks[kept]
    landmarks[~inside(landmarks[..., :2], width, height), 2] = 0
    results["gt_landmarks"] = landmarks


@TRANSFORMS.register_module()
class ResizeFaces(Resize):
    """mmdet's Resize, landmarks as well."""

    def transform(self, results: dict) -> dict:
        results = super().transform(results)
        results["gt_landmarks"] = results["gt_landmarks"] * np.float32([*results["scale_factor"], 1])
        return results


@TRANSFORMS.register_module()
class FlipFaces(RandomFlip):
    """mmdet's RandomFlip, horizontal, with the landmarks mirrored and left exchanged for right."""

    def _flip(self, results: dict) -> None:
        super()._flip(results)
        landmarks = results["gt_landmarks"][:, MIRRORED_ORDER]
        landmarks[..., 0] = results["img_shape"][1] - landmarks[..., 0]
        results["gt_landmarks"] = landmarks


@TRANSFORMS.register_module()
class PackFaceInputs(PackDetInputs):
    """mmdet's PackDetInputs, landmarks as well."""

    mapping_table = {**PackDetInputs.mapping_table, "gt_landmarks": "landmarks"}
