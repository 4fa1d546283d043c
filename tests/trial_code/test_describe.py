"""The server's own data sets for the platform: features and counts that add up, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import describe
import finetune
import pytest
import torch
from retinaface.face_dataset import FaceDataset
from retinaface.options import Options, ScriptError

from nni_hyperfd import Platform
from nni_hyperfd.method import features, weights
from nni_hyperfd.platform import own_datasets


def test_the_subsets_hold_every_image_and_box_once(options: Options, tmp_path: Path) -> None:
    dataset = FaceDataset(replace(options, seed=3))
    paths = describe.describe(dataset, tmp_path, subsets=3, seed=3)

    sets = [features.unpack(weights.loads(path.read_bytes())) for path in paths]
    assert 1 < len(sets) <= 3
    assert sum(len(images) for images, _ in sets) == dataset.num_images
    counts = torch.stack([counts for _, counts in sets]).sum(0)
    assert counts.tolist() == [dataset.num_images, dataset.num_boxes]
    assert set(weights.loads(paths[0].read_bytes())) == {"features", "present", "counts"}


def test_the_platform_takes_them(options: Options, tmp_path: Path) -> None:
    paths = describe.describe(FaceDataset(options), tmp_path / "offline", subsets=2, seed=0)
    platform = Platform(tmp_path / "state.sqlite")
    for path in paths:
        own_datasets.add(platform, path.stem, path.read_bytes())
    assert platform.counts()["offline data sets"] == len(paths)


def test_each_data_set_of_a_folder_becomes_one_file(
    options: Options, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = [
        "--whole",
        "--data",
        str(options.data.parent),
        "--weights",
        options.weights,
        "--out",
        str(tmp_path / "out"),
    ]
    describe.main([*arguments, "--config", str(options.config), "--eval-size", "96", "--images", "3", "--workers", "0"])
    assert capsys.readouterr().out == f"{tmp_path / 'out' / 'plain.safetensors'}\n"
    images, counts = features.unpack(weights.loads((tmp_path / "out" / "plain.safetensors").read_bytes()))
    dataset = FaceDataset(replace(options, eval_size=96))
    assert len(images) == 3 and counts.tolist() == [dataset.num_images, dataset.num_boxes]
    with pytest.raises(ScriptError, match="is a data set"):
        describe.main([*arguments[:2], str(tmp_path), *arguments[3:]])


def test_a_trial_takes_the_data_set_that_its_parameters_name(options: Options) -> None:
    whole = FaceDataset(replace(options, data=options.data.parent))
    assert finetune.part_of(whole, "plain").train.num_images == FaceDataset(options).train.num_images
    for name in ("none", "..", ".", "", "plain/images", str(options.data), None, 3, ["plain"]):
        with pytest.raises(ScriptError, match="it must be the name of a folder in"):
            finetune.part_of(whole, name)
