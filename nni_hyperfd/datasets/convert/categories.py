"""Which of a source's categories are faces."""

from __future__ import annotations

from collections.abc import Collection

from nni_hyperfd.datasets.convert.record import ConvertError


def faces_among(names: Collection[str], wanted: Collection[str], where: str) -> set[str]:
    """Choose the categories that count as faces.

    Args:
        names: all categories of the source.
        wanted: those that the user names; if none, `face` (in any case) is taken, else the only category there is.
        where: what error messages begin with.

    Raises:
        ConvertError: the source has no such category, or it is unclear which ones are faces.
    """
    chosen = set(wanted) or {name for name in names if name.lower() == "face"} or set(names)
    unknown = chosen - set(names)
    listed = ", ".join(sorted(names)) or "none"
    if unknown:
        raise ConvertError(f"{where}: has no category {', '.join(sorted(unknown))}; its categories are: {listed}.")
    if not wanted and len(chosen) > 1 and not any(name.lower() == "face" for name in chosen):
        raise ConvertError(f"{where}: none of its categories is 'face'; name those to take with --category: {listed}.")
    return chosen
