"""Finished intermediate results of a run on disk: complete arrays or none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from nni_hyperfd.files import atomic

Scalar = TypeVar("Scalar", bound=np.generic)


def array(path: Path, rows: Callable[[], Iterable[NDArray[Scalar]]]) -> NDArray[Scalar]:
    """Return the array of a .npy file, which is made first if it does not exist.

    Args:
        path: the file.
        rows: makes the array's rows, at least one, all of one shape and dtype. They are written one by one, so
            they need not fit into memory together.

    Returns:
        The array (number of rows, *shape of a row), mapped into memory, read-only.
    """
    if not path.exists():
        # Not through a memory map, which on a full disk ends the process instead of raising OSError.
        with atomic(path) as partial, partial.open("wb") as file:
            _write(file, iter(rows()))
    mapped: NDArray[Scalar] = np.load(path, mmap_mode="r")
    return mapped


def _write(file: BinaryIO, rows: Iterator[NDArray[Any]]) -> None:
    first = next(rows)
    count = 0
    _write_header(file, count, first)
    for row in chain([first], rows):
        file.write(np.ascontiguousarray(row).tobytes())
        count += 1
    file.seek(0)
    _write_header(file, count, first)


def _write_header(file: BinaryIO, count: int, row: NDArray[Any]) -> None:
    """Write the header, which NumPy pads so that its length does not depend on the number of rows."""
    header = {"descr": row.dtype.str, "fortran_order": False, "shape": (count, *row.shape)}
    np.lib.format.write_array_header_1_0(file, header)
