"""Writes the image features of one of the server's own data sets (D_off) for the platform, as a few sub-data-sets.

    python describe.py --data FOLDER --out FOLDER [--subsets 6] [--config configs/X.py] ...
    hyperfd offline FOLDER/*.safetensors
    python describe.py --whole --images 64 --data FOLDER_OF_DATA_SETS --out FOLDER ...

The platform needs them to transform old meta-features for a newer extractor (eq. 4, docs/method.md). The sub-data-sets
are clusters of image features, so that they differ. With --whole, each data set becomes one file with its name, as
`hyperfd warmup train` reads them: --data, or all those in that folder. The files contain features and counts, no
pixels.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from retinaface.face_dataset import FaceDataset
from retinaface.options import Options, ScriptError, run_script

if TYPE_CHECKING:
    from torch import Tensor


def main(argv: list[str] | None = None) -> None:
    """Write the files and print their names."""
    parser = Options.parser(__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for one .safetensors file per sub-data-set")
    parser.add_argument("--subsets", type=int, default=6, help="maximum number of sub-data-sets")
    parser.add_argument("--whole", action="store_true", help="describe --data, or each data set in this folder, as one")
    parser.add_argument("--images", type=int, help="with --whole: maximum number of images of each, drawn by --seed")
    arguments = parser.parse_args(argv)
    options = Options.from_arguments(arguments)
    if not arguments.whole:
        for path in describe(FaceDataset(options), arguments.out, arguments.subsets, options.seed):
            print(path)
        return
    alone = (options.data / "train.json").is_file()
    folders = [options.data] if alone else sorted(path.parent for path in options.data.glob("*/train.json"))
    if not folders:
        raise ScriptError(f"no folder in {options.data} is a data set (train.json, val.json, images/).")
    for folder in folders:
        print(describe_whole(FaceDataset(replace(options, data=folder)), arguments.out, arguments.images), flush=True)


def describe(dataset: FaceDataset, out: Path, subsets: int, seed: int) -> list[Path]:
    """Write the sub-data-sets of a training split.

    Args:
        dataset: the data set.
        out: folder for the files.
        subsets: maximum number of sub-data-sets.
        seed: seed of the clustering.

    Returns:
        The files.
    """
    import torch
    from sklearn.cluster import KMeans

    from nni_hyperfd.method import gwap

    features = dataset.image_features(dataset.num_images, seed)
    boxes = _boxes(dataset)
    clusters = KMeans(min(subsets, len(features)), n_init=4, random_state=seed)
    labels = torch.from_numpy(clusters.fit_predict(gwap(features).flatten(1).numpy()))
    paths = []
    for label in labels.unique():
        chosen = labels == label
        path = out / f"{dataset.options.data.name}-{label}.safetensors"
        _write(path, features[chosen], int(chosen.sum()), int(boxes[chosen].sum()))
        paths.append(path)
    return paths


def describe_whole(dataset: FaceDataset, out: Path, images: int | None) -> Path:
    """Write a training split as one file.

    Args:
        dataset: the data set.
        out: folder for the file.
        images: maximum number of images with features; the counts are always those of all images.

    Returns:
        The file.
    """
    features = dataset.image_features(images or dataset.num_images, dataset.options.seed)
    path = out / f"{dataset.options.data.name}.safetensors"
    _write(path, features, dataset.num_images, dataset.num_boxes)
    return path


def _boxes(dataset: FaceDataset) -> Tensor:
    """Number of boxes (n,) of each training image, without ignored ones."""
    import torch

    boxes = torch.zeros(dataset.num_images)
    place = {image["id"]: index for index, image in enumerate(dataset.train.images)}
    for annotation in dataset.train.annotations:
        boxes[place[annotation["image_id"]]] += not annotation.get("ignore")
    return boxes


def _write(path: Path, features: Tensor, images: int, boxes: int) -> None:
    import torch

    from nni_hyperfd import files
    from nni_hyperfd.weights import dumps, pack_features

    counts = torch.tensor([images, boxes], dtype=torch.float32)
    files.write_bytes(path, dumps(pack_features(features, counts)))


if __name__ == "__main__":
    run_script(main)
