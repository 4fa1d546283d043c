"""AP@50 as MMDetection computes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmdet.evaluation.functional.mean_ap import average_precision, tpfp_default
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric
from numpy.typing import NDArray
from torch import Tensor

Counts = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], int]
"""Of one image: scores, hits and misses (n,) of its detections, and its number of faces that count."""


@METRICS.register_module()
class FaceAP(BaseMetric):
    """Average precision at IoU 0.5: area under the curve, unrounded, without the legacy pixel added to each side.

    It equals mmdet's `eval_map` for one class, which would start a pool of processes at each call. A detection whose
    best match is an ignored face is not counted. Reported as `face/ap50`, in [0, 1]; the number of faces that count is
    reported as `face/faces`.
    """

    default_prefix = "face"

    def process(self, data_batch: dict[str, Any], data_samples: Sequence[dict[str, Any]]) -> None:
        """Match the detections of a batch with its faces."""
        for sample in data_samples:
            found = sample["pred_instances"]
            detections = np.hstack([_array(found["bboxes"], 4), _array(found["scores"], 1)])
            truth = _array(sample["gt_instances"]["bboxes"], 4)
            ignored = _array(sample["ignored_instances"]["bboxes"], 4)
            hits, misses = tpfp_default(detections, truth, ignored, iou_thr=0.5)
            self.results.append((detections[:, 4], hits[0], misses[0], len(truth)))

    def compute_metrics(self, results: list[Counts]) -> dict[str, float]:
        """The metrics of all images.

        Raises:
            ValueError: no face counts.
        """
        scores, hit, missed, faces = zip(*results, strict=True)
        if not sum(faces):
            raise ValueError("the split that is evaluated has no face that counts; lower the data set's min_face")
        order = np.argsort(-np.concatenate(scores), kind="stable")
        hits, misses = np.cumsum(np.concatenate(hit)[order]), np.cumsum(np.concatenate(missed)[order])
        precision = hits / np.maximum(hits + misses, np.finfo(np.float32).eps)
        return {"ap50": float(average_precision(hits / sum(faces), precision)), "faces": sum(faces)}


def _array(values: Tensor, columns: int) -> NDArray[np.float32]:
    return np.asarray(values.cpu(), np.float32).reshape(-1, columns)
