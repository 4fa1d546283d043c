"""Which of a source's categories are faces."""

from __future__ import annotations

from collections.abc import Collection

from nni_hyperfd.datasets.convert.record import ConvertError


def faces_among(names: Collection[str], wanted: Collection[str], where: str) -> set[str]:
    """The names that count as faces: those wanted; if none are, `face` in any case, or the only name there is."""
    chosen = set(wanted) or {name for name in names if name.lower() == "face"} or set(names)
    unknown = chosen - set(names)
    listed = ", ".join(sorted(names)) or "none"
    if unknown:
        raise ConvertError(f"{where}: has no category {', '.join(sorted(unknown))}; its categories are: {listed}.")
    if not wanted and len(chosen) > 1 and not any(name.lower() == "face" for name in chosen):
        raise ConvertError(f"{where}: none of its categories is 'face'; name those to take with --category: {listed}.")
    return chosen
