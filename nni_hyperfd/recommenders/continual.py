"""What the paper's continual learning is compared with (its Tables 2 and 3): the same recipe without a part of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import Tensor

from nni_hyperfd.method.learning import TaskExperience, WarmUp
from nni_hyperfd.recommenders.paper import PaperHyperFD


class LatestDataOnly(PaperHyperFD):
    """The encoder learns from the current task alone. Triplets need no results, so they stay."""

    def rehearsed(self) -> tuple[list[TaskExperience], list[TaskExperience]]:
        return [], []


class FrozenExtractor(PaperHyperFD):
    """After the warm-up only the encoder learns."""

    def learn_extractor(self, inputs: Tensor, performance: Tensor) -> None:
        pass


class FrozenRanker(FrozenExtractor):
    """After the warm-up nothing learns."""

    def learn_encoder(self, current: TaskExperience) -> None:
        pass


class NoTransformation(PaperHyperFD):
    """Past meta-features are used as they were made, whatever has become of the extractor."""

    def carried(self) -> list[TaskExperience]:
        return self.past


class Oracle(PaperHyperFD):
    """All past tasks are described again by the newest extractor, for which their images are kept: what the
    transformation stands in for where data sets stay with their owners."""

    def _begin(self, warmed: WarmUp | None) -> None:
        super()._begin(warmed)
        self._kept: list[tuple[Tensor, Tensor]] = []

    def learn(self, indices: np.ndarray, performance: np.ndarray) -> None:
        super().learn(indices, performance)
        self._kept.append((self._images, self._counts))

    def carried(self) -> list[TaskExperience]:
        return [
            replace(past, meta_feature=self._meta_feature(images, counts))
            for past, (images, counts) in zip(self.past, self._kept, strict=True)
        ]
