"""What the frozen detector tells about an image: mean context features of its positive, negative and ignored anchors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from mmdet.structures.bbox import bbox_overlaps
from mmengine.dataset import pseudo_collate
from torch import Tensor, nn

POSITIVE_IOU = 0.5
NEGATIVE_IOU = 0.3
POSITIVE, NEGATIVE, IGNORED = range(3)

BATCH = 8
PAD = 32  # images are padded to multiples of the coarsest stride


def match(anchors: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Each anchor's group and its best-matching box.

    anchors (A, 4) and boxes (G, 4) as x1, y1, x2, y2. Returns groups (A,), int64: positive from IoU 0.5 with the best
    box, negative below 0.3, ignored between; and that box (A, 4), zeros for an anchor that overlaps none.
    """
    if not len(boxes):
        return torch.full((len(anchors),), NEGATIVE, device=anchors.device), torch.zeros_like(anchors)
    overlap, best = bbox_overlaps(anchors, boxes).max(dim=1)
    groups = torch.full_like(best, IGNORED)
    groups[overlap >= POSITIVE_IOU] = POSITIVE
    groups[overlap < NEGATIVE_IOU] = NEGATIVE
    return groups, boxes[best] * (overlap > 0)[:, None]


def group_means(features: Tensor, groups: Tensor, boxes: Tensor) -> Tensor:
    """Mean of [feature of the anchor's cell | anchor's box] over each group of one pyramid stage.

    features (B, C, H, W); groups (B, A) and boxes (B, A, 4) with A = H * W * anchors a cell, the cell's anchors next to
    each other. Returns (B, 3, C + 4); an empty group is NaN throughout.
    """
    member = torch.nn.functional.one_hot(groups, 3).to(features.dtype)  # (B, A, 3)
    cells = features.shape[-2] * features.shape[-1]
    in_cell = member.unflatten(1, (cells, -1)).sum(dim=2)  # (B, H * W, 3): a cell counts once for each such anchor
    sums = torch.cat([torch.bmm(features.flatten(2), in_cell).mT, torch.bmm(member.mT, boxes)], dim=2)
    return sums / member.sum(dim=1)[..., None]


def image_features(detector: nn.Module, images: Tensor, boxes: Sequence[Tensor], sizes: Tensor) -> Tensor:
    """(B, 3, 3, C + 4): image, pyramid stage, group, feature.

    images (B, 3, H, W), normalised; boxes: for each image (G, 4) as x1, y1, x2, y2 in its pixels; sizes (B, 2): width
    and height of each image before it was padded, by which its boxes are divided. Boxes come out as cx, cy, w, h.
    """
    stages = detector.extract_feat(images)
    shapes = [stage.shape[-2:] for stage in stages]
    anchors = detector.bbox_head.prior_generator.grid_priors(shapes, device=images.device)
    groups, matched = zip(*(match(torch.cat(anchors), found) for found in boxes), strict=True)
    corners = torch.stack(matched) / sizes.repeat(1, 2)[:, None]
    centred = torch.cat([(corners[..., :2] + corners[..., 2:]) / 2, corners[..., 2:] - corners[..., :2]], dim=2)
    counts = [len(level) for level in anchors]
    of_stage = zip(stages, torch.stack(groups).split(counts, 1), centred.split(counts, 1), strict=True)
    return torch.stack([group_means(*stage) for stage in of_stage], dim=1)


@torch.inference_mode()
def extract(detector: nn.Module, samples: Iterable[dict]) -> Tensor:
    """Features of all images of an evaluation pipeline, float32 (n, 3, 3, C + 4) on the CPU, in their order.

    Faces that are ignored take no part.
    """
    rows: dict[int, Tensor] = {}
    for batch in batches_of_like_size(samples):
        data = detector.data_preprocessor(pseudo_collate(list(batch.values())))
        images, truths = data["inputs"], data["data_samples"]
        # The pipeline leaves boxes in the pixels of the file.
        boxes = [t.gt_instances.bboxes * images.new_tensor(t.scale_factor).repeat(2) for t in truths]
        sizes = images.new_tensor([t.img_shape[::-1] for t in truths])
        rows.update(zip(batch, image_features(detector, images, boxes, sizes).cpu(), strict=True))
    return torch.stack([rows[position] for position in sorted(rows)])


def batches_of_like_size(samples: Iterable[dict]) -> Iterator[dict[int, dict]]:
    """Samples by position, in batches that are padded to one size, so that none is padded further for another."""
    waiting: dict[tuple[int, int], dict[int, dict]] = {}
    for position, sample in enumerate(samples):
        height, width = sample["inputs"].shape[-2:]
        shape = math.ceil(height / PAD), math.ceil(width / PAD)
        alike = waiting.setdefault(shape, {})
        alike[position] = sample
        if len(alike) == BATCH:
            yield waiting.pop(shape)
    yield from waiting.values()
