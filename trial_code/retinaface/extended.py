"""The dimensions of search_spaces/extended.json besides the six hyper-parameters: how each value changes a config.

The first value of each dimension is what the configs do anyway, and changes nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from retinaface.pipelines import find_transform

if TYPE_CHECKING:
    from mmengine.config import Config

    Edit = Callable[[Config], None]

COLOR = ("AutoContrast", "Equalize", "Color", "Contrast", "Brightness", "Sharpness", "Posterize", "SolarizeAdd")
GEOMETRY = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")
OPERATIONS, OPERATION_PROB, BOX_PROB = 2, 0.5, 1 / 3
# EfficientNet's alpha, beta and gamma (Tan and Le, 2019): each step about doubles the FLOPs.
DEPTH, WIDTH, RESOLUTION = 1.2, 1.1, 1.15
STRIDE = 32
SCALES = (0.5, 1.0, 1.5)
NORM = {"type": "BN"}
NASFPN_STRIDE = 128  # of the coarser of the two levels that it adds


class ParameterError(ValueError):
    """A parameter of a trial is unknown or has an invalid value; the message names it."""


def choose(given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that are dimensions of this module, with values of exactly the right type.

    Raises:
        ParameterError: a dimension does not have the given value.
    """
    chosen = {}
    for name, edits in DIMENSIONS.items():
        if name in given:
            value = given[name]
            # NNI may turn 1 into 1.0 in its JSON. True, which equals 1 in Python, is refused.
            same = [own for own in edits if own == value and not isinstance(value, bool)]
            if not same:
                raise ParameterError(f"{name} is {value!r}; it must be one of {', '.join(map(str, edits))}.")
            chosen[name] = same[0]
    return chosen


def extend(config: Config, chosen: Mapping[str, Any]) -> None:
    """Change a config in place.

    A detector with other tensors inherits its weights from the detector that the config had before.

    Args:
        config: the config.
        chosen: what `choose` returns.

    Raises:
        ParameterError: the config does not have what a value changes.
    """
    original = copy.deepcopy(config.model)
    for name, edits in DIMENSIONS.items():
        if name in chosen and (edit := edits[chosen[name]]) is not None:
            edit(config)
            if name in RESHAPING:
                config.model.inherits = original


def _require(name: str, part: Config, *kinds: str) -> None:
    if part.type not in kinds:
        raise ParameterError(
            f"{name} changes a {' or '.join(kinds)}, the config has a {part.type}; take {name} out of the search space."
        )


def _scale(config: Config, steps: int) -> None:
    """Scale the depth and the width of the backbone, and the sizes of images in training and validation.

    Neck and head keep their channels, so that a scaled detector starts by computing what the usual one computes.
    """
    from mmdet.registry import MODELS

    from retinaface import modules  # noqa: F401

    backbone = config.model.backbone
    _require("compound_scale", backbone, "FaceMobileNetV1", "FaceMobileNetV2")
    backbone.update(depth=DEPTH**steps, width=backbone.width * WIDTH**steps)
    config.model.neck.in_channels = MODELS.build(backbone).out_channels
    crop = find_transform(config.train_dataloader, "ResizeFaces")
    crop.scale = (STRIDE * round(crop.scale[0] * RESOLUTION**steps / STRIDE),) * 2
    whole = find_transform(config.val_dataloader, "ResizeShortestEdge")
    whole.update(scale=round(whole.scale * RESOLUTION**steps), max_size=round(whole.max_size * RESOLUTION**steps))


def _set_neck(config: Config, **pyramid: Any) -> None:
    _require("neck", config.model.neck, "RetinaFaceNeck")
    config.model.neck.pyramid = pyramid
    if pyramid["type"] == "NASFPN":
        config.model.data_preprocessor.pad_size_divisor = NASFPN_STRIDE
        config.find_unused_parameters = True  # the two coarsest maps of its last layer are not used


def _set_head(config: Config, name: str, **changes: Any) -> None:
    _require(name, config.model.bbox_head, "RetinaFaceHead")
    config.model.bbox_head.update(changes)


def _set_focal(config: Config) -> None:
    """Focal loss, which replaces the mining of hard negatives."""
    _set_head(config, "classification_loss", loss_cls={"type": "SoftmaxFocalLoss"})
    config.model.train_cfg.neg_pos_ratio = None


