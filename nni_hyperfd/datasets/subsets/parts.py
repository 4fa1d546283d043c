"""Finished pieces of a run on disk: whole arrays or none."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray


def array(path: Path, rows: Callable[[], Iterable[NDArray]]) -> NDArray:
    """The array of a .npy file, mapped into memory; where it is not there, it is written from ``rows``, one or more.

    Rows are written as they come, so that they need not fit into memory.
    """
    if not path.exists():
        partial = path.with_suffix(".partial")
        # Not through a memory map: on a full disk that one ends the process instead of raising OSError.
        with partial.open("wb") as file:
            count = 0
            for count, row in enumerate(rows(), start=1):  # noqa: B007
                if count == 1:
                    _write_header(file, 0, row)
                file.write(np.ascontiguousarray(row).tobytes())
            file.seek(0)
            _write_header(file, count, row)
        partial.replace(path)
    return np.load(path, mmap_mode="r")


def _write_header(file: BinaryIO, count: int, row: NDArray) -> None:
    """numpy leaves room in it, so that its length does not depend on the number of rows."""
    header = {"descr": row.dtype.str, "fortran_order": False, "shape": (count, *row.shape)}
    np.lib.format.write_array_header_1_0(file, header)
