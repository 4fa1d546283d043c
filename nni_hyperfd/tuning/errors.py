"""What the commands of this room tell their user to put right."""

from __future__ import annotations


class TuningError(RuntimeError):
    """A data set cannot be tuned, now or here; the message says what to do. Nothing half-made is left."""
