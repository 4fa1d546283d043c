"""The data set as the trial hook sees it."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import benchmark_extract
import pytest
import torch
from mmdet.structures.bbox import bbox_overlaps
from mmengine.dataset import pseudo_collate
from retinaface import features
from retinaface.build import load_detector
from retinaface.face_dataset import FaceDataset
from retinaface.options import CONFIGS, WEIGHTS, ScriptError
from retinaface.training import validate

from nni_hyperfd.datasets import coco
from nni_hyperfd.weights import WeightsError

from .conftest import TRIAL_CODE


@pytest.fixture
def dataset(options) -> FaceDataset:
    return FaceDataset(options)


def test_counts_are_those_of_the_training_split(dataset: FaceDataset, faces: Path) -> None:
    data = json.loads((faces / "train.json").read_text())
    assert dataset.num_images == len(data["images"]) == 8
    assert dataset.num_boxes == sum(not annotation["ignore"] for annotation in data["annotations"]) > 8


def test_features_have_the_agreed_shape(dataset: FaceDataset) -> None:
    """(images, stages, groups, channels + box); every image has negatives at every stage, whose boxes may be zeros."""
    found = dataset.image_features(limit=100, seed=0)
    assert found.shape == (8, 3, 3, 84) and found.dtype == torch.float32 and found.device.type == "cpu"
    empty = found.isnan()
    assert (empty.all(dim=-1) == empty.any(dim=-1)).all(), "a group is NaN throughout or not at all"
    assert not empty[:, :, features.NEGATIVE].any()
    assert empty[..., 0].any() and not empty[:, :, features.POSITIVE].all()
    positive = found[:, :, features.POSITIVE, 80:]
    positive = positive[~positive.isnan().any(dim=-1)]
    assert ((positive > 0) & (positive < 1)).all(), "boxes are shares of the image"


def test_features_of_a_sample(dataset: FaceDataset) -> None:
    """The seed draws images; a drawn image has the features that it has among all."""
    everything = dataset.image_features(limit=8, seed=0)
    some = dataset.image_features(limit=3, seed=1)
    assert some.shape[0] == 3
    assert torch.equal(some.nan_to_num(-1), dataset.image_features(limit=3, seed=1).nan_to_num(-1))
    chosen = dataset._drawn(3, 1)
    assert torch.allclose(some, everything[chosen], atol=1e-4, equal_nan=True)


def test_one_image_more_or_less_changes_at_most_one_of_those_drawn(dataset: FaceDataset) -> None:
    def names(split: coco.CocoSplit) -> set[str]:
        other = FaceDataset(dataset.options)
        other.train = split
        return {split.images[place]["file_name"] for place in other._drawn(4, 0)}

    every, drawn = dataset.train, names(dataset.train)
    for left_out in range(8):
        fewer = dataclasses.replace(every, images=[*every.images[:left_out], *every.images[left_out + 1 :]])
        assert len(names(fewer)) == 4 and len(names(fewer) - drawn) <= 1
    assert len({tuple(dataset._drawn(4, seed)) for seed in range(10)}) > 5


def test_groups_are_those_of_the_images_drawn(options, faces: Path, tmp_path: Path) -> None:
    assert FaceDataset(options).groups(8, 0) is None
    shutil.copytree(faces, tmp_path / "grouped")
    data = json.loads((tmp_path / "grouped" / "train.json").read_text())
    for place, image in enumerate(data["images"][:6]):
        image["group"] = place % 3
    (tmp_path / "grouped" / "train.json").write_text(json.dumps(data))
    grouped = FaceDataset(dataclasses.replace(options, data=tmp_path / "grouped"))
    assert grouped.groups(8, 0) == ["0", "1", "2", "0", "1", "2", None, None] and grouped.folder.name == "grouped"
    assert grouped.groups(3, 0) == [grouped.groups(8, 0)[place] for place in grouped._drawn(3, 0)]


def test_evaluate_is_the_validation_of_a_trial(dataset: FaceDataset) -> None:
    found = dataset.evaluate()
    assert isinstance(found, float) and 0 <= found <= 1
    assert found == validate(dataset.options.load_config(), dataset.val)


def test_fingerprint_names_data_weights_and_settings(options, faces: Path, tmp_path: Path) -> None:
    first = FaceDataset(options).fingerprint()
    assert len(first) == 64 and int(first, 16)

    def of(**changes: object) -> str:
        return FaceDataset(dataclasses.replace(options, **changes)).fingerprint()

    assert of(seed=5, epochs=7, size=128, batch_size=1) == first, "training does not matter"
    shutil.copytree(faces, tmp_path / "copy")
    assert of(data=tmp_path / "copy") == first, "nor does where the folder is"
    weights = bytearray(Path(options.weights).read_bytes())
    weights[-1] ^= 1
    (tmp_path / "other.safetensors").write_bytes(weights)
    (tmp_path / "same.safetensors").write_bytes(Path(options.weights).read_bytes())
    assert of(weights=str(tmp_path / "same.safetensors")) == first
    data = json.loads((tmp_path / "copy" / "train.json").read_text())
    data["annotations"][0]["bbox"][2] -= 1
    (tmp_path / "copy" / "train.json").write_text(json.dumps(data))
    others = [of(weights=str(tmp_path / "other.safetensors")), of(eval_size=128), of(data=tmp_path / "copy")]
    assert len({first, *others}) == 4


def test_making_one_is_light_and_learn_needs_no_mmdet(options) -> None:
    """What the `learn` job asks for; it runs beside other trials, so start-up counts."""
    code = f"""