def _sample_anchors(config: Config) -> None:
    """Crop half of the images by data-anchor-sampling, as in PyramidBox's code, and the others as before."""
    crop = find_transform(config.train_dataloader, "RandomSquareCrop")
    anchors = config.model.bbox_head.anchor_generator
    sampling = {
        "type": "DataAnchorSampling",
        "size": find_transform(config.train_dataloader, "ResizeFaces").scale[0],
        "anchors": [base * scale for base in anchors.base_sizes for scale in anchors.scales],
    }
    pipeline = config.train_dataloader.dataset.pipeline
    pipeline[pipeline.index(crop)] = {"type": "RandomChoice", "transforms": [[crop], [sampling]]}


def _augment(config: Config, kinds: int) -> None:
    """Add random operations: 1 kind: colours; 2: also geometric ones; 3: also both of them inside of boxes.

    Zoph et al. (2019) add them in this order.
    """
    whole = [{"type": name, "prob": OPERATION_PROB} for name in (*COLOR, *(GEOMETRY if kinds > 1 else ()))]
    boxes = [{"type": "BoxOnly", "operation": {"type": op["type"]}, "prob": BOX_PROB} for op in whole]
    space = whole + (boxes if kinds > 2 else [])
    pipeline = config.train_dataloader.dataset.pipeline
    after = pipeline.index(find_transform(config.train_dataloader, "FlipFaces")) + 1
    policy = {"type": "AugmentFaces", "aug_space": [[operation] for operation in space], "aug_num": OPERATIONS}
    pipeline.insert(after, policy)


def _test_at_scales(config: Config) -> None:
    """Validate at several scales, with mmdet's test-time augmentation."""
    resize = find_transform(config.val_dataloader, "ResizeShortestEdge")
    pipeline = config.val_dataloader.dataset.pipeline
    place = pipeline.index(resize)
    sizes = [
        {**resize, "scale": round(resize.scale * scale), "max_size": round(resize.max_size * scale)} for scale in SCALES
    ]
    # DetTTAModel reads from each image whether it is flipped.
    steps = [sizes, [{"type": "RandomFlip", "prob": 0.0}], *([step] for step in pipeline[place + 1 :])]
    pipeline[place:] = [{"type": "TestTimeAug", "transforms": steps}]
    find_transform(config.val_dataloader, "PackDetInputs").meta_keys += ("flip", "flip_direction")
    config.val_cfg.type = "MultiScaleValLoop"


# In the order in which they are applied: data-anchor-sampling and the test scales use the sizes of the compound scale.
DIMENSIONS: dict[str, dict[str | int, Edit | None]] = {
    "compound_scale": {0: None, 1: partial(_scale, steps=1), 2: partial(_scale, steps=2)},
    "neck": {
        "fpn": None,
        "pafpn": partial(_set_neck, type="PAFPN", num_outs=3, norm_cfg=NORM),
        "bifpn": partial(_set_neck, type="BiFPN", stack_times=3),
        "nasfpn": partial(_set_neck, type="NASFPN", num_outs=5, stack_times=3, norm_cfg=NORM),
    },
    "maxout_background": {1: None, 3: partial(_set_head, name="maxout_background", background_scores=3)},
    "regression_loss": {
        "smooth_l1": None,
        "iou": partial(_set_head, name="regression_loss", loss_bbox={"type": "IoULoss"}, reg_decoded_bbox=True),
        "diou": partial(_set_head, name="regression_loss", loss_bbox={"type": "DIoULoss"}, reg_decoded_bbox=True),
    },
    "classification_loss": {
        "cross_entropy": None,
        "focal": _set_focal,
        "margin": partial(_set_head, name="classification_loss", loss_cls={"type": "AdditiveMarginLoss"}),
    },
    "crop": {"square": None, "anchor_sampling": _sample_anchors},
    "augmentation": {
        "none": None,
        "color": partial(_augment, kinds=1),
        "geometric": partial(_augment, kinds=2),
        "box_only": partial(_augment, kinds=3),
    },
    "test_scales": {1: None, 3: _test_at_scales},
}
RESHAPING = ("compound_scale", "neck", "maxout_background")
