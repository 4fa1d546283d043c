"""The server's own data sets for the platform: features and counts that add up, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import describe
import torch
from retinaface.face_dataset import FaceDataset
from retinaface.job import Job

from nni_hyperfd import Platform
from nni_hyperfd.ranker import features, weights


def test_the_subsets_hold_every_image_and_box_once(job: Job, tmp_path: Path) -> None:
    dataset = FaceDataset(replace(job, seed=3))
    paths = describe.describe(dataset, tmp_path, subsets=3, seed=3)

    sets = [features.unpack(weights.loads(path.read_bytes())) for path in paths]
    assert 1 < len(sets) <= 3
    assert sum(len(images) for images, _ in sets) == dataset.num_images
    counts = torch.stack([counts for _, counts in sets]).sum(0)
    assert counts.tolist() == [dataset.num_images, dataset.num_boxes]
    assert set(weights.loads(paths[0].read_bytes())) == {"features", "present", "counts"}


def test_the_platform_takes_them(job: Job, tmp_path: Path) -> None:
    paths = describe.describe(FaceDataset(job), tmp_path / "offline", subsets=2, seed=0)
    platform = Platform(tmp_path / "state.sqlite")
    for path in paths:
        platform.add_offline(path.stem, path.read_bytes())
    assert platform.counts()["offline data sets"] == len(paths)
