"""What stops making subsets."""

from __future__ import annotations


class SubsetsError(ValueError):
    """Something that subsets cannot be made from; the message names what, where and what to do."""
