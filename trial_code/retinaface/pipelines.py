"""Finding transforms in the configs of data loaders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmengine.config import Config


def find_transform(dataloader: Config, kind: str) -> Config:
    """The one transform of this type in a data loader's pipeline; ValueError if it is not there once."""
    found = find_transforms(dataloader, kind)
    if len(found) != 1:
        present = ", ".join(str(transform["type"]) for transform in dataloader.dataset.pipeline)
        raise ValueError(f"the config's pipeline ({present}) must have {kind} once, as the job sets it.")
    return found[0]


def find_transforms(dataloader: Config, kind: str) -> list[Config]:
    """All transforms of this type, those inside of others (RandomChoice, TestTimeAug) included."""
    return [transform for transform in _all(dataloader.dataset.pipeline) if transform["type"] == kind]


def _all(pipeline: Iterable) -> Iterator[Config]:
    for step in pipeline:
        if isinstance(step, list | tuple):
            yield from _all(step)
        else:
            yield step
            yield from _all(step.get("transforms", ()))
