"""A recommendation for a data set before anything is paid for: it is described here, and nothing is kept or sent."""

from __future__ import annotations

import shlex
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from nni_hyperfd.datasets import coco
from nni_hyperfd.detector import trial_code
from nni_hyperfd.experiment.class_args import WARM_STATE
from nni_hyperfd.platform import Platform, Ranking, TaskView
from nni_hyperfd.tuning.errors import TuningError
from nni_hyperfd.tuning.plan import Start

_IMAGES = 300  # that are described, as in an extract trial
_SIZES = ((0.03, "tiny"), (0.08, "small"), (0.25, "middling"), (1.0, "large"))
"""Largest side of a face, as a share of the image's shorter side, and the word for it."""
_COUNTS = ((1.15, "one"), (3.0, "few"), (8.0, "several"), (float("inf"), "many"))
_SURE = (
    (0.35, "quite sure"),
    (0.6, "fairly sure"),
    (0.85, "fairly unsure"),
    (float("inf"), "hardly more than a guess"),
)


@dataclass(frozen=True)
class Description:
    """A data set as the state's extractor describes it.

    Attributes:
        meta_feature: 64 numbers, without noise, for they stay here.
        words: its faces, in words.
    """

    meta_feature: tuple[float, ...]
    words: str


@contextmanager
def state_or_warm_up(state: Path) -> Iterator[Platform]:
    """Open a state, or, where there is none yet, what it will begin with; nothing is made at its place.

    Yields:
        Its platform.
    """
    if state.exists():
        yield Platform(state)
        return
    with TemporaryDirectory() as folder:
        platform = Platform(Path(folder) / "state.sqlite", WARM_STATE)
        try:
            yield platform
        finally:
            platform.store.close()


def describe(platform: Platform, data: coco.CocoSplit, start: Start, options: str = "") -> Description:
    """Describe a data set by the newest extractor of a state.

    Args:
        platform: of the state.
        data: the training split.
        start: the detector whose features are described.
        options: more options of `trial_code/describe.py`, as on a command line.

    Raises:
        TuningError: the detector cannot describe it, or is not of the kind that the state knows.
    """
    import torch

    from nni_hyperfd.method import weights
    from nni_hyperfd.method.features import unpack
    from nni_hyperfd.method.meta_feature import MetaFeatureExtractor
    from nni_hyperfd.method.recipe import INITIAL_SEED
    from nni_hyperfd.privacy import release
    from nni_hyperfd.privacy.settings import PrivacySettings

    features, _ = unpack(weights.loads(_features(data.folder, start, options)))
    known, _ = platform.versions.tensors(platform.versions.head_id())
    digest = weights.sha256(weights.dumps(known)) if known else None
    if known:
        extractor = MetaFeatureExtractor.from_weights(known)
    else:
        extractor = MetaFeatureExtractor.initial(features.shape[-1], INITIAL_SEED)
    if extractor.feature_dim != features.shape[-1]:
        raise TuningError(
            f"the state was learned with another detector ({extractor.feature_dim - 4} channels, {start.config.name} "
            f"has {features.shape[-1] - 4}); name one of its architecture with --start and --config, or another state"
        )
    door = release.Extractor(digest, platform.versions.digests())
    projection = release.projection_for(door, extractor.feature_dim, PrivacySettings(off=True))
    with torch.no_grad():
        if projection is None:
            vector = extractor(features).tolist()
        else:  # as the descriptions are that the state has
            vector = projection.described(extractor.image_vectors(features).numpy()).tolist()
    return Description(tuple(vector), faces_in_words(data))


def _features(folder: Path, start: Start, options: str) -> bytes:
    """The image features of a data set, by the trials' own script, as safetensors."""
    with TemporaryDirectory() as place:
        links = Path(place) / "data"
        links.mkdir()
        (links / "described").symlink_to(folder.resolve(), target_is_directory=True)
        command = [sys.executable, "describe.py", "--whole", "--images", str(_IMAGES), "--data", str(links)]
        command += ["--out", place, "--weights", str(start.weights), "--config", str(start.config)]
        ended = subprocess.run(
            [*command, *shlex.split(options)], cwd=trial_code(), capture_output=True, text=True, check=False
        )
        if ended.returncode:
            last = (ended.stderr.strip().splitlines() or [f"exit status {ended.returncode}"])[-1]
            raise TuningError(f"{folder}: it cannot be described: {last}; `hyperfd doctor` looks for the cause")
        return (Path(place) / "described.safetensors").read_bytes()


def faces_in_words(split: coco.CocoSplit) -> str:
    """Say how large the faces of a split are, and how many an image has: "small faces, many per image"."""
    shorter = {image["id"]: min(image["width"], image["height"]) for image in split.images}
    used = [annotation for annotation in split.annotations if coco.is_usable(annotation)]
    shares = [(face["bbox"][2] * face["bbox"][3]) ** 0.5 / shorter[face["image_id"]] for face in used]
    size = next(word for limit, word in _SIZES if min(statistics.median(shares), 1.0) <= limit)
    return f"{size} faces, {per_image(split.num_images, split.num_boxes)}"


def per_image(images: int, boxes: int) -> str:
    """Say how many faces an image has: "many per image"."""
    return f"{next(word for limit, word in _COUNTS if boxes / images <= limit)} per image"


def task_in_words(task: TaskView) -> str:
    """Say what is known of a past task's data set."""
    name = f"task {task.id}" if task.dataset is None else f"the warm-up's {task.dataset}"
    parts = []
    if task.num_images:
        parts.append(f"about {task.num_images} images" if task.num_boxes is None else f"{task.num_images} images")
        if task.num_boxes is not None:
            parts.append(per_image(task.num_images, task.num_boxes))
    results = [task.settings.sign * value for value in task.results.performance]
    if results:
        parts.append(f"AP@50 {min(results):.2f} to {max(results):.2f}")
    return f"{name} ({', '.join(parts)})" if parts else name


def spread(ranking: Ranking, tasks: Sequence[TaskView]) -> float | None:
    """Estimate by how much AP configurations differ on the ranked data set: a normal score of 1.

    It is the standard deviation of the results of past tasks, those that the ranking leans on weighing more.

    Returns:
        In AP; None where no past task has two results.
    """
    weights = {near.task_id: max(near.weight or 0.0, 0.0) for near in ranking.neighbours}
    pairs = [
        (weights.get(task.id, 0.0) if any(weights.values()) else 1.0, statistics.stdev(task.results.performance))
        for task in tasks
        if len(task.results.performance) > 1
    ]
    total = sum(weight for weight, _ in pairs)
    return sum(weight * deviation for weight, deviation in pairs) / total if total else None


def how_sure(deviation: float) -> str:
    """Say in words how sure an expectation is.

    Args:
        deviation: its standard deviation in normal scores; 1 is knowing nothing, 0 is knowing it.
    """
    return next(word for limit, word in _SURE if deviation < limit)
