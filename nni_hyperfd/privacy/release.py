"""The door through which a description leaves: the only place that puts mechanism, ledger and settings together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import platformdirs
from numpy.typing import NDArray

from nni_hyperfd.privacy import mechanism
from nni_hyperfd.privacy import projection as projections
from nni_hyperfd.privacy.ledger import BudgetError, Entry, Ledger, new_entry
from nni_hyperfd.privacy.projection import Projection
from nni_hyperfd.privacy.settings import VARIABLE, PrivacyError, PrivacySettings, Unit

FOLDER = ".hyperfd"
"""Of the ledger, in the data set's folder."""


class Withheld(str, Enum):
    """Why a data set is not described; the platform is told no more than this word."""

    FEW = "few"
    """It has fewer units than the owner's minimum, or so many that delta is no guarantee."""
    SPENT = "spent"
    """The owner's total is spent."""
    UNKNOWN = "unknown"
    """There is no projection for the extractor, so the noise cannot be scaled to its vectors."""

    def explained(self, settings: PrivacySettings) -> str:
        """A sentence for the owner."""
        return {
            Withheld.FEW: f"it has fewer {settings.unit.value}s than {settings.minimum}, or more than 1 / delta",
            Withheld.SPENT: f"the total of epsilon={settings.total:g} for this data set is spent",
            Withheld.UNKNOWN: "there is no projection for the platform's extractor; its operator has one, to be named "
            "by projection=FILE in HYPERFD_PRIVACY",
        }[self]


@dataclass(frozen=True)
class Description:
    """What may leave about a data set.

    Attributes:
        meta_feature: (h,), noised.
        size: the bucket of the number of units.
        extractor: sha256 of the weights that made it; with an earlier version the platform carries it over.
    """

    meta_feature: tuple[float, ...]
    size: int
    extractor: str


@dataclass(frozen=True)
class DataSet:
    """What the door has to know of a data set.

    Attributes:
        folder: where it lies; None where the settings name ledger and data set.
        fingerprint: of exactly those images, annotations and detector weights.
    """

    folder: Path | None
    fingerprint: str


@dataclass(frozen=True)
class Extractor:
    """What the door has to know of the platform's extractor.

    Attributes:
        weights: sha256 of its weights; None for an untrained one.
        versions: sha256 of all versions whose descriptions the platform can carry over to it (eq. 4, docs/method.md).
    """

    weights: str | None
    versions: Collection[str] = ()

    @property
    def usable(self) -> set[str]:
        """All versions whose descriptions are as good as its own."""
        return {*self.versions, *([self.weights] if self.weights else [])}


class Door:
    """Describes one data set under the owner's settings.

    Args:
        data: the data set.
        extractor: the platform's.
        settings: the owner's, which are not off.

    Raises:
        PrivacyError: from any method, if the ledger is damaged or cannot be used.
    """

    def __init__(self, data: DataSet, extractor: Extractor, settings: PrivacySettings) -> None:
        self.data, self.extractor, self.settings = data, extractor, settings
        self.ledger = ledger_of(data, settings)

    def again(self) -> Description | None:
        """The description that the unchanged data set has already; it costs nothing to send it again."""
        entry = self.ledger.again(self.data.fingerprint, self.extractor.usable, self._terms)
        return None if entry is None else _left(entry)

    def describe(
        self, vectors: Callable[[], NDArray[np.floating]], units: Sequence[Hashable], width: int
    ) -> Description | Withheld:
        """Describe the data set and count it in the ledger.

        Args:
            vectors: makes the image vectors (n, h), each from its image alone; not called when nothing may leave.
            units: the unit of each image, as `units_of` makes them: nothing that the platform has sent may decide.
            width: D of the image features.

        Returns:
            The description, or why there is none.

        Raises:
            ProjectionError: a projection cannot be read.
        """
        settings, count = self.settings, len(set(units))
        if count < settings.minimum or settings.delta >= 1 / count:
            return Withheld.FEW
        projection = projection_for(self.extractor, width, settings)
        if projection is None or self.extractor.weights is None:
            return Withheld.UNKNOWN
        multiplier = mechanism.noise_multiplier(settings.epsilon, settings.delta)
        size = mechanism.bucket(count)
        means = mechanism.unit_means(projection.bounded(vectors()), units)
        scale = multiplier * mechanism.sensitivity(projection.radius, size)
        released = projection.lifted(mechanism.noised(mechanism.mean(means), scale))
        made = new_entry(
            self.data.fingerprint, self.extractor.weights, self._terms, size, multiplier, released.tolist()
        )
        try:
            return _left(self.ledger.release(made, self.extractor.usable, (settings.total, settings.delta)))
        except BudgetError:
            return Withheld.SPENT

    @property
    def _terms(self) -> str:
        """What the owner asks for; another description is made where it differs."""
        return json.dumps([self.settings.epsilon, self.settings.delta, self.settings.unit.value])


def projection_for(extractor: Extractor, width: int, settings: PrivacySettings) -> Projection | None:
    """The owner's projection or one of the package's, made for a version of the extractor and features of this width.

    Returns:
        The projection; None if there is none that fits.

    Raises:
        ProjectionError: one of them cannot be read.
    """
    paths = sorted(projections.SHIPPED.glob(f"*{projections.SUFFIX}"))
    for path in paths if settings.projection is None else [settings.projection]:
        projection = projections.load(path)
        if projection.extractor in extractor.usable and projection.width == width:
            return projection
    return None


def ledger_of(data: DataSet, settings: PrivacySettings) -> Ledger:
    """The ledger of a data set: next to the data or where the owner wants it, and a copy in the user's folder.

    Raises:
        PrivacyError: nobody says where to keep it, or whose it is.
    """
    if data.folder is None and (settings.ledger is None or settings.name is None):
        raise PrivacyError(
            "the data set does not say in which folder it lies, where its privacy ledger is kept: give it the "
            f"attribute 'folder', or set ledger=FOLDER,name=NAME in {VARIABLE}"
        )
    name = settings.name or str(data.folder and data.folder.resolve())
    own = hashlib.sha256(name.encode()).hexdigest()[:16]
    if settings.ledger is not None:
        main = settings.ledger / own
    else:
        assert data.folder is not None
        main = data.folder / FOLDER
    return Ledger([main, Path(platformdirs.user_data_path("nni_hyperfd")) / "ledgers" / own])


def units_of(images: NDArray[np.floating], groups: Sequence[Hashable] | None, unit: Unit) -> list[Hashable]:
    """The unit of each image, from the owner's data alone.

    Args:
        images: (n, ...), image features as the owner's detector makes them. The same image twice is one unit.
        groups: the group of each image, None for one without; needed for `Unit.GROUP`. All images without a group are
            one unit, for they may be of the same person.
        unit: what is protected.

    Raises:
        PrivacyError: groups are to be protected, and the data set tells none.
    """
    if unit is Unit.IMAGE:
        return [image.tobytes() for image in images]
    if groups is None:
        raise PrivacyError(
            "unit=group needs the group of every image: give the images of the annotation file a key 'group'"
        )
    return list(groups)


def _left(entry: Entry) -> Description:
    return Description(entry.released, entry.size, entry.extractor)
