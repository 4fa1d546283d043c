"""Describe one of the server's own data sets (D_off) for the platform, as a few sub-data-sets.

    python describe.py --data FOLDER --weights FILE --out FOLDER [--subsets 6] [--config configs/X.py] ...
    hyperfd offline FOLDER/*.safetensors

The platform needs them to carry old meta-features over to a newer extractor (equation 4). The sub-data-sets are
clusters of the images' features, so that they differ. What is written holds features and counts, no pixel.
"""

from __future__ import annotations

from pathlib import Path

from retinaface.face_dataset import FaceDataset
from retinaface.job import Job, run_script


def main(argv: list[str] | None = None) -> None:
    parser = Job.parser(__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for one .safetensors file per sub-data-set")
    parser.add_argument("--subsets", type=int, default=6)
    arguments = parser.parse_args(argv)
    job = Job.from_arguments(arguments)
    for path in describe(FaceDataset(job), arguments.out, arguments.subsets, job.seed):
        print(path)


def describe(dataset: FaceDataset, out: Path, subsets: int, seed: int) -> list[Path]:
    """Write the sub-data-sets of the training split; returns their files, at most `subsets`."""
    import torch
    from sklearn.cluster import KMeans

    from nni_hyperfd.ranker import features as image_features
    from nni_hyperfd.ranker import gwap, weights

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


if __name__ == "__main__":
    run_script(main)
