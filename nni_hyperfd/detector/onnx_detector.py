"""Runs `model.onnx` with onnxruntime, NumPy and Pillow; neither torch nor MMDetection is needed.

Images are resized, and boxes are suppressed, as in the evaluation of a trial.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nni_hyperfd.files import FolderError

if TYPE_CHECKING:
    from PIL.Image import Image

Boxes = NDArray[np.float32]
"""(n, 4) as x1, y1, x2, y2 in pixels."""
Scores = NDArray[np.float32]
"""(n,) in [0, 1]."""

MODEL = "model.onnx"
FIGURES = "detector.json"
"""The detector's figures, beside the model; `chosen.score` is the threshold where none is given."""
OPTIONS = "hyperfd"
"""Key of the ONNX file's metadata under which its `Settings` are, as JSON."""


@dataclass(frozen=True)
class Settings:
    """How images are given to a detector, and which of its boxes are kept.

    Attributes:
        size: shorter side of an image in pixels after resizing.
        max_size: largest longer side in pixels.
        divisor: the detector pads both sides to a multiple of it.
        strides: of the pyramid's levels, in pixels.
        anchors: number of anchors in a cell of each level.
        score: boxes of a lower score are dropped.
        iou: a box is suppressed if its IoU with one of a higher score is greater.
        per_level: maximum number of boxes of a level before suppression.
        per_image: maximum number of boxes of an image.
        min_face: shorter side of the smallest face that counted in the evaluation, over that of the image.
    """

    size: int
    max_size: int
    divisor: int
    strides: tuple[int, ...]
    anchors: int
    score: float
    iou: float
    per_level: int
    per_image: int
    min_face: float

    def to_json(self) -> dict[str, Any]:
        """The settings as a JSON object, for `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Settings:
        """Read what `to_json` returns; raises KeyError for a missing setting."""
        given = {field.name: values[field.name] for field in fields(cls)}
        return cls(**given | {"strides": tuple(given["strides"])})

    def scaled(self, width: int, height: int) -> tuple[int, int]:
        """Width and height after resizing."""
        factor = min(self.size / min(width, height), self.max_size / max(width, height))
        return int(width * factor + 0.5), int(height * factor + 0.5)

    def level_sizes(self, width: int, height: int) -> list[int]:
        """Number of anchors of each level for a resized image."""
        padded = (math.ceil(side / self.divisor) * self.divisor for side in (width, height))
        across, down = padded
        return [self.anchors * math.ceil(across / stride) * math.ceil(down / stride) for stride in self.strides]


class OnnxDetector:
    """A detector of `hyperfd best`.

    Args:
        path: the folder, or its `model.onnx`.
        threads: number of threads; None lets onnxruntime choose.

    Attributes:
        settings: how images are given to it.
        session: the onnxruntime session, from `images` uint8 (B, H, W, 3) to `boxes` (B, A, 4) and `scores` (B, A).

    Raises:
        FolderError: there is no such file, or it was not written by `hyperfd best`, or onnxruntime is missing.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        try:
            import onnxruntime
        except ModuleNotFoundError:
            raise FolderError("onnxruntime is not installed; run `pip install 'nni-hyperfd[detect]'`") from None
        file = path / MODEL if path.is_dir() else path
        if not file.is_file():
            raise FolderError(f"{file}: there is no such file; `hyperfd best --out FOLDER` makes one")
        options = onnxruntime.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = options.inter_op_num_threads = threads
        try:
            self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
            properties = self.session.get_modelmeta().custom_metadata_map
            self.settings = Settings.from_json(json.loads(properties[OPTIONS]))
        except Exception as error:  # onnxruntime has no common class for what a damaged file raises
            raise FolderError(f"{file}: it is no model of `hyperfd best` ({type(error).__name__}: {error})") from error

    def detect(self, image: Image) -> tuple[Boxes, Scores]:
        """Find the faces of an image, by falling score.

        Args:
            image: in any mode, upright (`open_image`).

        Returns:
            Boxes in pixels of the image, and their scores.
        """
        pixels = self.prepare(image)
        boxes, scores = (output[0] for output in self.session.run(None, {"images": pixels[None]}))
        chosen = self._candidates(scores, pixels.shape[1], pixels.shape[0])
        boxes, scores = boxes[chosen], scores[chosen]
        boxes = boxes * np.array([image.width / pixels.shape[1], image.height / pixels.shape[0]] * 2, np.float32)
        kept = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(axis=1))
        kept = kept[suppress(boxes[kept], scores[kept], self.settings.iou)][: self.settings.per_image]
        return boxes[kept], scores[kept]

    def prepare(self, image: Image) -> NDArray[np.uint8]:
        """Resize an image for the session: uint8 (H, W, 3), RGB."""
        from PIL.Image import Resampling, Transform

        image = image.convert("RGB")
        width, height = self.settings.scaled(image.width, image.height)
        if (width, height) != image.size:
            # As OpenCV's bilinear resizing in the evaluation: Pillow's `resize` would smooth the image before it makes
            # it smaller, and its `transform` would round 8-bit values down.
            matrix = (image.width / width, 0, 0, 0, image.height / height, 0)
            bands = [
                band.convert("F").transform((width, height), Transform.AFFINE, matrix, resample=Resampling.BILINEAR)
                for band in image.split()
            ]
            exact = np.stack([np.asarray(band, np.float32) for band in bands], axis=-1)
            rounded: NDArray[np.uint8] = (exact + np.float32(0.5)).astype(np.uint8)
            return rounded
        return np.asarray(image)

    def _candidates(self, scores: Scores, width: int, height: int) -> NDArray[np.intp]:
        """Indices of the boxes that go into suppression: the best of each level."""
        chosen, start = [], 0
        for size in self.settings.level_sizes(width, height):
            level = scores[start : start + size]
            best = np.argsort(-level, kind="stable")[: self.settings.per_level]
            chosen.append(start + best[level[best] > self.settings.score])
            start += size
        return np.concatenate(chosen)


