"""Images of the owner with faces drawn in, as small JPEGs inside of the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import ImageDraw

from nni_hyperfd.datasets.coco import Record
from nni_hyperfd.detector.experiments import START, FinishedTrial
from nni_hyperfd.detector.measures import IOU, Faces, corners, faces_of
from nni_hyperfd.detector.onnx_detector import MODEL, OnnxDetector, open_image, overlaps

if TYPE_CHECKING:
    from markupsafe import Markup

FOUND, MISSED, FALSE, IGNORED = (40, 190, 90), (235, 60, 50), (255, 165, 0), (150, 150, 150)
SIDE = 300
"""Longer side of a picture in pixels."""
_QUALITY = 70

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Judged:
    """What a detector shows on an image at a threshold.

    Attributes:
        found: detections of faces.
        false: detections of nothing.
        missed: faces that count and are not found.
    """

    found: list[Box]
    false: list[Box]
    missed: list[Box]


def pairs(trial: FinishedTrial, thresholds: tuple[float, float], count: int) -> Markup:
    """Validation images before and after fine-tuning, those with the most misses after it first.

    Args:
        trial: the trial.
        thresholds: lowest scores that are shown before and after.
        count: maximum number of images.
    """
    from markupsafe import Markup

    split = trial.splits["val"]
    faces = {own.image: own for own in faces_of(split, OnnxDetector(trial.exported).settings.min_face)}
    before, after = (
        {number: judge(own, shown(trial.detections(model, "val"), number, lowest)) for number, own in faces.items()}
        for model, lowest in zip((START, MODEL), thresholds, strict=True)
    )

    def badness(record: Record) -> tuple[int, int, int]:
        own, earlier = after[record["id"]], before[record["id"]]
        return -len(own.missed), -len(own.false), -len(earlier.missed) - len(earlier.false)

    parts = []
    for record in sorted(split.images, key=badness)[:count]:
        image = open_image(split.image_path(record))
        sides = []
        for label, judged in (("before", before[record["id"]]), ("after", after[record["id"]])):
            text = f"{label}: {len(judged.found)} found, {len(judged.missed)} missed, {len(judged.false)} false"
            picture = _picture(image, judged, faces[record["id"]])
            sides.append(Markup('<div><img alt="{}" src="{}"><span>{}</span></div>').format(text, picture, text))
        parts.append(Markup('<div class="pair"><p>{}</p>{}{}</div>').format(record["file_name"], *sides))
    return Markup('{}<div class="pairs">{}</div>').format(_key(), Markup("\n").join(parts))


def shown(results: Sequence[Record], image: int, threshold: float) -> list[Record]:
    """The detections of an image from a score up."""
    return [record for record in results if record["image_id"] == image and record["score"] >= threshold]


def judge(faces: Faces, detected: list[Record]) -> Judged:
    """Compare an image's detections with its faces, the highest score first."""
    boxes = corners(detected)
    iou = overlaps(boxes, faces.boxes)
    free, found, false = np.ones(len(faces.boxes), bool), [], []
    for place in np.argsort([-record["score"] for record in detected], kind="stable"):
        best = int(iou[place].argmax()) if len(faces.boxes) else -1
        hit = best >= 0 and iou[place, best] >= IOU
        if hit and faces.counts[best] and free[best]:
            free[best] = False
            found.append(_box(boxes[place]))
        elif not hit or faces.counts[best]:
            false.append(_box(boxes[place]))
    return Judged(found, false, [_box(box) for box in faces.boxes[free & faces.counts]])


def _box(values: Sequence[float]) -> Box:
    x1, y1, x2, y2 = map(float, values)
    return x1, y1, x2, y2


def _picture(image: object, judged: Judged, faces: Faces) -> str:
    """A data URL of an image with its boxes."""
    from PIL import Image

    assert isinstance(image, Image.Image)
    scale = SIDE / max(image.size)
    small = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    pen = ImageDraw.Draw(small)
    ignored = [_box(box) for box in faces.boxes[~faces.counts]]
    kinds = ((ignored, IGNORED, 1), (judged.missed, MISSED, 2), (judged.false, FALSE, 2), (judged.found, FOUND, 2))
    for boxes, colour, width in kinds:
        for box in boxes:
            pen.rectangle([value * scale for value in box], outline=colour, width=width)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _key() -> Markup:
    from markupsafe import Markup

    names = {"found": FOUND, "missed": MISSED, "false": FALSE, "does not count": IGNORED}
    spans = Markup("").join(
        Markup('<span><i style="color:rgb{}"></i>{}</span>').format(str(colour), name) for name, colour in names.items()
    )
    return Markup('<p class="key">{}</p>').format(spans)
