"""COCO face annotations as an mmdet data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.datasets import BaseDetDataset
from mmdet.registry import DATASETS

from nni_hyperfd.datasets import coco
from nni_hyperfd.datasets.coco import WIDER_LEVELS as LEVELS


@DATASETS.register_module()
class FaceCocoDataset(BaseDetDataset):
    """Faces with their landmarks, from a folder in the layout of `nni_hyperfd.datasets.coco`.

    The annotations are checked by that module, since mmdet's own class drops most defective records silently, or even
    trains on them. A face is ignored (neither a training target nor counted for or against a detection) if its
    annotation says `ignore` or `iscrowd`, or if it is too small.

    Args:
        args, kwargs: passed to mmdet's BaseDetDataset.
        min_face: smallest shorter side of a face that is not ignored, as a share of the shorter side of its image; the
            HyperFD paper's 36 of 720 pixels is 0.05 (appendix B.1).
        checked: `ann_file` was written by `CocoSplit.write` and is not checked again.
        strict: refuse annotations that would otherwise be repaired with a warning.

    Raises:
        AnnotationError: the annotations cannot be used.
    """

    METAINFO = {"classes": ("face",), "palette": [(0, 255, 0)]}

    def __init__(
        self, *args: Any, min_face: float = 0.0, checked: bool = False, strict: bool = False, **kwargs: Any
    ) -> None:
        self.min_face = min_face
        self.checked = checked
        self.strict = strict
        super().__init__(*args, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """A record for each image, in mmdet's format, with its faces as `instances`."""
        path = Path(self.ann_file)
        if self.checked:
            data = json.loads(path.read_text())
            images, annotations = data["images"], data["annotations"]
        else:
            split = coco.load(path.parent, path.stem, strict=self.strict)
            images = [{**image, "file_name": str(split.image_path(image))} for image in split.images]
            annotations = split.annotations
        faces: dict[int, list[dict[str, Any]]] = {}
        for annotation in annotations:
            faces.setdefault(annotation["image_id"], []).append(annotation)
        return [self._record(image, faces.get(image["id"], [])) for image in images]

    def _record(self, image: dict[str, Any], faces: list[dict[str, Any]]) -> dict[str, Any]:
        smallest = self.min_face * min(image["width"], image["height"])
        return {
            "img_path": image["file_name"],
            "img_id": image["id"],
            "width": image["width"],
            "height": image["height"],
            "seg_map_path": None,
            "instances": [_instance(face, smallest) for face in faces],
        }


_NO_LANDMARKS = np.zeros((5, 3), np.float32)


def _instance(face: dict[str, Any], smallest: float) -> dict[str, Any]:
    x, y, width, height = face["bbox"]
    ignored = face.get("ignore") or face.get("iscrowd") or min(width, height) < smallest
    points = face.get("keypoints")
    return {
        "bbox": [x, y, x + width, y + height],
        "bbox_label": 0,
        "ignore_flag": int(bool(ignored)),
        "landmarks": _NO_LANDMARKS if points is None else np.array(points, np.float32).reshape(5, 3),
        "level": LEVELS.index(face["wider_level"]) if "wider_level" in face else len(LEVELS),
    }