def open_image(path: Path) -> Image:
    """Read an image file, turned as its Exif data say.

    Raises:
        FolderError: it cannot be read as an image.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except FileNotFoundError:
        raise FolderError(f"{path}: there is no such file") from None
    except UnidentifiedImageError:
        raise FolderError(f"{path}: this is no image that Pillow reads; save it as JPEG or PNG") from None
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise FolderError(f"{path}: it cannot be read as an image ({error})") from error


def as_records(image: int, boxes: Boxes, scores: Scores) -> list[dict[str, Any]]:
    """Detections of an image as records of a COCO results file, with boxes (n, 4) as x1, y1, x2, y2."""
    return [
        {
            "image_id": image,
            "category_id": 1,
            "bbox": [round(float(value), 2) for value in (x1, y1, x2 - x1, y2 - y1)],
            "score": round(float(score), 5),
        }
        for (x1, y1, x2, y2), score in zip(boxes, scores, strict=True)
    ]


def suppress(boxes: Boxes, scores: Scores, iou: float) -> NDArray[np.intp]:
    """Greedy non-maximum suppression.

    Args:
        boxes: (n, 4).
        scores: (n,).
        iou: a box is suppressed if its IoU with a box of a higher score is greater.

    Returns:
        Indices of the boxes that are kept, by falling score; of equal scores the first one comes first.
    """
    order = np.argsort(-scores, kind="stable")
    kept = []
    while len(order):
        first, order = order[0], order[1:]
        kept.append(first)
        order = order[overlaps(boxes[first][None], boxes[order])[0] <= iou]
    return np.array(kept, np.intp)


def overlaps(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    """Compute the IoU (n, m) of boxes (n, 4) and (m, 4); 0 for two boxes without area."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(axis=-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=-1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None] - common
    iou: NDArray[Any] = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return iou
