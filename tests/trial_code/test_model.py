"""Backbones, neck and head of each config."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.structures import InstanceData
from retinaface import modules  # noqa: F401
from retinaface.options import CONFIGS, Options

DETECTORS = sorted(path for path in CONFIGS.glob("retinaface_*.py"))


def build(config: Path = CONFIGS / "retinaface_mobilenetv2.py"):
    torch.manual_seed(0)
    return MODELS.build(Options(Path(), config=config).load_config().model)


@pytest.mark.parametrize("config", DETECTORS, ids=lambda path: path.stem)
def test_maps_have_strides_8_16_32(config: Path) -> None:
    detector = build(config).eval()
    images = torch.zeros(2, 3, 64, 96)
    backbone = detector.backbone(images)
    assert tuple(stage.shape[1] for stage in backbone) == detector.backbone.out_channels
    stages = detector.extract_feat(images)
    channels = detector.bbox_head.in_channels[0]
    assert [tuple(stage.shape) for stage in stages] == [(2, channels, 64 // s, 96 // s) for s in (8, 16, 32)]
    classes, boxes, landmarks = detector(images)
    assert [tuple(x.shape[1:]) for x in classes] == [(4, 8, 12), (4, 4, 6), (4, 2, 3)]
    assert boxes[0].shape[1] == 8 and landmarks[0].shape[1] == 20


def test_half_width_has_the_channels_of_the_papers_space() -> None:
    blocks = [block for stage in build().backbone.stages for block in stage]
    widths = [block.linear_conv.conv.out_channels for block in blocks[1:]]
    expected = [8] + [12] * 2 + [16] * 3 + [32] * 4 + [48] * 3 + [80] * 3 + [160]
    assert blocks[0].conv.out_channels == 16 and widths == expected


def test_anchors_are_two_squares_a_cell_around_its_centre() -> None:
    anchors = build().bbox_head.prior_generator.grid_priors([(4, 6), (2, 3), (1, 2)], device="cpu")
    for level, (rows, columns), stride, sides in zip(
        anchors, [(4, 6), (2, 3), (1, 2)], (8, 16, 32), ((16, 32), (64, 128), (256, 512)), strict=True
    ):
        expected = [
            [
                (column + 0.5) * stride - side / 2,
                (row + 0.5) * stride - side / 2,
                (column + 0.5) * stride + side / 2,
                (row + 0.5) * stride + side / 2,
            ]
            for row in range(rows)
            for column in range(columns)
            for side in sides
        ]
        assert level.tolist() == expected


def truth(boxes: list[list[float]], landmarks: torch.Tensor | None = None) -> InstanceData:
    return InstanceData(
        bboxes=torch.tensor(boxes).reshape(-1, 4),
        labels=torch.zeros(len(boxes), dtype=torch.long),
        landmarks=torch.zeros(len(boxes), 5, 3) if landmarks is None else landmarks,
    )


def random_output(head, images: int, requires_grad: bool = False) -> list[list[torch.Tensor]]:
    """Head outputs for images of 64 x 64."""
    generator = torch.Generator().manual_seed(1)
    sides = (8, 4, 2)
    return [
        [torch.randn(images, 2 * k, s, s, generator=generator).requires_grad_(requires_grad) for s in sides]
        for k in (2, 4, 10)
    ]


META = {"img_shape": (64, 64), "pad_shape": (64, 64)}


def test_landmark_loss_is_the_loop_over_annotated_faces() -> None:
    """Positive anchors of faces with five points only; variance 0.1, smooth L1, mean over those anchors."""
    head = build().bbox_head
    points = torch.rand(3, 5, 3, generator=torch.Generator().manual_seed(2)) * 40
    points[..., 2] = 2
    points[1, 3, 2] = 0  # one unknown point: the face does not teach landmarks
    truths = [truth([[4.0, 4, 22, 22], [30, 30, 60, 62]], points[:2]), truth([[10.0, 20, 40, 50]], points[2:])]
    output = random_output(head, images=2)
    losses = head.loss_by_feat(*output, truths, [META] * 2)

    flat = torch.cat([x.permute(0, 2, 3, 1).reshape(2, -1, 10) for x in output[2]], dim=1)
    anchors = torch.cat(head.prior_generator.grid_priors([(8, 8), (4, 4), (2, 2)], device="cpu"))
    total, count = 0.0, 0
    for image, gt in enumerate(truths):
        assigned = head.assigner.assign(InstanceData(priors=anchors), gt).gt_inds
        for index in (assigned > 0).nonzero().flatten().tolist():
            landmarks = gt.landmarks[assigned[index] - 1]
            if (landmarks[:, 2] == 0).any():
                continue
            x1, y1, x2, y2 = anchors[index].tolist()
            count += 1
            for k, (x, y, _) in enumerate(landmarks.tolist()):
                wanted = ((x - (x1 + x2) / 2) / (x2 - x1) / 0.1, (y - (y1 + y2) / 2) / (y2 - y1) / 0.1)
                for value, goal in zip(flat[image, index, 2 * k : 2 * k + 2].tolist(), wanted, strict=True):
                    error = abs(value - goal)
                    total += error - 0.5 if error >= 1 else error**2 / 2
    assert count > 2
    assert losses["loss_landmark"].item() == pytest.approx(total / count, rel=1e-5)


def test_without_landmarks_their_loss_is_zero_and_has_a_gradient() -> None:
    head = build().bbox_head
    output = random_output(head, images=1, requires_grad=True)
    loss = head.loss_by_feat(*output, [truth([[4.0, 4, 22, 22]])], [META])["loss_landmark"]
    loss.backward()
    assert loss == 0 and output[2][0].grad.abs().sum() == 0


def test_anchors_on_an_ignored_face_are_not_learned() -> None:
    """Neither face nor background: the class scores there get no gradient, though they are the hardest negatives."""
    head = build().bbox_head
    ignored = [32.0, 32, 64, 64]
    anchors = torch.cat(head.prior_generator.grid_priors([(8, 8), (4, 4), (2, 2)], device="cpu"))
    shared = (torch.minimum(anchors[:, 2:], torch.tensor(ignored[2:])) - anchors[:, :2].clamp(min=32)).clamp(min=0)
    covered = shared.prod(1) / (anchors[:, 2:] - anchors[:, :2]).prod(1) > 0.5
    assert covered.sum() > 10

    def touched(gt_ignored: list[InstanceData] | None) -> torch.Tensor:
        output = random_output(head, images=1)
        output[0] = [torch.tensor([3.0, 0, 3, 0]).reshape(1, 4, 1, 1).repeat(1, 1, s, s) for s in (8, 4, 2)]
        for scores in output[0]:  # every anchor says face, those in the lower right louder
            side = scores.shape[-1]
            scores[:, [0, 2], side // 2 :, side // 2 :] += 2
            scores.requires_grad_(True)
        losses = head.loss_by_feat(*output, [truth([[4.0, 4, 22, 22]])], [META], gt_ignored)
        sum(losses["loss_cls"]).backward()
        gradients = [scores.grad.permute(0, 2, 3, 1).reshape(-1, 2) for scores in output[0]]
        return torch.cat(gradients).abs().sum(dim=1) > 0

    assert (touched(None) & covered).any()
    assert not (touched([truth([ignored])]) & covered).any()
    assert touched([truth([ignored])]).any()


def anchors_of(head) -> list[list[float]]:
    return torch.cat(head.prior_generator.grid_priors([(8, 8), (4, 4), (2, 2)], device="cpu")).tolist()


def flat(maps: list[torch.Tensor], values: int) -> list[list[list[float]]]:
    """Head outputs as image, anchor, value."""
    rows = [x.permute(0, 2, 3, 1).reshape(len(x), -1, values) for x in maps]
    return torch.cat(rows, dim=1).tolist()


def slow_iou(a: list[float], b: list[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def slow_match(anchors: list[list[float]], faces: list[list[float]], positive: float) -> list[int | None]:
    """For each anchor its face, -1 for background, None for neither.

    As in RetinaFace: IoU `positive` makes a match; below 0.3 is background; and each face gets its best anchor from
    IoU 0.2 on.
    """
    matches: list[int | None] = []
    for anchor in anchors:
        overlaps = [slow_iou(anchor, face) for face in faces]
        best = max(overlaps)
        matches.append(overlaps.index(best) if best >= positive else -1 if best < 0.3 else None)
    for number, face in enumerate(faces):
        overlaps = [slow_iou(anchor, face) for anchor in anchors]
        if max(overlaps) >= 0.2:
            matches[overlaps.index(max(overlaps))] = number
    return matches


FACES = [
    [[4.3, 4.0, 22.0, 24.0], [30.0, 31.0, 61.0, 60.0], [40.0, 2.0, 49.0, 12.0]],  # the last only gets its best anchor
    [[10.0, 20.0, 41.0, 51.0]],
]


@pytest.mark.parametrize("positive", [0.35, 0.5])
def test_losses_are_the_slow_ones(positive: float) -> None:
    """Cross entropy of positives and of the hardest negatives, as many as ratio times the image's positives; smooth L1
    of offsets in units of variance; both divided by the positives of the batch."""
    head = build().bbox_head
    head.assigner.pos_iou_thr = positive
    output = random_output(head, images=2)
    losses = head.loss_by_feat(*output, [truth(faces) for faces in FACES], [META] * 2)

    anchors, scores, offsets = anchors_of(head), flat(output[0], 2), flat(output[1], 4)
    classes, places, count = 0.0, 0.0, 0
    for image, faces in enumerate(FACES):
        entropy = [[math.log(math.exp(a) + math.exp(b)) - x for x in (a, b)] for a, b in scores[image]]
        matches = slow_match(anchors, faces, positive)
        found = [number for number, match in enumerate(matches) if match is not None and match >= 0]
        negatives = sorted((entropy[n][1] for n, match in enumerate(matches) if match == -1), reverse=True)
        count += len(found)
        classes += sum(entropy[n][0] for n in found) + sum(negatives[: 7 * len(found)])
        for n in found:
            (ax1, ay1, ax2, ay2), (x1, y1, x2, y2) = anchors[n], faces[matches[n]]
            side = ax2 - ax1
            wanted = [
                ((x1 + x2) - (ax1 + ax2)) / 2 / side / 0.1,
                ((y1 + y2) - (ay1 + ay2)) / 2 / side / 0.1,
                math.log((x2 - x1) / side) / 0.2,
                math.log((y2 - y1) / side) / 0.2,
            ]
            errors = [abs(value - goal) for value, goal in zip(offsets[image][n], wanted, strict=True)]
            places += sum(error - 0.5 if error >= 1 else error**2 / 2 for error in errors)
    assert count > 5
    assert sum(losses["loss_cls"]).item() == pytest.approx(classes / count, rel=1e-4)
    assert sum(losses["loss_bbox"]).item() == pytest.approx(2.0 * places / count, rel=1e-4)


def test_detections_are_the_slow_ones() -> None:
    """Softmax, offsets in units of variance, greedy suppression above IoU 0.4, scores from 0.02."""
    head = build().bbox_head
    output = random_output(head, images=1)
    meta = {**META, "scale_factor": (1.0, 1.0), "ori_shape": (64, 64)}
    (found,) = head.predict_by_feat(*output, batch_img_metas=[meta], rescale=False, cfg=head.test_cfg)

    decoded = []
    for (x1, y1, x2, y2), (dx, dy, dw, dh), (face, background) in zip(
        anchors_of(head), flat(output[1], 4)[0], flat(output[0], 2)[0], strict=True
    ):
        side = x2 - x1
        x, y = (x1 + x2) / 2 + 0.1 * dx * side, (y1 + y2) / 2 + 0.1 * dy * side
        w, h = side * math.exp(0.2 * dw), side * math.exp(0.2 * dh)
        box = [min(max(value, 0), 64) for value in (x - w / 2, y - h / 2, x + w / 2, y + h / 2)]
        decoded.append((math.exp(face) / (math.exp(face) + math.exp(background)), box))
    kept: list[tuple[float, list[float]]] = []
    for score, box in sorted(decoded, reverse=True):
        if score > 0.02 and all(slow_iou(box, other) <= 0.4 for _, other in kept):
            kept.append((score, box))
    assert len(kept) > 10
    assert found.scores.tolist() == pytest.approx([score for score, _ in kept], abs=1e-5)
    for box, (_, expected) in zip(found.bboxes.tolist(), kept, strict=True):
        assert box == pytest.approx(expected, abs=1e-3)
