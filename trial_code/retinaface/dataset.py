"""COCO face annotations as an mmdet data set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from mmdet.datasets import BaseDetDataset
from mmdet.registry import DATASETS

from nni_hyperfd.datasets import coco
from nni_hyperfd.datasets.coco import WIDER_LEVELS as LEVELS


@DATASETS.register_module()
class FaceCocoDataset(BaseDetDataset):
    """Faces with their landmarks, from a folder in the layout of `nni_hyperfd.datasets.coco`.

    `ann_file` is checked as it says there (AnnotationError; `strict` makes repairs an error), as mmdet's own class
    would drop or train on most defective records; `checked` says that the file is what was written after a check.

    A face is ignored, that is neither a training target nor counted for or against a detection, if its annotation says
    `ignore` or `iscrowd`, or if its shorter side is less than `min_face` times the shorter side of its image (the
    paper's 36 of 720 pixels is 0.05).
    """

    METAINFO = {"classes": ("face",), "palette": [(0, 255, 0)]}

    def __init__(self, *args, min_face: float = 0.0, checked: bool = False, strict: bool = False, **kwargs) -> None:
        self.min_face = min_face
        self.checked = checked
        self.strict = strict
        super().__init__(*args, **kwargs)

    def load_data_list(self) -> list[dict]:
        """One record an image, in mmdet's form, with its faces as `instances`."""
        path = Path(self.ann_file)
        if self.checked:
            data = json.loads(path.read_text())
            images, annotations = data["images"], data["annotations"]
        else:
            split = coco.load(path.parent, path.stem, strict=self.strict)
            images = [{**image, "file_name": str(split.image_path(image))} for image in split.images]
            annotations = split.annotations
        faces: dict[int, list[dict]] = {}
        for annotation in annotations:
            faces.setdefault(annotation["image_id"], []).append(annotation)
        return [self._record(image, faces.get(image["id"], [])) for image in images]

    def _record(self, image: dict, faces: list[dict]) -> dict:
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


def _instance(face: dict, smallest: float) -> dict:
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
