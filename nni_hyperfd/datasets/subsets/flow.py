"""From source data sets to a folder of subsets.

``<out>/<subset>/{train,val,test}.json`` with ``<out>/<subset>/images``, a link to the common folder ``<out>/images``,
are ordinary data sets. Descriptions of the images and clusterings are kept in ``<out>/parts``, so that an interrupted
run continues after the last complete one. ``report.json`` is written last and marks a finished run.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nni_hyperfd.datasets import coco, resumable
from nni_hyperfd.datasets.contact_sheet import draw_contact_sheet
from nni_hyperfd.datasets.convert.conversion import place_image
from nni_hyperfd.datasets.images import read_image
from nni_hyperfd.datasets.subsets import clusterings, filters, labels, looks, networks, report
from nni_hyperfd.datasets.subsets import pool as pools
from nni_hyperfd.datasets.subsets.errors import SubsetsError
from nni_hyperfd.datasets.subsets.networks import FeatureFunction, FeatureNetwork
from nni_hyperfd.datasets.subsets.parts import array
from nni_hyperfd.datasets.subsets.pool import SPLITS, Pool
from nni_hyperfd.files import write_json

REPORT = "report.json"
"""The report's file name."""
_SETTINGS = "settings.json"
_SAME = 3  # bits of 64 in which the hashes of two images that look the same may differ
_BATCH = 256  # maximum number of images that wait for a thread

Say = Callable[[str], None]
Features = Mapping[str, NDArray[np.float32]]
"""Features (n, d) of all images by name."""


@dataclass(frozen=True)
class Cluster:
    """A group of images.

    Attributes:
        name: unique.
        feature: name of the features that it was made from.
        clustering: one of `clusterings.CLUSTERINGS`.
        clusters: number of clusters in that clustering.
        members: indices of its images.
    """

    name: str
    feature: str
    clustering: str
    clusters: int
    members: NDArray[np.int_]


def build(
    sources: Sequence[Path],
    out: Path,
    wanted: Sequence[FeatureNetwork] = (),
    *,
    smallest: int | None = None,
    largest: int | None = None,
    balance: float = 0.5,
    overlap: float = 0.7,
    seed: int = 0,
    workers: int = 1,
    say: Say = print,
) -> dict[str, Any]:
    """Make subsets of data sets.

    Args:
        sources: folders of the data sets.
        out: a new folder, or one in which the same run was interrupted.
        wanted: networks whose features images are clustered by, beside the label statistics.
        smallest: minimum number of images in a subset; 5 % of all by default.
        largest: maximum number of images in a subset; half of all by default.
        balance: see `filters.Limits`.
        overlap: see `filters.Limits`.
        seed: of the clusterings.
        workers: number of threads that describe images.
        say: gets a line on each step.

    Returns:
        The report: `settings`, the number of `images`, of `look-alikes` that were left out, of `subsets`, and of
        clusters that were `dropped`, by reason.

    Raises:
        AnnotationError: a source cannot be used.
        FolderError: `out` holds a finished run, one with other settings, or something else.
        SubsetsError: a network cannot be used, or no subset can be made.
        OSError: a file cannot be read or written.
    """
    start = time.perf_counter()
    functions = _load(wanted)
    given = pools.read(sources)
    settings = {
        "images": _fingerprint(given),
        "models": {network.name: _network_settings(network) for network in wanted},
        "smallest": smallest,
        "largest": largest,
        "balance": balance,
        "overlap": overlap,
        "seed": seed,
    }
    resumable.check(out / _SETTINGS, out / REPORT, settings)
    resumable.begin(out / _SETTINGS, settings)
    with ThreadPoolExecutor(workers) as threads:
        describe = partial(_described, out=out, threads=threads, say=say)
        pool, seen = _without_look_alikes(given, describe("looks", given, looks.look))
        say(f"{len(pool)} images, without {len(given) - len(pool)} that look like one of them.")
        limits = _limits(len(pool), smallest, largest, balance, overlap)
        features = {"labels": np.stack([*map(labels.statistics, pool.images, pool.faces)])}
        features |= {name: describe(name, pool, function) for name, function in functions.items()}
    ks = clusterings.numbers_of_clusters(len(pool), limits.smallest)
    subsets, dropped = _select(list(_clusters(features, ks, seed, out, say)), pool, limits, out)
    _write(pool, seen, features, subsets, out)
    seconds = time.perf_counter() - start
    say(f"{len(subsets)} subsets in {seconds:.0f} s, {len(pool) / seconds:.1f} images/s.")
    counts = {"images": len(pool), "look-alikes": len(given) - len(pool), "subsets": len(subsets), "dropped": dropped}
    result = {"settings": settings, **counts}
    write_json(out / REPORT, result)
    return result


