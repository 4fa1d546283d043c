"""What the paper's continual learning is compared with (its Tables 2 and 3): the same recipe without a part of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from nni_hyperfd.method.learning import WarmUp
from nni_hyperfd.method.recipe import PastTask
from nni_hyperfd.recommenders.paper import PaperHyperFD, StoredTask
from nni_hyperfd.space import EncodedConfigurations


class LatestDataOnly(PaperHyperFD):
    """The encoder learns from the current task alone. Triplets need no results, so they stay."""

    def rehearsed(self, drawn: Sequence[StoredTask]) -> list[PastTask]:
        """Nothing."""
        return []


class FrozenExtractor(PaperHyperFD):
    """After the warm-up only the encoder learns."""

    def learn_extractor(
        self, images: Tensor, configurations: EncodedConfigurations | None, performance: Tensor
    ) -> None:
        """The extractor stays as it is."""


class FrozenRanker(FrozenExtractor):
    """After the warm-up nothing learns."""

    def learn_encoder(self, configurations: EncodedConfigurations, performance: Tensor) -> None:
        """The encoder stays as it is."""


class NoTransformation(PaperHyperFD):
    """Past meta-features are used as they were made, whatever has become of the extractor."""

    def carried(self, meta_feature: Tensor, source: int, target: int, number: int | None = None) -> Tensor:
        """The meta-feature as it was made."""
        return meta_feature


class Oracle(PaperHyperFD):
    """All past tasks are described again by the newest extractor, for which their images are kept.

    It is what the transformation stands in for where data sets stay with their owners.
    """

    def _begin(self, warmed: WarmUp | None, space: tuple[int, ...] = ()) -> None:
        super()._begin(warmed, space)
        self._seen = {number: own.features for number, own in enumerate(self.offline, start=1)}

    def end_task(self, revealed: Mapping[int, float]) -> None:
        """Update both networks, and keep the images."""
        if self.images is not None:
            self._seen[self._number] = self.images
        super().end_task(revealed)

    def carried(self, meta_feature: Tensor, source: int, target: int, number: int | None = None) -> Tensor:
        """The meta-feature (64,) of the images by the newest extractor."""
        return meta_feature if number is None else self._meta_feature(self._seen[number])
