"""The numbers in the paper's Tables 1 to 6, by the arms' names, for hyper-parameters and for architectures.

The numbers are (gain in AP points, Rank%); Table 5 has the NDCG of the warm-up's validation in place of the gain.
"""

from __future__ import annotations

from typing import NamedTuple

from nni_hyperfd.benchmark.reproduce.arms import FULL

SPACES = ("hpo", "nas")


class Printed(NamedTuple):
    """What the paper prints of one arm in one space.

    Attributes:
        first: the gain in AP points, summed over the data sets, or the NDCG.
        rank_percent: Rank%, in %.
    """

    first: float
    rank_percent: float


def _printed(hpo_first: float, hpo_rank: float, nas_first: float, nas_rank: float) -> dict[str, Printed]:
    """The numbers of one row, by space."""
    return {"hpo": Printed(hpo_first, hpo_rank), "nas": Printed(nas_first, nas_rank)}


_FULL = _printed(1.67, 13.16, 2.39, 7.78)

TABLES: dict[str, dict[str, dict[str, Printed]]] = {
    "Table 1": {
        "Random search": _printed(0.00, 20.09, 0.00, 20.10),
        "Best on WIDER": _printed(1.33, 25.12, 2.04, 10.97),
        "Tr-AutoML": _printed(-0.18, 22.18, -0.52, 25.29),
        "HyperSTAR": _printed(-0.47, 22.00, -0.14, 21.09),
        "SCoT": _printed(-0.10, 20.83, -0.28, 21.30),
        "HyperFD (ResNet)": _printed(-0.23, 17.41, 1.54, 11.97),
        "HyperFD (Statistics)": _printed(0.08, 17.59, 1.58, 12.06),
        "HyperFD (MSE)": _printed(-0.05, 20.93, 0.21, 18.34),
        FULL: _FULL,
    },
    "Table 2": {
        "Latest data only": _printed(1.12, 15.99, 2.03, 9.55),
        "Freeze meta-extractor": _printed(1.22, 15.28, 2.19, 9.41),
        "Freeze whole ranker": _printed(1.32, 16.85, 2.26, 8.60),
        FULL: _FULL,
    },
    "Table 3": {
        "No transformation": _printed(1.28, 15.65, 2.16, 9.67),
        "Oracle": _printed(1.84, 13.79, 2.37, 7.73),
        FULL: _FULL,
    },
    "Table 4": {
        "ranking loss alone": _printed(0.50, 16.49, 1.60, 12.06),
        "ranking and triplet": _printed(1.38, 15.40, 2.33, 8.86),
        FULL: _FULL,
    },
    "Table 5": {
        "Anchor-level: w/o labels": _printed(0.930, 14.13, 0.895, 11.13),
        "Image-level: w/o GWAP": _printed(0.932, 14.22, 0.901, 10.41),
        "Image-level: w/o pyramid": _printed(0.927, 16.92, 0.898, 12.98),
        "Image-level: w/o statistics": _printed(0.922, 15.42, 0.899, 11.92),
        "Dataset-level: w/o attn.": _printed(0.919, 15.09, 0.886, 12.09),
        FULL: _printed(0.933, 13.16, 0.903, 7.78),
    },
    "Table 6": {
        "w/o warm-up": _printed(0.50, 16.28, 1.38, 12.62),
        "w/o augmentation": _printed(0.96, 17.55, 1.43, 15.23),
        FULL: _FULL,
    },
}
"""By table, arm and space."""