def _load(wanted: Sequence[FeatureNetwork]) -> dict[str, FeatureFunction]:
    """The networks' functions by name; an unusable network ends the run before anything is written."""
    if len({network.name for network in wanted}) < len(wanted):
        raise SubsetsError("two models have the same name; give every model its own.")
    return {network.name: networks.load(network) for network in wanted}


def _fingerprint(pool: Pool) -> str:
    """SHA-256 of the annotations and of the names, lengths and modification times of the image files."""
    digest = hashlib.sha256()
    for path, split, image, faces in zip(pool.paths, pool.splits, pool.images, pool.faces, strict=True):
        status = path.stat()
        record = [str(path), status.st_size, status.st_mtime_ns, str(split), image, faces]
        digest.update(json.dumps(record).encode())
    return digest.hexdigest()


def _network_settings(network: FeatureNetwork) -> dict[str, Any]:
    digest = hashlib.sha256(network.path.read_bytes()).hexdigest()
    return {"file": digest, "layer": network.layer, "size": network.size, "pixels": network.pixels}


def _limits(images: int, smallest: int | None, largest: int | None, balance: float, overlap: float) -> filters.Limits:
    least = max(1, round(filters.SMALLEST * images)) if smallest is None else smallest
    most = round(filters.LARGEST * images) if largest is None else largest
    if not 2 * least <= images or most < least:
        raise SubsetsError(
            f"subsets of {least} to {most} images cannot be cut from {images}; choose --smallest as at most half of"
            " them and --largest above it."
        )
    return filters.Limits(least, most, balance, overlap)


def _described(
    name: str, pool: Pool, function: FeatureFunction, *, out: Path, threads: ThreadPoolExecutor, say: Say
) -> NDArray[np.float32]:
    """What a function says of every image (n, d), from `parts` where it is known."""

    def describe(path: Path) -> NDArray[np.float32]:
        features = function(read_image(path))
        if not np.isfinite(features).all():
            raise SubsetsError(f"{path}: {name} describes it by numbers that are not finite; try other pixels=.")
        return features

    def rows() -> Iterator[NDArray[np.float32]]:
        wall, busy = time.perf_counter(), time.process_time()
        for start in range(0, len(pool), _BATCH):
            yield from threads.map(describe, pool.paths[start : start + _BATCH])
        wall, busy = time.perf_counter() - wall, time.process_time() - busy
        say(f"{name}: {len(pool)} images, {len(pool) / wall:.1f} images/s, {busy / wall:.1f} cores busy.")

    return array(out / "parts" / f"{name}.npy", rows)


def _without_look_alikes(given: Pool, seen: NDArray[np.float32]) -> tuple[Pool, NDArray[np.float32]]:
    """The images that do not look like an earlier one, and their `looks.LOOKS`.

    Args:
        given: all images.
        seen: what `looks.look` says of them.
    """
    measures = len(looks.LOOKS)
    indices = looks.distinct(seen[:, measures:], _SAME)
    return given.select(indices), np.asarray(seen[indices, :measures])


