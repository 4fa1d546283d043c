"""trial_code is a folder of scripts, not an installed package: its folder goes on the path, as when a script runs."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mmengine.logging import MMLogger

TRIAL_CODE = Path(__file__).resolve().parents[2] / "trial_code"
sys.path.insert(0, str(TRIAL_CODE))

import retinaface  # noqa: E402, F401  makes mmdet importable
from retinaface.options import CONFIGS, Options  # noqa: E402

from nni_hyperfd.datasets import coco, synthetic  # noqa: E402


@pytest.fixture(autouse=True)
def no_closed_log_files() -> None:
    """Servers of other tests configure logging anew, which closes files that mmengine's logger would still write to."""
    logger = MMLogger.get_current_instance()
    for handler in list(logger.handlers):
        if isinstance(handler, logging.FileHandler) and handler.stream is None:
            logger.removeHandler(handler)


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic data set of 8 training and 4 validation images of 96 pixels, with landmarks."""
    return synthetic.make(tmp_path_factory.mktemp("faces") / "plain", "plain", images=(8, 4, 0), size=96)


@pytest.fixture(scope="session")
def detector_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector with half a MobileNetV2 and random weights."""
    options = Options(Path(), config=CONFIGS / "retinaface_mobilenetv2.py")
    return _random_detector(options, tmp_path_factory.mktemp("weights") / "random.safetensors")


@pytest.fixture(scope="session")
def largest_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The largest detector of the architecture space with random weights."""
    options = Options(Path(), config=CONFIGS / "retinaface_proxylessnas.py")
    return _random_detector(options, tmp_path_factory.mktemp("weights") / "largest.safetensors")


def _random_detector(options: Options, path: Path) -> Path:
    import torch
    from mmdet.registry import MODELS
    from retinaface import modules  # noqa: F401
    from retinaface.weight_files import save_detector

    torch.manual_seed(0)
    save_detector(MODELS.build(options.load_config().model), path)
    return path


@pytest.fixture
def options(faces: Path, detector_file: Path) -> Options:
    """One epoch on `faces` from `detector_file`, as small as it gets."""
    return Options(
        data=faces,
        weights=str(detector_file),
        config=CONFIGS / "retinaface_mobilenetv2.py",
        size=64,
        eval_size=96,
        min_face=0.0,
        epochs=1,
        val_interval=1,
        batch_size=4,
        workers=0,
    )


@pytest.fixture
def searchable_options(options: Options, largest_file: Path) -> Options:
    """The same for architectures."""
    return dataclasses.replace(options, weights=str(largest_file), config=CONFIGS / "retinaface_proxylessnas.py")


@pytest.fixture
def splits(faces: Path) -> list[coco.CocoSplit]:
    return [coco.load(faces, split) for split in ("train", "val")]


@pytest.fixture
def write_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes a data set folder of grey images from a size and a list of annotations for each."""

    def write(images: list[tuple[tuple[int, int], list[dict]]], split: str = "val") -> Path:
        import cv2
        import numpy as np

        (tmp_path / "images").mkdir(exist_ok=True)
        records, annotations = [], []
        for number, ((width, height), found) in enumerate(images, start=1):
            name = f"{split}{number}.png"
            cv2.imwrite(str(tmp_path / "images" / name), np.full((height, width, 3), 127, np.uint8))
            records.append({"id": number, "file_name": name, "width": width, "height": height})
            for annotation in found:
                area = annotation["bbox"][2] * annotation["bbox"][3]
                own = {"id": len(annotations) + 1, "image_id": number, "category_id": 1, "area": area, "iscrowd": 0}
                annotations.append({**own, **annotation})
        data = {"images": records, "annotations": annotations, "categories": [{"id": 1, "name": "face"}]}
        (tmp_path / f"{split}.json").write_text(json.dumps(data))
        return tmp_path

    return write
