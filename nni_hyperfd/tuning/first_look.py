"""What a recommendation says in words: what data sets are like, how much a configuration may gain, how sure that is."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from nni_hyperfd.datasets import coco
from nni_hyperfd.experiment.class_args import WARM_STATE
from nni_hyperfd.platform import Platform, Ranking, TaskView

_SIZES = ((0.03, "tiny"), (0.08, "small"), (0.25, "middling"), (1.0, "large"))
"""Largest side of a face, as a share of the image's shorter side, and the word for it."""
_COUNTS = ((1.15, "one"), (3.0, "few"), (8.0, "several"), (float("inf"), "many"))
_SURE = (
    (0.35, "quite sure"),
    (0.6, "fairly sure"),
    (0.85, "fairly unsure"),
    (float("inf"), "hardly more than a guess"),
)


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
