"""The stand-in for mmcv's compiled extension."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from retinaface import bridge

from .conftest import TRIAL_CODE


def slow_nms(boxes: list[list[float]], scores: list[float], threshold: float, offset: int) -> list[int]:
    def area(box: list[float]) -> float:
        return (box[2] - box[0] + offset) * (box[3] - box[1] + offset)

    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        for j in kept:
            width = min(boxes[i][2], boxes[j][2]) - max(boxes[i][0], boxes[j][0]) + offset
            height = min(boxes[i][3], boxes[j][3]) - max(boxes[i][1], boxes[j][1]) + offset
            shared = max(width, 0) * max(height, 0)
            if shared > threshold * (area(boxes[i]) + area(boxes[j]) - shared):
                break
        else:
            kept.append(i)
    return kept


def random_boxes(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 60
    size = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 40
    scores = torch.randint(0, 20, (count,), generator=generator) / 20  # with ties
    return torch.cat([corner, corner + size], dim=1), scores


@pytest.mark.parametrize("count", [0, 1, 2, 60])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.0, 0.4, 1.0])
def test_nms_is_the_greedy_loop(count: int, offset: int, threshold: float) -> None:
    for seed in range(3):
        boxes, scores = random_boxes(count, seed)
        expected = slow_nms(boxes.tolist(), scores.tolist(), threshold, offset)
        assert bridge.nms(boxes, scores, threshold, offset).tolist() == expected


def test_nms_of_duplicates_keeps_the_first() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10]]).repeat(3, 1)
    assert bridge.nms(boxes, torch.tensor([0.5, 0.9, 0.9]), 0.5).tolist() == [1]


@pytest.mark.skipif(not bridge.is_compiled(), reason="this mmcv has no compiled ops")
def test_nms_is_that_of_compiled_mmcv() -> None:
    from mmcv.ops import nms

    for seed in range(20):
        boxes, scores = random_boxes(80, seed)
        boxes, scores = boxes.float(), torch.rand(80, generator=torch.Generator().manual_seed(seed))
        assert bridge.nms(boxes, scores, 0.4).tolist() == nms(boxes, scores, 0.4)[1].tolist()


@pytest.mark.skipif(bridge.is_compiled(), reason="this mmcv has its compiled ops, so the bridge has stepped aside")
def test_mmcv_runs_on_the_bridge() -> None:
    from mmcv.ops import nms

    boxes, scores = random_boxes(30, 0)
    assert nms(boxes, scores, 0.4)[1].tolist() == slow_nms(boxes.tolist(), scores.tolist(), 0.4, 0)
    with pytest.raises(NotImplementedError, match="'roi_align_forward' needs an mmcv with compiled ops"):
        sys.modules[bridge.EXTENSION].roi_align_forward()


def test_bridge_steps_aside_for_compiled_mmcv(tmp_path) -> None:
    """With an extension file beside mmcv nothing is put in its place."""
    from importlib.machinery import EXTENSION_SUFFIXES

    (tmp_path / "mmcv").mkdir()
    (tmp_path / "mmcv" / "__init__.py").touch()
    (tmp_path / "mmcv" / f"_ext{EXTENSION_SUFFIXES[0]}").touch()
    code = "import sys, retinaface; print('mmcv._ext' in sys.modules, retinaface.bridge.is_compiled())"
    environment = {"PYTHONPATH": f"{tmp_path}:{TRIAL_CODE}"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "True"]
