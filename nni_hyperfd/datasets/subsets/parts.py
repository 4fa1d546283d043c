"""Finished pieces of a run on disk: whole arrays or none."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def array(path: Path, make: Callable[[], Iterable[NDArray]], count: int) -> NDArray:
    """The array of a .npy file, mapped into memory; where it is not there, it is written from ``count`` rows first.

    Rows are written as they come, so that they need not fit into memory.
    """
    if not path.exists():
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            # Not a memory map: on a full disk that one ends the process instead of raising OSError.
            for place, row in enumerate(make()):
                if not place:
                    header = {"descr": row.dtype.str, "fortran_order": False, "shape": (count, *row.shape)}
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(np.ascontiguousarray(row).tobytes())
        partial.replace(path)
    return np.load(path, mmap_mode="r")