def _clusters(features: Features, ks: Sequence[int], seed: int, out: Path, say: Say) -> Iterator[Cluster]:
    """All clusters of all clusterings by all features; clusterings are from `parts` where they are known."""
    for feature, values in features.items():
        for clustering in clusterings.CLUSTERINGS:
            start = time.perf_counter()
            path = out / "parts" / f"{feature}-{clustering}.npy"
            rows = array(path, partial(clusterings.cluster, values, clustering, ks, seed))
            say(f"{feature}, {clustering}: {time.perf_counter() - start:.1f} s.")
            for index, row in enumerate(rows):
                found = int(row.max()) + 1
                clusters = found if clustering in clusterings.FIND_NUMBER else ks[index]
                for number in range(found):
                    name = f"{feature}-{clustering}-{clusters}-{number + 1}"
                    yield Cluster(name, feature, clustering, clusters, np.flatnonzero(row == number))


def _select(
    clusters: Sequence[Cluster], pool: Pool, limits: filters.Limits, out: Path
) -> tuple[list[Cluster], Counter[str]]:
    """The clusters that become subsets, and the numbers of dropped ones by reason."""
    chosen, dropped = filters.select([cluster.members for cluster in clusters], pool.splits, pool.usable, limits)
    if not chosen:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
        raise SubsetsError(
            f"{out}: no cluster is fit to be a subset ({reasons}); choose other limits and a new folder."
        )
    return [clusters[index] for index in chosen], dropped


def _write(pool: Pool, seen: NDArray[np.float32], features: Features, subsets: Iterable[Cluster], out: Path) -> None:
    """Write everything that is for the user. Only contact sheets of an interrupted run are not made again."""
    names = _place_images(pool, out)
    condensed = {name: report.condensed(values) for name, values in {**features, "looks": seen}.items()}
    rows = []
    for subset in subsets:
        train = _write_subset(pool, names, subset.members, out / subset.name)
        sheet = out / f"{subset.name}.jpg"
        if not sheet.exists():
            draw_contact_sheet(train, sheet)
        others = np.concatenate([values for name, values in condensed.items() if name != subset.feature], axis=1)
        rows.append(
            {
                "subset": subset.name,
                "feature": subset.feature,
                "clustering": subset.clustering,
                "clusters": subset.clusters,
                **report.describe(pool, seen, subset.members),
                "told_apart": report.told_apart(others, subset.members, pool.splits),
            }
        )
    report.write_table(rows, out / "subsets.csv")
    report.draw_spread(rows, report.describe(pool, seen, np.arange(len(pool))), out / "spread.png")


def _place_images(pool: Pool, out: Path) -> list[str]:
    """Link all images into ``out/images``, named after the SHA-256 of their bytes; return the names."""
    folder = out / "images"
    folder.mkdir(exist_ok=True)
    names = []
    for path in pool.paths:
        name = hashlib.sha256(path.read_bytes()).hexdigest() + path.suffix.lower()
        place_image(path, folder / name)
        names.append(name)
    return names


def _write_subset(pool: Pool, names: Sequence[str], members: NDArray[np.int_], folder: Path) -> coco.CocoSplit:
    """Write one data set; return its training split."""
    folder.mkdir(exist_ok=True)
    link = folder / "images"
    if not link.is_symlink():
        link.symlink_to(Path("..", "images"), target_is_directory=True)
    category = {"id": 1, "name": coco.FACE}
    written = {}
    for split in SPLITS:
        images: list[coco.Record] = []
        annotations: list[coco.Record] = []
        for number, index in enumerate(members[pool.splits[members] == split], start=1):
            images.append({**pool.images[index], "id": number, "file_name": names[index]})
            for face in pool.faces[index]:
                ids = {"id": len(annotations) + 1, "image_id": number, "category_id": 1}
                annotations.append({**face, **ids})
        if images:
            written[split] = coco.CocoSplit(folder, split, category, images, annotations)
            content = {"images": images, "annotations": annotations, "categories": [category]}
            write_json(folder / f"{split}.json", content, indent=None)
    return written["train"]
