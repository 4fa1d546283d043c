"""Describe one of the server's own data sets (D_off) for the platform, as a few sub-data-sets.

    python describe.py --data FOLDER --weights FILE --out FOLDER [--subsets 6] [--config configs/X.py] ...
    hyperfd offline FOLDER/*.safetensors
    python describe.py --whole --images 64 --data FOLDER_OF_DATA_SETS --weights FILE --out FOLDER ...

The platform needs them to carry old meta-features over to a newer extractor (equation 4). The sub-data-sets are
clusters of the images' features, so that they differ. With --whole, --data is a folder of data sets, and each becomes
one file of its name, as `hyperfd warmup train` reads them. What is written holds features and counts, no pixel.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from retinaface.face_dataset import FaceDataset
from retinaface.job import Job, JobError, run_script


def main(argv: list[str] | None = None) -> None:
    parser = Job.parser(__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for one .safetensors file per sub-data-set")
    parser.add_argument("--subsets", type=int, default=6)
    parser.add_argument("--whole", action="store_true", help="describe each data set in the folder --data as one")
    parser.add_argument("--images", type=int, help="with --whole: images of each at most, drawn by --seed")
    arguments = parser.parse_args(argv)
    job = Job.from_arguments(arguments)
    if arguments.whole:
        folders = sorted(path.parent for path in job.data.glob("*/train.json"))
        if not folders:
            raise JobError(f"no folder in {job.data} is a data set (train.json, val.json, images/).")
        for folder in folders:
            print(describe_whole(FaceDataset(replace(job, data=folder)), arguments.out, arguments.images), flush=True)
        return
    for path in describe(FaceDataset(job), arguments.out, arguments.subsets, job.seed):
        print(path)


def describe(dataset: FaceDataset, out: Path, subsets: int, seed: int) -> list[Path]:
    """Write the sub-data-sets of the training split; returns their files, at most `subsets`."""
    import torch
    from sklearn.cluster import KMeans

    from nni_hyperfd.method import features as image_features
    from nni_hyperfd.method import gwap, weights

    features = dataset.image_features(dataset.num_images, seed)
    boxes = torch.zeros(len(features))
    place = {image["id"]: index for index, image in enumerate(dataset.train.images)}
    for annotation in dataset.train.annotations:
        boxes[place[annotation["image_id"]]] += not annotation.get("ignore")
    clusters = KMeans(min(subsets, len(features)), n_init=4, random_state=seed)
    labels = torch.from_numpy(clusters.fit_predict(gwap(features).flatten(1).numpy()))
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for label in labels.unique():
        chosen = labels == label
        counts = torch.stack([chosen.sum().float(), boxes[chosen].sum()])
        path = out / f"{dataset.job.data.name}-{label}.safetensors"
        path.write_bytes(weights.dumps(image_features.pack(features[chosen], counts)))
        paths.append(path)
    return paths


def describe_whole(dataset: FaceDataset, out: Path, images: int | None) -> Path:
    """Write the training split, of `images` of its images at most, with the counts of all; returns the file."""
    import torch

    from nni_hyperfd.method import features as image_features
    from nni_hyperfd.method import weights

    features = dataset.image_features(images or dataset.num_images, dataset.job.seed)
    counts = torch.tensor([dataset.num_images, dataset.num_boxes], dtype=torch.float32)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{dataset.job.data.name}.safetensors"
    path.write_bytes(weights.dumps(image_features.pack(features, counts)))
    return path


if __name__ == "__main__":
    run_script(main)
