"""ONNX files of every kind of detector beside mmdet, and the measures of their detections beside the trial's metric."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from export import at_one_scale, write_config
from mmdet.registry import MODELS
from mmengine.config import Config
from retinaface import modules, onnx_export  # noqa: F401
from retinaface.metric import FaceAP
from retinaface.options import CONFIGS, Options, ScriptError
from retinaface.parameters import apply_parameters
from retinaface.record import Record

from nni_hyperfd.datasets.coco import CocoSplit
from nni_hyperfd.detector.measures import faces_of, match
from nni_hyperfd.detector.onnx_detector import Settings


def built(config: str, **parameters):
    torch.manual_seed(0)
    whole = apply_parameters(Options(Path(), config=CONFIGS / f"{config}.py").load_config(), parameters)
    whole.model.pop("inherits", None)
    return whole, MODELS.build(whole.model).eval()


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        ("retinaface_wider", {}),
        ("retinaface_mobilenetv2", {"neck": "nasfpn", "maxout_background": 3, "compound_scale": 1}),
        ("retinaface_proxylessnas", {}),
    ],
)
def test_the_onnx_file_computes_what_mmdet_does_for_any_size_and_number_of_images(config, parameters, tmp_path) -> None:
    whole, detector = built(config, **parameters)
    settings = onnx_export.settings_of(whole)
    onnx_export.export(detector, settings, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    stored = json.loads(session.get_modelmeta().custom_metadata_map["hyperfd"])
    assert Settings.from_json(stored) == settings
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, size, np.uint8) for size in ((96, 128, 3), (75, 131, 3), (160, 33, 3))]
    of_boxes, of_scores = onnx_export.differences(detector, images, session, score=0.0)
    assert of_boxes < 1e-2 and of_scores < 1e-4
    boxes, scores = session.run(None, {"images": np.stack(images[:1] * 3)})
    assert boxes.shape == (3, *boxes.shape[1:]) and scores.shape == boxes.shape[:2]
    assert sum(settings.level_sizes(128, 96)) == scores.shape[1]


def test_a_detector_that_is_tested_at_three_scales_ships_with_the_middle_one(tmp_path) -> None:
    whole, _ = built("retinaface_wider", test_scales=3)
    assert onnx_export.settings_of(whole).size == 720
    plain = at_one_scale(whole.val_dataloader.dataset.pipeline)
    base, _ = built("retinaface_wider")
    assert [step["type"] for step in plain] == [step["type"] for step in base.val_dataloader.dataset.pipeline]
    write_config(whole, tmp_path / "config.py")
    read = Config.fromfile(tmp_path / "config.py", import_custom_modules=False)
    assert read.test_dataloader.dataset.pipeline[1].scale == 720 and "train_dataloader" not in read


def test_a_record_is_read_as_it_was_written(options, tmp_path) -> None:
    base = options.load_config()
    config = apply_parameters(base, {"neck": "pafpn"})
    made = Record("id", {"neck": "pafpn"}, "/data", options.weights, base.to_dict(), config.to_dict(), 0.5, 1, 2.0)
    made.write(tmp_path)
    read = Record.read(tmp_path)
    assert read == dataclasses.replace(made, base=read.base, config=read.config)
    assert read.started().model.weights == options.weights and "pyramid" not in read.started().model.neck
    assert read.tuned(None).model.neck.pyramid.type == "PAFPN" and "inherits" not in read.tuned(None).model
    with pytest.raises(ScriptError, match="holds no finished trial"):
        Record.read(tmp_path / "none")


def test_ap_is_that_of_the_trials_metric() -> None:
    """On random boxes that overlap, with ignored and small faces among them."""
    rng = np.random.default_rng(0)

    def boxes(count):
        corner = rng.uniform(0, 60, (count, 2))
        return np.hstack([corner, rng.uniform(4, 40, (count, 2))]).round(1)

    images, annotations, results, metric = [], [], [], FaceAP()
    for number in range(1, 41):
        truth, ignored = boxes(rng.integers(0, 6)), rng.random(8) < 0.3
        found = np.vstack([truth + rng.normal(0, 2, truth.shape), boxes(rng.integers(1, 6))])
        scores = rng.random(len(found)).round(2)
        images.append({"id": number, "file_name": "-", "width": 100, "height": 100})
        kept = ignored[: len(truth)] | (truth[:, 2:].min(axis=1, initial=99) < 5)
        for box, ignore in zip(truth, ignored, strict=False):
            annotations.append({"image_id": number, "bbox": box.tolist(), "ignore": int(ignore), "iscrowd": 0})
        results += [
            {"image_id": number, "bbox": b.tolist(), "score": float(s)} for b, s in zip(found, scores, strict=True)
        ]
        corner = lambda rows: torch.from_numpy(np.hstack([rows[:, :2], rows[:, :2] + rows[:, 2:]]))  # noqa: E731
        metric.process(
            {},
            [
                {
                    "pred_instances": {"bboxes": corner(found), "scores": torch.from_numpy(scores)},
                    "gt_instances": {"bboxes": corner(truth[~kept])},
                    "ignored_instances": {"bboxes": corner(truth[kept])},
                }
            ],
        )
    wanted = metric.compute_metrics(metric.results)
    split = CocoSplit(Path(), "val", {}, images, annotations)
    ours = match(faces_of(split, min_face=0.05), results)
    assert ours.faces == wanted["faces"]
    assert ours.ap() == pytest.approx(wanted["ap50"], abs=0.01)
