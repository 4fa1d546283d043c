"""Who takes part: the recommenders of the paper's Table 1 and the variants of its ablations, by the labels it uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nni_hyperfd.benchmark.server import taught
from nni_hyperfd.benchmark.tables import Table
from nni_hyperfd.method.learning import WarmUp
from nni_hyperfd.method.settings import RankerSettings
from nni_hyperfd.recommenders import make
from nni_hyperfd.recommenders.base import Recommender
from nni_hyperfd.recommenders.continual import (
    FrozenExtractor,
    FrozenRanker,
    LatestDataOnly,
    NoTransformation,
    Oracle,
)
from nni_hyperfd.recommenders.described import ResNetHyperFD, StatisticsHyperFD
from nni_hyperfd.recommenders.paper import MeasuredDataset, PaperHyperFD

FULL = "HyperFD"
"""The paper's recipe with all its parts."""
DEFAULT = "default preset"
"""What the platform does unless it is told otherwise."""
WHOLE = 2
"""The first of the server's own data sets are whole ones, the others are sub-data-sets of these (its augmentation)."""


@dataclass(frozen=True)
class Simple:
    """A recommender by its name in `nni_hyperfd.recommenders`, which had the server's own data sets as tasks."""

    name: str

    def recommender(self, seed: int, own: Sequence[MeasuredDataset], warmed: WarmUp | None) -> Recommender:
        return taught(make(self.name, seed), own)


@dataclass(frozen=True)
class Variant:
    """The paper's recipe: its kind, constants, the parts that its extractor goes without, how it is warmed up."""

    kind: type[PaperHyperFD] = PaperHyperFD
    settings: RankerSettings = field(default_factory=RankerSettings)
    without: tuple[str, ...] = ()
    warm: bool = True
    augmented: bool = True

    def recommender(self, seed: int, own: Sequence[MeasuredDataset], warmed: WarmUp | None) -> PaperHyperFD:
        return self.kind(seed, self.settings, self.offline(own), warmed, self.without)

    def offline(self, own: Sequence[MeasuredDataset]) -> Sequence[MeasuredDataset]:
        return own if self.augmented else own[:WHOLE]

    def warms_up_like(self, other: Variant) -> bool:
        """Whether both start from the same networks."""
        return self._start == other._start

    @property
    def _start(self) -> tuple:
        described = self.kind if self.kind in (ResNetHyperFD, StatisticsHyperFD) else PaperHyperFD
        settings = self.settings
        return described, settings.loss, settings.triplet_weight, self.without, self.warm, self.augmented


Arm = Simple | Variant

ARMS: dict[str, Arm] = {
    "Random search": Simple("random"),
    "Best on WIDER": Simple("best_on_source"),
    "Tr-AutoML": Simple("tr_automl"),
    "HyperSTAR": Simple("hyperstar"),
    "SCoT": Simple("scot"),
    "HyperFD (ResNet)": Variant(ResNetHyperFD),
    "HyperFD (Statistics)": Variant(StatisticsHyperFD),
    "HyperFD (MSE)": Variant(settings=RankerSettings(loss="mse")),
    FULL: Variant(),
    "mean rank": Simple("mean_rank"),
    "nearest tasks": Simple("knn"),
    DEFAULT: Simple("hyperfd"),
    "Latest data only": Variant(LatestDataOnly),
    "Freeze meta-extractor": Variant(FrozenExtractor),
    "Freeze whole ranker": Variant(FrozenRanker),
    "No transformation": Variant(NoTransformation),
    "Oracle": Variant(Oracle),
    "ranking loss alone": Variant(settings=RankerSettings(triplet_weight=0, si_weight=0)),
    "ranking and triplet": Variant(settings=RankerSettings(si_weight=0)),
    "Anchor-level: w/o labels": Variant(without=("labels",)),
    "Image-level: w/o GWAP": Variant(without=("gwap",)),
    "Image-level: w/o pyramid": Variant(without=("pyramid",)),
    "Image-level: w/o statistics": Variant(without=("statistics",)),
    "Dataset-level: w/o attn.": Variant(without=("attention",)),
    "w/o warm-up": Variant(warm=False),
    "w/o augmentation": Variant(augmented=False),
}

BASELINES = tuple(ARMS)[: tuple(ARMS).index(DEFAULT) + 1]
"""Of Table 1, with three of ours."""
OVER_BUDGETS = ("Random search", "Best on WIDER", "Tr-AutoML", "HyperSTAR", "SCoT", FULL, "mean rank", DEFAULT)
OVER_ORDERS = ("Random search", FULL, DEFAULT)


def unavailable(arm: Arm, table: Table) -> str:
    """Why a table cannot show this arm; empty where it can."""
    if isinstance(arm, Simple):
        return ""
    if (arm.without or arm.kind is ResNetHyperFD) and not table.images:
        return "the table has no image features"
    if not arm.augmented and len(table.server) <= WHOLE:
        return "the table has no sub-data-sets of the server's"
    return ""
