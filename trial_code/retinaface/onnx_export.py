"""A RetinaFace as an ONNX file, from the pixels of an image to boxes and scores, and its comparison with PyTorch."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from mmcv.ops.merge_cells import BaseMergeCell
from mmdet.models import BaseDetector
from mmdet.structures import DetDataSample
from numpy.typing import NDArray
from torch import Tensor, nn

from nni_hyperfd import files
from nni_hyperfd.detector.onnx_detector import OPTIONS, Settings
from retinaface.pipelines import find_transforms

if TYPE_CHECKING:
    from mmengine.config import Config

_OPSET = 17
_SAMPLE = (2, 96, 128)  # images, height, width while the graph is recorded; all three stay free


class Decoded(nn.Module):
    """A detector that takes RGB images as they are, and returns all its anchors' boxes and scores.

    Normalisation, padding to the detector's stride, the detector, and the decoding of its boxes are inside; suppression
    is not, as its result has another number of boxes for each image.

    Args:
        detector: a RetinaFace in evaluation mode.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, detector: BaseDetector) -> None:
        super().__init__()
        self.detector = detector
        self.head = detector.bbox_head
        given = detector.data_preprocessor
        self.divisor = given.pad_size_divisor
        self.reversed = not given._channel_conversion  # the files are read as BGR there and as RGB here
        self.register_buffer("mean", given.mean.reshape(3, 1, 1))
        self.register_buffer("std", given.std.reshape(3, 1, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The boxes and scores of all anchors, level by level.

        Args:
            images: uint8 (B, H, W, 3), RGB.

        Returns:
            Boxes (B, A, 4) as x1, y1, x2, y2 in pixels of the images, clipped to them, and scores (B, A) in [0, 1].
        """
        height, width = images.shape[1], images.shape[2]
        x = images.permute(0, 3, 1, 2).float()
        x = (x.flip(1) if self.reversed else x).sub(self.mean).div(self.std)
        x = F.pad(x, (0, (-width) % self.divisor, 0, (-height) % self.divisor))
        classes, deltas, _ = self.head(self.detector.extract_feat(x))
        boxes = torch.cat([self._boxes(level, maps) for level, maps in enumerate(deltas)], dim=1)
        scores = torch.cat([_rows(maps, 2) for maps in classes], dim=1).softmax(-1)[..., 0]
        x1, y1, x2, y2 = boxes.unbind(-1)
        inside = (x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height))
        return torch.stack(inside, dim=-1), scores

    def _boxes(self, level: int, deltas: Tensor) -> Tensor:
        """Boxes (B, H x W x A, 4) of a level's map (B, A x 4, H, W), as mmdet's DeltaXYWHBBoxCoder decodes them."""
        priors = self._anchors(level, deltas.shape[2], deltas.shape[3])
        coder = self.head.bbox_coder
        values = _rows(deltas, 4) * deltas.new_tensor(coder.stds) + deltas.new_tensor(coder.means)
        size = priors[:, 2:] - priors[:, :2]
        centre = (priors[:, :2] + priors[:, 2:]) / 2 + size * values[..., :2]
        # mmdet limits by how much a box may differ from its anchor.
        limit = abs(float(np.log(_WH_RATIO_CLIP)))
        half = size * values[..., 2:].clamp(-limit, limit).exp() / 2
        return torch.cat([centre - half, centre + half], dim=-1)

    def _anchors(self, level: int, rows: int, columns: int) -> Tensor:
        """(rows x columns x A, 4) as x1, y1, x2, y2."""
        generator = self.head.prior_generator
        across, down = generator.strides[level]
        x, y = torch.arange(columns) * across, torch.arange(rows) * down
        shifts = torch.stack([x[None, :].expand(rows, columns), y[:, None].expand(rows, columns)], dim=-1).reshape(
            -1, 2
        )
        anchors: Tensor = shifts.float().repeat(1, 2)[:, None] + generator.base_anchors[level]
        return anchors.reshape(-1, 4)


_WH_RATIO_CLIP = 16 / 1000


def _rows(maps: Tensor, values: int) -> Tensor:
    """A map (B, A x values, H, W) as (B, H x W x A, values)."""
    return maps.permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, values))


def settings_of(config: Config) -> Settings:
    """How the detector of a config is fed and its boxes are suppressed, as in its evaluation.

    A config that evaluates at several scales is used at the middle one.
    """
    resizes = sorted(find_transforms(config.val_dataloader, "ResizeShortestEdge"), key=lambda resize: resize["scale"])
    resize, test = resizes[len(resizes) // 2], config.model.test_cfg
    anchors = config.model.bbox_head.anchor_generator
    return Settings(
        size=int(resize["scale"]),
        max_size=int(resize["max_size"]),
        divisor=int(config.model.data_preprocessor.pad_size_divisor),
        strides=tuple(anchors.strides),
        anchors=len(anchors.scales) * len(anchors.ratios),
        score=float(test.score_thr),
        iou=float(test.nms.iou_threshold),
        per_level=int(test.nms_pre),
        per_image=int(test.max_per_img),
        min_face=float(config.val_dataloader.dataset.get("min_face", 0.0)),
    )


@torch.no_grad()
def export(detector: BaseDetector, settings: Settings, path: Path) -> None:
    """Write a detector as an ONNX file, which has its settings in it."""
    import onnx

    sample = torch.zeros((*_SAMPLE, 3), dtype=torch.uint8)
    with files.atomic(path) as partial, warnings.catch_warnings(), _fixed_pooling():
        warnings.simplefilter("ignore")  # constants of the sample that do not depend on its size
        torch.onnx.export(
            Decoded(detector).eval(),
            (sample,),
            partial,
            dynamo=False,
            opset_version=_OPSET,
            input_names=["images"],
            output_names=["boxes", "scores"],
            dynamic_axes={
                "images": {0: "batch", 1: "height", 2: "width"},
                "boxes": {0: "batch", 1: "anchors"},
                "scores": {0: "batch", 1: "anchors"},
            },
        )
        model = onnx.load(partial)
        onnx.helper.set_model_props(model, {OPTIONS: json.dumps(settings.to_json())})
        onnx.checker.check_model(model)
        onnx.save(model, partial)


@contextmanager
def _fixed_pooling() -> Iterator[None]:
    """Within the block NASFPN's cells pool by constants, as ONNX wants it, in place of quotients of sizes.

    The padding makes these quotients the same for all images.
    """

    def resize(cell: BaseMergeCell, x: Tensor, size: Sequence[int]) -> Tensor:
        given, wanted = ([int(side) for side in sides] for sides in (x.shape[-2:], size))
        if given == wanted:
            return x
        if given < wanted:
            return F.interpolate(x, size=size, mode=cell.upsample_mode)
        kernel = [old // new for old, new in zip(given, wanted, strict=True)]
        return F.max_pool2d(x, kernel, kernel)

    original = BaseMergeCell._resize
    BaseMergeCell._resize = resize
    try:
        yield
    finally:
        BaseMergeCell._resize = original


@torch.no_grad()
def by_mmdet(detector: BaseDetector, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What `Decoded` returns for one image, computed by mmdet's own preprocessing, anchors and decoding.

    Args:
        detector: a RetinaFace in evaluation mode.
        image: uint8 (H, W, 3), RGB.

    Returns:
        Boxes (A, 4) and scores (A,).
    """
    pixels = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)
    given = {"inputs": [pixels], "data_samples": [DetDataSample(metainfo={"img_shape": image.shape[:2]})]}
    x = detector.data_preprocessor(given)["inputs"]
    head: Any = detector.bbox_head
    classes, deltas, _ = head(detector.extract_feat(x))
    priors = torch.cat(head.prior_generator.grid_priors([maps.shape[-2:] for maps in classes], device="cpu"))
    flat = torch.cat([_rows(maps, 4)[0] for maps in deltas])
    boxes = head.bbox_coder.decode(priors, flat, max_shape=image.shape[:2])
    scores = torch.cat([_rows(maps, 2)[0] for maps in classes]).softmax(-1)[:, 0]
    return boxes.numpy(), scores.numpy()


def differences(
    detector: BaseDetector, images: Iterable[NDArray[np.uint8]], session: Any, score: float
) -> tuple[float, float]:
    """Largest differences between an ONNX session and mmdet on images: of boxes in pixels, and of scores.

    Boxes whose score is below `score` are never shown, and are not compared.
    """
    largest = np.zeros(2)
    for image in images:
        boxes, scores = (output[0] for output in session.run(None, {"images": image[None]}))
        wanted_boxes, wanted_scores = by_mmdet(detector, image)
        shown = np.maximum(scores, wanted_scores) >= score
        between = np.abs(boxes - wanted_boxes)[shown].max(initial=0), np.abs(scores - wanted_scores).max()
        largest = np.maximum(largest, between)
    return float(largest[0]), float(largest[1])
