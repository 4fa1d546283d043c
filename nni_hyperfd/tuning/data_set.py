"""The user's data set as trials need it: checked, and converted and split where it is in another layout."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from nni_hyperfd.datasets import coco
from nni_hyperfd.datasets.convert import conversion
from nni_hyperfd.datasets.convert.recognise import layout_of
from nni_hyperfd.datasets.convert.record import ConvertError
from nni_hyperfd.datasets.validation import FewFacesWarning
from nni_hyperfd.files import FolderError
from nni_hyperfd.tuning.errors import TuningError

Say = Callable[[str], None]


@dataclass(frozen=True)
class DataSet:
    """A data set that trials can use.

    Attributes:
        folder: it has `train.json`, `val.json` and the images (absolute).
        train: its training split.
        val: its validation split.
        has_test: whether it has a test split.
    """

    folder: Path
    train: coco.CocoSplit
    val: coco.CocoSplit
    has_test: bool


def is_ready(folder: Path) -> bool:
    """Whether a folder is laid out as trials read it; nothing in it is checked."""
    return all((folder / f"{split}.json").is_file() for split in ("train", "val"))


def load(folder: Path, say: Say) -> DataSet:
    """Check a data set that is laid out as trials read it.

    Args:
        folder: the data set.
        say: called with the numbers of its images and faces, and with everything that was repaired.

    Raises:
        TuningError: it cannot be used.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            train, val = (coco.load(folder, split) for split in ("train", "val"))
        except coco.AnnotationError as error:
            raise TuningError(str(error).rstrip(".")) from None
    for split in (train, val):
        say(f"{split.split}: {split.num_images} images, {split.num_boxes} faces")
    for warning in caught:
        if issubclass(warning.category, (coco.AnnotationWarning, FewFacesWarning)):
            say(f"Caution: {warning.message}")
    return DataSet(folder.resolve(), train, val, (folder / "test.json").is_file())


def prepare(
    source: Path, out: Path, say: Say, layout: str | None = None, categories: Collection[str] = (), seed: int = 0
) -> DataSet:
    """Check a data set, and convert it where it is not laid out as trials read it.

    Args:
        source: the user's folder, in any layout that `hyperfd data convert` reads.
        out: the folder for a converted data set; one that was made or begun by the same call before is used.
        say: called with what is done.
        layout: its layout; recognised by default.
        categories: those that count as faces; found out by default.
        seed: of a split that is drawn.

    Raises:
        TuningError: it cannot be used.
    """
    if not source.exists():
        raise TuningError(f"{source}: there is no such folder; name the one that holds the data set")
    if layout is None and is_ready(source):
        return load(source, say)
    if not (out / conversion.REPORT).is_file():
        _convert(source, out, say, layout, categories, seed)
    if not is_ready(out):
        raise TuningError(
            f"{source}: its images are too few to draw a training and a validation split from, or it has only one of "
            f"them; bring 10 images or more, better 300 (what was read is in {out / conversion.REPORT})"
        )
    return load(out, say)


@contextmanager
def looked_at(source: Path, say: Say) -> Iterator[DataSet]:
    """Check a data set in any layout, without leaving anything: what must be converted lies in a temporary folder.

    Args:
        source: the user's folder.
        say: called with what is found.

    Raises:
        TuningError: it cannot be used.
    """
    with TemporaryDirectory() as place:
        yield prepare(source, Path(place) / "data", say)


def _convert(source: Path, out: Path, say: Say, layout: str | None, categories: Collection[str], seed: int) -> None:
    try:
        name = layout or layout_of(source)
        say(f"{source} is read as {name}, and converted")
        report = conversion.convert(name, source, out, categories=categories, seed=seed)
    except (ConvertError, FolderError) as error:
        raise TuningError(str(error).rstrip(".")) from None
    changes = ", ".join(f"{len(items)} x {kind}" for kind, items in report["changes"].items())
    say(f"Splits: {report['rule']}." + (f" Dropped or changed: {changes}." if changes else ""))
