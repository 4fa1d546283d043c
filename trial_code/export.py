"""Makes ONNX files, a config and figures of a finished trial's detector, and of the one that it started from.

    python export.py --trial WORK_DIR --out FOLDER [--images 8]

WORK_DIR is the --work-dir of a finished trial, FOLDER gets `detector.safetensors`, `config.py`, `model.onnx`,
`start.onnx` and `facts.json`. The ONNX file is compared with mmdet on images of the validation split. `hyperfd best`
calls this.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinaface.options import ScriptError, run_script
from retinaface.record import Record

from nni_hyperfd import files
from nni_hyperfd.datasets import coco
from nni_hyperfd.detector.onnx_detector import MODEL, OnnxDetector, open_image
from nni_hyperfd.privacy.traces import place_of

if TYPE_CHECKING:
    from mmdet.models import BaseDetector
    from mmengine.config import Config

_FLOPS_AT = (640, 360)
_KEPT = ("model", "default_scope", "visualizer", "test_dataloader", "test_evaluator", "test_cfg")


def main(argv: list[str] | None = None) -> None:
    """Run the export."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trial", type=Path, required=True, help="--work-dir of a finished trial")
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    parser.add_argument(
        "--images", type=int, default=8, help="validation images on which ONNX and PyTorch are compared"
    )
    arguments = parser.parse_args(argv)
    record = Record.read(arguments.trial)
    facts = export(record, arguments.trial / "detector.safetensors", arguments.out, arguments.images)
    print(json.dumps(facts, indent=1))


def export(record: Record, weights: Path, out: Path, images: int) -> dict[str, Any]:
    """Write the files.

    Args:
        record: of the trial.
        weights: its detector.
        out: folder for the files.
        images: number of validation images on which ONNX and PyTorch are compared.

    Returns:
        The content of `facts.json`.
    """
    from retinaface import onnx_export
    from retinaface.build import load_detector

    out.mkdir(parents=True, exist_ok=True)
    start, tuned = record.started(), record.tuned(weights)
    onnx_export.export(load_start(start), onnx_export.settings_of(start), out / "start.onnx")
    detector, settings = load_detector(tuned, weights), onnx_export.settings_of(tuned)
    onnx_export.export(detector, settings, out / MODEL)
    shutil.copyfile(weights, out / "detector.safetensors")
    write_config(record.tuned(None), out / "config.py")

    data = place_of(record.data)
    if data is None:
        raise ScriptError("the data set of the trial is not known here; run this where its images are.")
    split = coco.load(data, "val")
    runner = OnnxDetector(out)
    shown = split.images[:: max(1, split.num_images // images)][:images]
    pixels = [runner.prepare(open_image(split.image_path(image))) for image in shown]
    of_boxes, of_scores = onnx_export.differences(detector, pixels, runner.session, settings.score)
    facts = {
        "difference": {"boxes": of_boxes, "scores": of_scores, "images": len(pixels)},
        **_size(detector),
        "weights": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "versions": _versions(),
    }
    files.write_json(out / "facts.json", facts)
    return facts


def load_start(config: Config) -> BaseDetector:
    """The detector before fine-tuning; parts that its weights do not have are random."""
    import torch
    from mmdet.registry import MODELS
    from retinaface import modules  # noqa: F401  registers them
    from retinaface.convert import load_weights

    torch.manual_seed(0)
    detector: BaseDetector = MODELS.build(config.model)
    load_weights(detector, config.model.weights)
    return detector.eval()


def write_config(config: Config, path: Path) -> None:
    """Write a config that mmdet's own tools and its DetInferencer load, without what only training needs."""
    from mmengine.config import Config

    kept = {name: config.get(name) for name in _KEPT}
    kept["visualizer"] = {"type": "DetLocalVisualizer", "vis_backends": [{"type": "LocalVisBackend"}], "name": "faces"}
    dataset = kept["test_dataloader"]["dataset"]
    dataset["pipeline"] = at_one_scale(config.val_dataloader.dataset.pipeline)
    dataset["data_root"] = "."
    modules = {"imports": ["nni_hyperfd.detector.mmdet_modules"], "allow_failed_imports": False}
    with files.atomic(path) as partial:
        Config({"custom_imports": modules, **kept}).dump(partial)


def at_one_scale(pipeline: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """An evaluation pipeline without test-time augmentation: of several scales it has the middle one."""
    plain: list[dict[str, Any]] = []
    for step in pipeline:
        if step["type"] == "TestTimeAug":
            sizes, _flip, *others = step["transforms"]
            plain += [sorted(sizes, key=lambda size: size["scale"])[len(sizes) // 2], *(one for (one,) in others)]
        else:
            plain.append(step)
    return plain


def _size(detector: BaseDetector) -> dict[str, Any]:
    """Numbers of parameters, and of multiplications with additions for an image of `_FLOPS_AT`."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    width, height = _FLOPS_AT
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        detector.bbox_head(detector.extract_feat(torch.zeros(1, 3, height, width)))
    return {
        "parameters": sum(parameter.numel() for parameter in detector.parameters()),
        "multiply_adds": counter.get_total_flops() // 2,
        "multiply_adds_at": list(_FLOPS_AT),
    }


def _versions() -> dict[str, str]:
    import mmdet
    import mmengine
    import torch

    import nni_hyperfd

    return {module.__name__: module.__version__ for module in (nni_hyperfd, torch, mmengine, mmdet)}


if __name__ == "__main__":
    run_script(main)
