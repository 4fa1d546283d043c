"""From source data sets to a folder of subsets.

``<out>/<subset>/{train,val,test}.json`` and ``<out>/<subset>/images`` (a link to the one folder ``<out>/images``) are
ordinary data sets. Descriptions and clusterings are kept in ``<out>/parts``: a run that was ended goes on from the last
whole one. ``report.json`` is written last and marks a finished run.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nni_hyperfd.datasets import coco
from nni_hyperfd.datasets.convert.conversion import place_image, write_json
from nni_hyperfd.datasets.subsets import clusterings, filters, labels, looks, models, report
from nni_hyperfd.datasets.subsets import pool as pools
from nni_hyperfd.datasets.subsets.errors import SubsetsError
from nni_hyperfd.datasets.subsets.parts import array
from nni_hyperfd.datasets.subsets.pool import SPLITS, Pool
from nni_hyperfd.datasets.synthetic import draw_contact_sheet

REPORT = "report.json"
_SETTINGS = "settings.json"
_SAME = 3  # bits of 64 in which the hashes of two pictures of the same may differ
_BATCH = 256  # pictures that wait for a thread at most

Say = Callable[[str], None]


def build(
    sources: Sequence[Path],
    out: Path,
    wanted: Sequence[models.Model] = (),
    *,
    smallest: int | None = None,
    largest: int | None = None,
    balance: float = 0.5,
    overlap: float = 0.7,
    seed: int = 0,
    workers: int = 1,
    say: Say = print,
) -> dict[str, Any]:
    """Make the subsets of ``sources`` in ``out``, a new folder or one of a run that was ended; returns the report.

    ``smallest`` and ``largest`` default to 5 % and half of the images; see `filters.Limits`. ``workers``: threads that
    describe images. The report holds ``settings``, the number of ``images``, of ``look-alikes`` left out, of
    ``subsets``, and of clusters ``dropped``, by reason.

    Raises AnnotationError for faulty sources, SubsetsError for what else is wrong, OSError where the disk refuses.
    """
    if len({model.name for model in wanted}) < len(wanted):
        raise SubsetsError("two models have the same name; give every model its own.")
    start = time.perf_counter()
    for model in wanted:
        models.load(model)  # a file that is no network ends the run before there is anything to be continued
    given = pools.read(sources)
    settings = {
        "images": _fingerprint(given),
        "models": {model.name: _model_settings(model) for model in wanted},
        "smallest": smallest,
        "largest": largest,
        "balance": balance,
        "overlap": overlap,
        "seed": seed,
    }
    _enter(out, settings)
    with ThreadPoolExecutor(workers) as threads:
        seen = _described("looks", given, looks.look, out, threads, say)
        places = looks.distinct(seen[:, len(looks.LOOKS) :], _SAME)
        pool, seen = given.chosen(places), np.asarray(seen[places, : len(looks.LOOKS)])
        say(f"{len(pool)} images, without {len(given) - len(pool)} that look like one of them.")
        limits = _limits(len(pool), smallest, largest, balance, overlap)
        features = {"labels": np.stack([*map(labels.statistics, pool.images, pool.faces)])}
        for model in wanted:
            features[model.name] = _described(model.name, pool, models.load(model), out, threads, say)
    ks = clusterings.numbers_of_clusters(len(pool), limits.smallest)
    clusters = list(_clusters(features, ks, seed, out, say))
    chosen, dropped = filters.kept([own for _, own in clusters], pool.splits, pool.usable, limits)
    if not chosen:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
        raise SubsetsError(
            f"{out}: no cluster is fit to be a subset ({reasons}); choose other limits and a new folder."
        )
    _write(pool, seen, features, [clusters[place] for place in chosen], out)
    seconds = time.perf_counter() - start
    say(f"{len(chosen)} subsets in {seconds:.0f} s, {len(pool) / seconds:.1f} images/s.")
    counts = {"images": len(pool), "look-alikes": len(given) - len(pool), "subsets": len(chosen), "dropped": dropped}
    result = {"settings": settings, **counts}
    write_json(out / REPORT, result)
    return result


def _enter(out: Path, settings: dict[str, Any]) -> None:
    """Refuse an ``out`` that is neither new nor of a run with these settings that was ended; make its folders."""
    if (out / REPORT).exists():
        raise SubsetsError(f"{out}: holds finished subsets; name another folder, or remove this one to make them anew.")
    if (out / _SETTINGS).exists():
        try:
            known = dict(json.loads((out / _SETTINGS).read_text()))
        except (ValueError, TypeError):
            raise SubsetsError(f"{out / _SETTINGS}: is not of this command; name a new folder.") from None
        for name, value in settings.items():
            if known.get(name) != value:
                values = "" if name in ("images", "models") else f" ({known.get(name)}, not {value})"
                raise SubsetsError(
                    f"{out}: was begun with other {name}{values}; repeat the first command, or name another folder."
                )
    elif out.is_file() or (out.exists() and {path.name for path in out.iterdir()} - {"settings.partial"}):
        raise SubsetsError(f"{out}: is not empty; name a new folder.")
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / _SETTINGS, settings)
    for name in ("images", "parts"):
        (out / name).mkdir(exist_ok=True)


def _fingerprint(pool: Pool) -> str:
    """sha256 of what the annotations say, and of the names, lengths and times of the image files."""
    digest = hashlib.sha256()
    for path, split, image, faces in zip(pool.paths, pool.splits, pool.images, pool.faces, strict=True):
        status = path.stat()
        record = [str(path), status.st_size, status.st_mtime_ns, str(split), image, faces]
        digest.update(json.dumps(record).encode())
    return digest.hexdigest()


def _model_settings(model: models.Model) -> dict[str, Any]:
    digest = hashlib.sha256(model.path.read_bytes()).hexdigest()
    return {"file": digest, "layer": model.layer, "size": model.size, "pixels": model.pixels}


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
    name: str,
    pool: Pool,
    network: models.Network,
    out: Path,
    threads: ThreadPoolExecutor,
    say: Say,
) -> NDArray[np.float32]:
    """What ``network`` says of every image (n, d), from ``parts`` where it is there."""

    def one(path: Path) -> NDArray[np.float32]:
        vector = network(looks.read_image(path))
        if not np.isfinite(vector).all():
            raise SubsetsError(f"{path}: {name} describes it by numbers that are not finite; try other pixels=.")
        return vector

    def rows() -> Iterator[NDArray[np.float32]]:
        wall, busy = time.perf_counter(), time.process_time()
        for start in range(0, len(pool), _BATCH):
            yield from threads.map(one, pool.paths[start : start + _BATCH])
        wall, busy = time.perf_counter() - wall, time.process_time() - busy
        say(f"{name}: {len(pool)} images, {len(pool) / wall:.1f} images/s, {busy / wall:.1f} cores busy.")

    return array(out / "parts" / f"{name}.npy", rows)


def _clusters(
    features: dict[str, NDArray[np.float32]], ks: list[int], seed: int, out: Path, say: Say
) -> Iterator[tuple[dict[str, Any], NDArray[np.int_]]]:
    """Every cluster: ``subset`` (its name), ``feature``, ``clustering``, number of ``clusters``; and its images."""
    for feature, values in features.items():
        for clustering in clusterings.CLUSTERINGS:
            start = time.perf_counter()
            path = out / "parts" / f"{feature}-{clustering}.npy"
            rows = array(path, partial(clusterings.cluster, values, clustering, ks, seed))
            say(f"{feature}, {clustering}: {time.perf_counter() - start:.1f} s.")
            for place, row in enumerate(rows):
                found = int(row.max()) + 1
                number = found if clustering in clusterings.FIND_NUMBER else ks[place]
                for cluster in range(found):
                    name = f"{feature}-{clustering}-{number}-{cluster + 1}"
                    about = {"subset": name, "feature": feature, "clustering": clustering, "clusters": number}
                    yield about, np.flatnonzero(row == cluster)


def _write(
    pool: Pool,
    seen: NDArray[np.float32],
    features: dict[str, NDArray[np.float32]],
    subsets: list[tuple[dict[str, Any], NDArray[np.int_]]],
    out: Path,
) -> None:
    """Everything that is for the user; what was written by a run that was ended is written anew, but for the sheets."""
    names = _place(pool, out)
    condensed = {name: report.condensed(values) for name, values in {**features, "looks": seen}.items()}
    rows = []
    for about, own in subsets:
        train = _write_subset(pool, names, own, out / about["subset"])
        sheet = out / f"{about['subset']}.jpg"
        if not sheet.exists():
            unfinished = out / "unfinished.jpg"
            draw_contact_sheet(train, unfinished)
            unfinished.replace(sheet)
        others = [points for name, points in condensed.items() if name != about["feature"]]
        auc = report.told_apart(np.concatenate(others, axis=1), own, pool.splits)
        rows.append({**about, **report.describe(pool, seen, own), "told_apart": auc})
    report.write_table(rows, out / "subsets.csv")
    report.draw_spread(rows, report.describe(pool, seen, np.arange(len(pool))), out / "spread.png")


def _place(pool: Pool, out: Path) -> list[str]:
    """Link all images into ``out/images``, named by their bytes; the names."""
    names = []
    for path in pool.paths:
        name = hashlib.sha256(path.read_bytes()).hexdigest() + path.suffix.lower()
        place_image(path, out / "images" / name)
        names.append(name)
    return names


def _write_subset(pool: Pool, names: list[str], own: NDArray[np.int_], folder: Path) -> coco.CocoSplit:
    """Write one data set; its training split."""
    folder.mkdir(exist_ok=True)
    link = folder / "images"
    if not link.is_symlink():
        link.symlink_to(Path("..", "images"), target_is_directory=True)
    category = {"id": 1, "name": coco.FACE}
    written = {}
    for split in SPLITS:
        places = own[pool.splits[own] == split]
        images, annotations = [], []
        for number, place in enumerate(places, start=1):
            images.append({**pool.images[place], "id": number, "file_name": names[place]})
            for face in pool.faces[place]:
                ids = {"id": len(annotations) + 1, "image_id": number, "category_id": 1}
                annotations.append({**face, **ids})
        if images:
            written[split] = coco.CocoSplit(folder, split, category, images, annotations)
            content = {"images": images, "annotations": annotations, "categories": [category]}
            write_json(folder / f"{split}.json", content, indent=None)
    return written["train"]
