"""A data set that exists only in name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class MadeUpDataset:
    """A data set in the sense of `nni_hyperfd.experiment.trial.Dataset`, with features drawn from its seed."""

    num_images, num_boxes = 20, 31

    def __init__(self, seed: int, feature_dim: int = 12) -> None:
        self.seed, self.feature_dim = seed, feature_dim

    def fingerprint(self) -> str:
        return f"made-up-{self.seed}-{self.feature_dim}"

    def evaluate(self) -> float:
        return 0.25

    def image_features(self, limit: int, seed: int) -> torch.Tensor:
        import torch  # not when tests are collected: most need none

        generator = torch.Generator().manual_seed(1000 * self.seed + seed)
        features = torch.randn(min(limit, self.num_images), 3, 3, self.feature_dim, generator=generator)
        features[::3, :, 0] = torch.nan  # images without a positive anchor
        return features
