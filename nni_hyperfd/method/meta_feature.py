"""From anchor features to the 64 numbers that stand for a data set (section 3.2.1 of the paper)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from nni_hyperfd.method.seeding import seeded
from nni_hyperfd.method.weights import WeightsError, check_like

STAGES = 3
GROUPS = 3
HEADS = 4
BOX = 4
PARTS = ("labels", "gwap", "pyramid", "statistics", "attention")
"""What `MetaFeatureExtractor` can do without, for the ablations (Table 5 of the paper)."""


def gwap(groups: Tensor) -> Tensor:
    """Global weighted average pooling (eq. 2): every anchor group counts the same, however many anchors it has.

    groups: (..., 3, D), the mean feature of the positive, negative and ignored anchors; a group without anchors is
    NaN throughout and is left out. Returns (..., D); zeros where all three are empty.
    """
    present = ~groups.isnan().all(dim=-1, keepdim=True)
    # A group that is NaN only in part is broken, not empty: its NaN must reach the result and be noticed there.
    total = torch.where(present, groups, 0).sum(dim=-2)
    return total / present.sum(dim=-2).clamp(min=1)


class MetaFeatureExtractor(nn.Module):
    """f_d of the paper: image vectors from GWAP and the data set's counts, mixed by self-attention, averaged.

    feature_dim: D, the length of one anchor group's feature. hidden: length of the meta-feature, a multiple of 4.
    without: which of `PARTS` are left out: "labels", the matched boxes (the last 4 of D); "gwap", the balance between
    anchor groups: only the negative one counts, which nearly all anchors belong to, as in a plain mean over anchors;
    "pyramid", all stages but the last; "statistics", the two counts; "attention", the transformer layer. The weights
    keep their shapes, what is left out is a constant. Raises ValueError for a name that is none of `PARTS`.
    """

    def __init__(self, feature_dim: int, hidden: int = 64, without: Collection[str] = ()) -> None:
        super().__init__()
        if unknown := set(without) - set(PARTS):
            raise ValueError(f"The extractor has no part {sorted(unknown)[0]!r}; its parts are {', '.join(PARTS)}.")
        self.feature_dim = feature_dim
        self.without = frozenset(without)
        # Detector channels have no fixed scale, log counts lie around 10: normalising each image's visual part alone
        # brings both to a comparable size without running statistics, which would tie the weights to one data set.
        self.visual_norm = nn.LayerNorm(STAGES * feature_dim)
        self.image = nn.Linear(STAGES * feature_dim + 2, hidden)
        # Dropout 0: the meta-feature is stored for ever, so it must not depend on chance.
        self.dataset = nn.TransformerEncoderLayer(
            hidden, HEADS, dim_feedforward=2 * hidden, dropout=0.0, batch_first=True
        )

    @classmethod
    def initial(
        cls, feature_dim: int, seed: int, hidden: int = 64, without: Collection[str] = ()
    ) -> MetaFeatureExtractor:
        """Untrained weights that follow from `seed` alone; the global random state is left as it was."""
        with seeded(seed):
            return cls(feature_dim, hidden, without)

    @classmethod
    def from_weights(cls, weights: Mapping[str, Tensor]) -> MetaFeatureExtractor:
        """The extractor with these weights (its `state_dict`), its width read off them.

        Raises WeightsError when they are not those of an extractor.
        """
        norm, bias = weights.get("visual_norm.weight"), weights.get("image.bias")
        lengths = [t.numel() if t is not None and t.ndim == 1 else 0 for t in (norm, bias)]
        if not all(lengths) or lengths[0] % STAGES or lengths[1] % HEADS:
            raise WeightsError("These are not the weights of a meta-feature extractor.")
        with torch.device("meta"):  # takes no memory, whatever width is claimed
            extractor = cls(lengths[0] // STAGES, hidden=lengths[1])
        check_like(weights, extractor.state_dict(), "the meta-feature extractor")
        extractor.load_state_dict(dict(weights), assign=True)
        return extractor

    def forward(self, features: Tensor, counts: Tensor) -> Tensor:
        """The meta-feature of each data set (or image batch of it).

        features: (..., N, 3, 3, D), image, stage, anchor group, feature; NaN for an empty group. N >= 1.
        counts: (..., 2), number of images and of boxes of the whole training split, raw.
        Returns (..., hidden); the order of the images does not matter. Raises ValueError for other shapes.
        """
        expected = (STAGES, GROUPS, self.feature_dim)
        if features.ndim < 4 or tuple(features.shape[-3:]) != expected or features.shape[-4] == 0:
            raise ValueError(
                f"The extractor expects image features of shape (..., images >= 1, {STAGES}, {GROUPS}, "
                f"{self.feature_dim}), got {tuple(features.shape)}: extract them with the detector it was made for."
            )
        if tuple(counts.shape) != (*features.shape[:-4], 2):
            raise ValueError(
                f"The extractor expects two counts (images, boxes) per data set, shape {(*features.shape[:-4], 2)}, "
                f"got {tuple(counts.shape)}."
            )
        visual = self.visual_norm(self._pooled(features).flatten(start_dim=-2))
        statistics = counts.log1p().unsqueeze(-2).expand(*visual.shape[:-1], 2)
        if "statistics" in self.without:
            statistics = torch.zeros_like(statistics)
        images = self.image(torch.cat([visual, statistics], dim=-1))
        if "attention" in self.without:
            return images.mean(dim=-2)
        mixed = self.dataset(images.reshape(-1, *images.shape[-2:]))
        return mixed.mean(dim=-2).reshape(*images.shape[:-2], -1)

    def _pooled(self, features: Tensor) -> Tensor:
        """(..., N, 3, 3, D) -> (..., N, 3, D), without the parts that are left out."""
        if "labels" in self.without:
            kept = torch.arange(self.feature_dim, device=features.device) < self.feature_dim - BOX
            # Where, not a product: an empty group must stay NaN in all its entries.
            features = torch.where(kept | features.isnan(), features, 0.0)
        if "gwap" in self.without:
            features = features[..., 1:2, :]
        pooled = gwap(features)
        if "pyramid" in self.without:
            last = torch.arange(STAGES, device=features.device).unsqueeze(-1) == STAGES - 1
            pooled = torch.where(last, pooled, 0.0)
        return pooled