import sys
import finetune
from pathlib import Path
dataset = finetune.FaceDataset(finetune.Options({str(options.data)!r}, weights={options.weights!r}))
assert not {{"torch", "mmengine", "mmdet", "mmcv"}} & sys.modules.keys(), "made"
dataset.num_images, dataset.num_boxes, dataset.fingerprint()
assert "mmdet" not in sys.modules, "asked"
"""
    paths = [*map(str, (TRIAL_CODE, TRIAL_CODE.parent)), *filter(None, sys.path)]
    result = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": ":".join(paths)}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


def test_weights_are_those_that_come_with_the_config(options, tmp_path: Path) -> None:
    of_wider = dataclasses.replace(options, weights=None, config=CONFIGS / "retinaface_wider_short.py")
    assert FaceDataset(of_wider).weights == str(WEIGHTS / "retinaface_wider.safetensors")
    with pytest.raises(ScriptError, match=r"comes with my_own.py; name a file with --weights"):
        FaceDataset(dataclasses.replace(options, weights=None, config=tmp_path / "my_own.py"))
    with pytest.raises(WeightsError, match="there is no weights file"):
        FaceDataset(dataclasses.replace(options, weights="none.pth")).fingerprint()


def random_boxes(count: int, seed: int, size: float = 96) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * size
    return torch.cat([corner, corner + 4 + torch.rand(count, 2, generator=generator) * size / 2], dim=1)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_matching_is_the_loop_over_anchors(count: int) -> None:
    anchors, boxes = random_boxes(300, 0), random_boxes(count, 1)
    boxes = torch.cat([boxes, boxes])  # duplicates: either will do, they are the same box
    groups, matched = features.match(anchors, boxes)
    seen = set()
    for anchor, group, box in zip(anchors, groups.tolist(), matched.tolist(), strict=True):
        overlaps = bbox_overlaps(anchor[None], boxes)[0].tolist()
        best = max(overlaps, default=0.0)
        expected = features.POSITIVE if best >= 0.5 else features.NEGATIVE if best < 0.3 else features.IGNORED
        assert group == expected
        assert box == (boxes[overlaps.index(best)].tolist() if best > 0 else [0, 0, 0, 0])
        seen.add(group)
    assert seen == ({0, 1, 2} if count == 5 else seen)


def test_group_means_are_the_loop_over_anchors() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 5, 3, 4, generator=generator)
    groups = torch.randint(0, 3, (2, 24), generator=generator)
    groups[1] = features.NEGATIVE
    boxes = torch.rand(2, 24, 4, generator=generator)
    found = features.group_means(maps, groups, boxes)
    for image in range(2):
        for group in range(3):
            rows = []
            for anchor in range(24):
                if groups[image, anchor] == group:
                    row, column = divmod(anchor // 2, 4)
                    rows.append(torch.cat([maps[image, :, row, column], boxes[image, anchor]]))
            if rows:
                assert torch.allclose(found[image, group], torch.stack(rows).mean(0), atol=1e-5)
            else:
                assert found[image, group].isnan().all()
    assert found[1, features.POSITIVE].isnan().all()


def test_extraction_sees_what_the_detector_sees(dataset: FaceDataset) -> None:
    """The faster preparation and the frozen copy give the detector's own numbers; boxes come from the annotations."""
    config = dataset.options.load_config()
    detector = load_detector(config, dataset.options.weights)
    samples = list(dataset.training_images(config, 2, seed=0))
    data = detector.data_preprocessor(pseudo_collate(samples))
    inputs = features.normalised(detector.data_preprocessor, [sample["inputs"] for sample in samples])
    assert torch.allclose(inputs, data["inputs"], atol=1e-5)

    found = features.extract(features.frozen(detector), samples)
    with torch.no_grad():
        stages = detector.extract_feat(data["inputs"])
    for number, sample in enumerate(data["data_samples"]):
        height, width = sample.ori_shape
        scale = torch.tensor([96 / width, 96 / height] * 2)
        boxes = sample.gt_instances.bboxes * scale
        for level, (stage, stride, sides) in enumerate(
            zip(stages, (8, 16, 32), ((16, 32), (64, 128), (256, 512)), strict=True)
        ):
            sums, counts = torch.zeros(3, 84), torch.zeros(3)
            for row in range(stage.shape[2]):
                for column in range(stage.shape[3]):
                    for side in sides:
                        centre = torch.tensor([column + 0.5, row + 0.5] * 2) * stride
                        anchor = centre + torch.tensor([-side, -side, side, side]) / 2
                        overlap, best = bbox_overlaps(anchor[None], boxes)[0].max(dim=0)
                        group = 0 if overlap >= 0.5 else 1 if overlap < 0.3 else 2
                        x1, y1, x2, y2 = (boxes[best] / 96).tolist()
                        box = [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1] if overlap > 0 else [0, 0, 0, 0]
                        sums[group] += torch.cat([stage[number, :, row, column], torch.tensor(box)])
                        counts[group] += 1
            assert torch.allclose(found[number, level], sums / counts[:, None], atol=1e-3, equal_nan=True)


def test_an_image_has_the_same_features_to_the_last_bit_whatever_is_beside_it(dataset: FaceDataset) -> None:
    together, alone = dataset.image_features(8, 0), dataset.image_features(1, 0)
    assert torch.equal(together[dataset._drawn(1, 0)].nan_to_num(-1), alone.nan_to_num(-1))


def test_batches_hold_images_of_one_padded_size() -> None:
    shapes = [(33, 64), (64, 64), (65, 64), (40, 33), (64, 34)] * 5
    samples = [{"inputs": torch.zeros(3, *shape)} for shape in shapes]
    batches = list(benchmark_extract.batches_of_like_size(samples, 32))
    assert sorted(position for batch in batches for position in batch) == list(range(25))
    assert all(samples[position] is sample for batch in batches for position, sample in batch.items())
    for batch in batches:
        assert len(batch) <= benchmark_extract.BATCH
        assert len({(-(-h // 32), -(-w // 32)) for h, w in (shapes[position] for position in batch)}) == 1
    assert len(batches) == 4  # 20 images of one size in 3 batches, 5 of another in 1
