"""HyperFD with a fixed description of a data set instead of the hierarchical extractor (Table 1 of the paper).

All else is the paper's (`recommenders.paper`): both networks learn by equation 11, and what is left of the extractor is
one linear layer that takes the description to the length of a configuration's embedding.
"""

from __future__ import annotations

import warnings
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from nni_hyperfd.method.seeding import seeded
from nni_hyperfd.recommenders.base import Task
from nni_hyperfd.recommenders.paper import PaperHyperFD


class LinearExtractor(nn.Module):
    """f_d of descriptions: a linear layer on their mean over the images.

    Args:
        feature_dim: length of a description.
        hidden: length of the meta-feature.
    """

    def __init__(self, feature_dim: int, hidden: int = 64) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.layer = nn.Linear(feature_dim, hidden)

    def forward(self, features: Tensor) -> Tensor:
        """The meta-features (..., hidden) of descriptions (..., N >= 1, feature_dim)."""
        return cast(Tensor, self.layer(features.mean(dim=-2)))


class _DescribedHyperFD(PaperHyperFD):
    def new_extractor(self, feature_dim: int, seed: int) -> LinearExtractor:
        with seeded(seed):
            return LinearExtractor(feature_dim, self.settings.hidden)


class ResNetHyperFD(_DescribedHyperFD):
    """The paper's "HyperFD (ResNet)": the mean of a frozen network's image features, scaled to mean 0 and variance 1.

    The network is whichever made `Task.images`; its features are averaged over the images alone, boxes and all. A task
    without images is described by its meta-feature, the place for features that were averaged before.
    """

    def described(self, task: Task) -> Tensor:
        """The mean features (1, m), scaled."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a group that no image has: its mean is NaN
            features = task.meta_feature if task.images is None else np.nanmean(task.images, axis=0)
        vector = _finite(features)
        return nn.functional.layer_norm(vector, vector.shape)[None].float()


class StatisticsHyperFD(_DescribedHyperFD):
    """The paper's "HyperFD (Statistics)": the numbers of images and boxes as logarithms.

    A task without these is described by its meta-feature, each entry x as sign(x) log(1 + |x|): tables have numbers
    of classes or of pixels there.
    """

    def described(self, task: Task) -> Tensor:
        """The logarithms (1, m)."""
        vector = _finite(task.meta_feature if task.counts is None else task.counts)
        return (vector.sign() * vector.abs().log1p())[None].float()


def _finite(description: np.ndarray | None) -> Tensor:
    """float64 (m >= 1,), unknown entries 0; one 0 where nothing is known."""
    if description is None or not description.size:
        return torch.zeros(1, dtype=torch.float64)
    return torch.from_numpy(np.nan_to_num(description.ravel(), nan=0.0, posinf=0.0, neginf=0.0)).double()
