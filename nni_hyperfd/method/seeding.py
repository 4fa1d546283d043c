"""Seeded initial weights that leave the caller's random state alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's CPU random numbers within the block; afterwards the previous random state is restored."""
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: that would also seed the GPUs, which fork_rng(devices=[]) does not restore.
        torch.default_generator.manual_seed(seed)
        yield
