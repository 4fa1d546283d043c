"""Backbones, neck and head of each config."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.structures import InstanceData
from retinaface import modules  # noqa: F401
from retinaface.job import CONFIGS, Job

DETECTORS = sorted(path for path in CONFIGS.glob("retinaface_*.py"))


def build(config: Path = CONFIGS / "retinaface_mobilenetv2.py"):
    torch.manual_seed(0)
    return MODELS.build(Job(Path(), config=config).load_config().model)


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
