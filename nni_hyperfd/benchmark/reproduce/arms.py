"""What is compared: the recommenders of the paper's Table 1 and its ablations, by the paper's labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nni_hyperfd.benchmark.protocol import Protocol, taught
from nni_hyperfd.benchmark.tables import Table
from nni_hyperfd.method.learning import WarmUp
from nni_hyperfd.method.settings import RankerSettings
from nni_hyperfd.recommenders import make
from nni_hyperfd.recommenders.base import MeasuredDataset, Recommender
from nni_hyperfd.recommenders.continual import (
    FrozenExtractor,
    FrozenRanker,
    LatestDataOnly,
    NoTransformation,
    Oracle,
)
from nni_hyperfd.recommenders.described import ResNetHyperFD, StatisticsHyperFD
from nni_hyperfd.recommenders.paper import PaperHyperFD

FULL = "HyperFD"
"""The paper's recipe with all of its parts."""
DEFAULT = "default preset"
"""What the platform does by default."""
WHOLE = 2
"""Number of the server's own data sets that are whole; the others are sub-data-sets of these (the augmentation)."""


@dataclass(frozen=True)
class Simple:
    """A built-in recommender that is told of the server's own data sets.

    Attributes:
        name: its name in `nni_hyperfd.recommenders`.
    """

    name: str

    def recommender(self, seed: int, own: Sequence[MeasuredDataset], warmed: WarmUp | None) -> Recommender:
        """Make it; own: the server's own data sets; warmed: not used."""
        return taught(make(self.name, seed), own)


@dataclass(frozen=True)
class Variant:
    """The paper's recipe or a variant of it.

    Attributes:
        kind: class of the recommender.
        settings: constants of the method.
        without: parts that the extractor goes without.
        warm: whether it is warmed up on the server's own data sets.
        augmented: whether the server has sub-data-sets beside its whole data sets.
    """

    kind: type[PaperHyperFD] = PaperHyperFD
    settings: RankerSettings = field(default_factory=RankerSettings)
    without: tuple[str, ...] = ()
    warm: bool = True
    augmented: bool = True

    def recommender(self, seed: int, own: Sequence[MeasuredDataset], warmed: WarmUp | None) -> PaperHyperFD:
        """Make it.

        Args:
            seed: of the recommender.
            own: the server's own data sets.
            warmed: result of an earlier warm-up; None to warm up when the first task starts.
        """
        return self.kind(seed, self.settings, self.offline(own), warmed, self.without)

    def offline(self, own: Sequence[MeasuredDataset]) -> Sequence[MeasuredDataset]:
        """Those of the server's own data sets that it is warmed up on."""
        return own if self.augmented else own[:WHOLE]

    def warms_up_like(self, other: Variant) -> bool:
        """Whether both start from the same networks."""
        return self._start == other._start

    @property
    def _start(self) -> tuple[object, ...]:
        """Everything that the warm-up depends on, beside the seed."""
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
"""Arms of Table 1, and three that are not in the paper."""
OVER_BUDGETS = ("Random search", "Best on WIDER", "Tr-AutoML", "HyperSTAR", "SCoT", FULL, "mean rank", DEFAULT)
"""Arms of Figure 3."""
OVER_ORDERS = ("Random search", FULL, DEFAULT)
"""Arms of Figure 4."""


def unavailable(arm: Arm, table: Table, protocol: Protocol) -> str:
    """The reason why an arm cannot be run on a table with a protocol (`Protocol.on`); empty if it can."""
    if isinstance(arm, Simple):
        return ""
    if (arm.without or arm.kind is ResNetHyperFD) and not table.images:
        return "the table has no image features"
    if not protocol.offline and not (arm.warm and arm.augmented):
        return "nothing is warmed up without offline data sets"
    if not arm.augmented and not WHOLE < len(table.server) == protocol.offline:
        return "the server's sub-data-sets are not all known, or there are none"
    return ""
