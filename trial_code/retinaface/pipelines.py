"""Reading and changing the configs of data loaders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmengine.config import Config

    from nni_hyperfd.datasets.coco import CocoSplit


def find_transform(dataloader: Config, kind: str) -> Config:
    """The only transform of this type in a data loader's pipeline.

    Raises:
        ValueError: the pipeline has none or several of this type.
    """
    found = find_transforms(dataloader, kind)
    if len(found) != 1:
        present = ", ".join(str(transform["type"]) for transform in dataloader.dataset.pipeline)
        raise ValueError(f"the config's pipeline ({present}) must have {kind} once, since its size is set there.")
    return found[0]


def find_transforms(dataloader: Config, kind: str) -> list[Config]:
    """All transforms of this type, including those inside others (RandomChoice, TestTimeAug)."""
    return [transform for transform in _all(dataloader.dataset.pipeline) if transform["type"] == kind]


def use_split(dataloader: Config, split: CocoSplit, folder: Path) -> None:
    """Make a data loader read a checked split.

    Args:
        dataloader: config of the data loader, changed in place.
        split: the annotations.
        folder: where the annotation file is written; it must exist as long as the data loader is used.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{split.split}.json"
    split.write(path)
    dataloader.dataset.update(ann_file=str(path.resolve()), data_root=None, checked=True)


def _all(pipeline: Iterable[Any]) -> Iterator[Config]:
    """The transforms of a pipeline, depth first."""
    for step in pipeline:
        if isinstance(step, list | tuple):
            yield from _all(step)
        else:
            yield step
            yield from _all(step.get("transforms", ()))
