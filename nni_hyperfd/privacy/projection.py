"""The public numbers that an image's vector is taken to before it is clipped: centre, directions, radius.

They are made by the warm-up from images of the server's own (`hyperfd warmup train` writes them beside the state) and
come to the data owner with the package or as a file of his choice, never with a job.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nni_hyperfd.files import write_json
from nni_hyperfd.privacy.mechanism import Vectors, clipped, mean

FORMAT = 1
DIRECTIONS = 8
"""Number of directions that are kept, at most: more directions add more noise than they tell (docs/privacy.md)."""
SUFFIX = ".projection.json"
"""Of the file that `hyperfd warmup train` writes beside a state, in place of the state's own suffix."""
SHIPPED = Path(__file__).resolve().parent.parent / "warmup" / "shipped"
"""Folder of those that belong to the package's own warm-ups, the present one and earlier ones."""

_SMALLEST = 1e-6  # share of the widest direction's deviation below which a direction is only rounding noise


class ProjectionError(ValueError):
    """A file is no projection, or a projection cannot be made."""


@dataclass(frozen=True, eq=False)
class Projection:
    """Where an image's vector is taken to.

    Attributes:
        extractor: sha256 of the weights of the extractor that it was made for; later versions of it are near that.
        width: length D of an anchor group's feature, by which detectors are told apart.
        center: float64 (h,), c_0.
        directions: float64 (k, h), P, whitening: over the server's images each coordinate has variance 1.
        radius: C, to which the projected vectors are clipped.

    Raises:
        ProjectionError: the parts do not fit together.
    """

    extractor: str
    width: int
    center: Vectors
    directions: Vectors
    radius: float

    def __post_init__(self) -> None:
        if self.directions.ndim != 2 or not self.directions.size or self.center.shape != self.directions.shape[1:]:
            raise ProjectionError(
                f"A projection needs directions (k, h) and a center (h), got {self.directions.shape} and "
                f"{self.center.shape}."
            )
        if not (np.isfinite(self.directions).all() and np.isfinite(self.center).all() and 0 < self.radius < np.inf):
            raise ProjectionError("A projection's numbers must be finite and its radius above 0.")

    def bounded(self, vectors: NDArray[np.floating]) -> Vectors:
        """Vectors of images (n, h) as (n, k) of length at most `radius`, whatever they hold (eq. P1)."""
        with np.errstate(all="ignore"):  # not finite: `clipped` takes care of them
            return clipped((np.asarray(vectors, dtype=np.float64) - self.center) @ self.directions.T, self.radius)

    def lifted(self, released: Vectors) -> Vectors:
        """A mean (k,), noised or not, as a meta-feature (h,): the shortest way back from the centre."""
        return self.center + np.linalg.pinv(self.directions) @ released

    def described(self, vectors: NDArray[np.floating]) -> Vectors:
        """The meta-feature (h,) of a data set without noise, from its images' vectors (n >= 1, h)."""
        return self.lifted(mean(self.bounded(vectors)))


def fit(vectors: Sequence[NDArray[np.floating]], extractor: str, width: int) -> Projection:
    """Make a projection from images of the server's own.

    The directions are those in which the images differ most, whitened, and the radius is their median length.

    Args:
        vectors: of each data set, the vectors (n, h) of its images.
        extractor: sha256 of the weights that made them.
        width: D of the features that they were made from.

    Raises:
        ProjectionError: all images have the same vector.
    """
    rows = np.vstack(vectors).astype(np.float64)
    center = rows.mean(axis=0)
    _, singular, directions = np.linalg.svd(rows - center, full_matrices=False)
    deviations = singular / np.sqrt(len(rows))
    kept = int((deviations[:DIRECTIONS] > _SMALLEST * max(deviations[0], _SMALLEST)).sum())
    if not kept:
        raise ProjectionError("A projection cannot be made from images that all have the same vector.")
    whitening = directions[:kept] / deviations[:kept, None]
    lengths = np.linalg.norm((rows - center) @ whitening.T, axis=1)
    return Projection(extractor, width, center, whitening, float(np.median(lengths)))


def save(projection: Projection, path: Path) -> None:
    """Write a projection as JSON."""
    document = {
        "format": FORMAT,
        "extractor": projection.extractor,
        "width": projection.width,
        "radius": projection.radius,
        "center": projection.center.tolist(),
        "directions": projection.directions.tolist(),
    }
    write_json(path, document, indent=None)


def load(path: Path) -> Projection:
    """Read what `save` wrote.

    Raises:
        ProjectionError: the file cannot be read or is no projection.
    """
    try:
        return _read(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProjectionError(
            f"{path}: it is no projection of 'hyperfd warmup train' ({type(error).__name__}: {error}); name another"
        ) from None


def _read(document: Any) -> Projection:
    if document["format"] != FORMAT:
        raise ValueError(f"format {document['format']!r}, this nni_hyperfd reads {FORMAT}")
    return Projection(
        extractor=str(document["extractor"]),
        width=int(document["width"]),
        center=np.array(document["center"], dtype=np.float64),
        directions=np.array(document["directions"], dtype=np.float64),
        radius=float(document["radius"]),
    )
