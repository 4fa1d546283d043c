"""COCO face annotations as an mmdet data set."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS

from nni_hyperfd.datasets import coco
from nni_hyperfd.datasets.coco import WIDER_LEVELS as LEVELS


@DATASETS.register_module()
class FaceCocoDataset(CocoDataset):
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
        if self.checked:
            return super().load_data_list()
        path = Path(self.ann_file)
        split = coco.load(path.parent, path.stem, strict=self.strict)
        with TemporaryDirectory() as folder:
            split.write(written := Path(folder, path.name))
            self.ann_file = str(written)
            try:
                return super().load_data_list()
            finally:
                self.ann_file = str(path)

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """mmdet's own drops `ignore` annotations and knows no landmarks, so it is asked for the image only."""
        info = super().parse_data_info({**raw_data_info, "raw_ann_info": []})
        smallest = self.min_face * min(info["width"], info["height"])
        info["instances"] = [_instance(annotation, smallest) for annotation in raw_data_info["raw_ann_info"]]
        return info


def _instance(annotation: dict, smallest: float) -> dict:
    x, y, width, height = annotation["bbox"]
    ignored = annotation.get("ignore") or annotation.get("iscrowd") or min(width, height) < smallest
    landmarks = np.zeros((5, 3)) if annotation.get("keypoints") is None else np.reshape(annotation["keypoints"], (5, 3))
    return {
        "bbox": [x, y, x + width, y + height],
        "bbox_label": 0,
        "ignore_flag": int(bool(ignored)),
        "landmarks": landmarks.astype(np.float32),
        "level": LEVELS.index(annotation["wider_level"]) if "wider_level" in annotation else len(LEVELS),
    }
