"""What ends the making of subsets."""

from __future__ import annotations


class SubsetsError(ValueError):
    """Subsets cannot be made; the message names what is wrong, where, and what to do."""
