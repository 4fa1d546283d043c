"""The meta-feature extractor f_d: from anchor features to the 64 numbers that describe a data set (paper, 3.2.1).

Every image is described alone; the data set's meta-feature is the mean over its images. So one image can change no
other image's vector, which is what `nni_hyperfd.privacy` builds on. The paper mixes the images of a data set by
self-attention and adds the data set's counts to every image; docs/method.md, eq. 2, says what stands in their place.
"""

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
REFERENCES = 16
"""Number of learned points that every image attends to."""
PARTS = ("labels", "gwap", "pyramid", "statistics", "attention")
"""Parts of `MetaFeatureExtractor` that can be left out, for the ablations (Table 5 of the paper)."""


def gwap(groups: Tensor) -> Tensor:
    """Pool anchor groups so that each counts the same, however many anchors it has (eq. 2, docs/method.md).

    Args:
        groups: float (..., 3, D), mean features of the positive, negative and ignored anchors. A group without anchors
            is NaN throughout and is left out.

    Returns:
        float (..., D); zeros where all three groups are empty.
    """
    present = ~groups.isnan().all(dim=-1, keepdim=True)
    # A group that is NaN only in part is broken, not empty: its NaN must reach the result and be noticed there.
    total = torch.where(present, groups, 0).sum(dim=-2)
    return total / present.sum(dim=-2).clamp(min=1)


class MetaFeatureExtractor(nn.Module):
    """f_d: an image's vector from GWAP, refined by attention to learned points, then averaged over the images.

    Args:
        feature_dim: D, length of one anchor group's feature.
        hidden: length of the meta-feature, a multiple of 4.
        without: the `PARTS` to leave out: "labels", the matched boxes (the last 4 of D); "gwap", the balance between
            anchor groups: only the negative one is used, which has nearly all anchors, as in a mean over all anchors;
            "pyramid", all stages but the last; "statistics", which anchor groups an image has at all; "attention",
            the transformer layer. The weights keep their shapes; constants take the place of the inputs that are left
            out.

    Raises:
        ValueError: `without` has a name that is not in `PARTS`.
    """

    def __init__(self, feature_dim: int, hidden: int = 64, without: Collection[str] = ()) -> None:
        super().__init__()
        if unknown := set(without) - set(PARTS):
            raise ValueError(f"The extractor has no part {sorted(unknown)[0]!r}; its parts are {', '.join(PARTS)}.")
        self.feature_dim, self.hidden = feature_dim, hidden
        self.without = frozenset(without)
        # Detector channels have no fixed scale. A layer norm of each image's visual part gives them one without running
        # statistics, which would tie the weights to one data set.
        self.visual_norm = nn.LayerNorm(STAGES * feature_dim)
        self.image = nn.Linear(STAGES * feature_dim + STAGES * GROUPS, hidden)
        self.references = nn.Parameter(torch.randn(REFERENCES, hidden))
        # A transformer encoder layer whose keys and values are the references instead of the other images. Dropout 0:
        # the meta-feature is computed once and stored, so it must not be random.
        self.attention = nn.MultiheadAttention(hidden, HEADS, dropout=0.0)
        self.attention_norm = nn.LayerNorm(hidden)
        self.feed_forward = nn.Sequential(nn.Linear(hidden, 2 * hidden), nn.ReLU(), nn.Linear(2 * hidden, hidden))
        self.output_norm = nn.LayerNorm(hidden)

    @classmethod
    def initial(
        cls, feature_dim: int, seed: int, hidden: int = 64, without: Collection[str] = ()
    ) -> MetaFeatureExtractor:
        """Make an extractor with untrained weights, determined by `seed`; the global random state is not changed."""
        with seeded(seed):
            return cls(feature_dim, hidden, without)

    @classmethod
    def from_weights(cls, weights: Mapping[str, Tensor]) -> MetaFeatureExtractor:
        """Make an extractor from its `state_dict`; `feature_dim` and `hidden` follow from the shapes.

        Args:
            weights: float32 tensors by name; they are used, not copied.

        Raises:
            WeightsError: these are not the weights of an extractor.
        """
        norm, bias = weights.get("visual_norm.weight"), weights.get("image.bias")
        lengths = [t.numel() if t is not None and t.ndim == 1 else 0 for t in (norm, bias)]
        if not all(lengths) or lengths[0] % STAGES or lengths[1] % HEADS:
            raise WeightsError("These are not the weights of a meta-feature extractor.")
        with torch.device("meta"):  # takes no memory, whatever width the shapes claim
            extractor = cls(lengths[0] // STAGES, hidden=lengths[1])
        check_like(weights, extractor.state_dict(), "the meta-feature extractor")
        extractor.load_state_dict(dict(weights), assign=True)
        return extractor

    def forward(self, features: Tensor) -> Tensor:
        """Compute the meta-feature of each data set, or of an image batch of it: the mean of `image_vectors`.

        Args:
            features: float32 (..., N, 3, 3, D), image, stage, anchor group, feature; NaN for an empty group; N >= 1.

        Returns:
            float32 (..., hidden); it does not depend on the order of the images.

        Raises:
            ValueError: the shape does not fit the extractor.
        """
        return self.image_vectors(features).mean(dim=-2)

    def image_vectors(self, features: Tensor) -> Tensor:
        """Describe each image by itself.

        Args:
            features: float32 (..., N, 3, 3, D), as for `forward`.

        Returns:
            float32 (..., N, hidden); a row depends on the image of that row alone.

        Raises:
            ValueError: the shape does not fit the extractor.
        """
        expected = (STAGES, GROUPS, self.feature_dim)
        if features.ndim < 4 or tuple(features.shape[-3:]) != expected or features.shape[-4] == 0:
            raise ValueError(
                f"The extractor expects image features of shape (..., images >= 1, {STAGES}, {GROUPS}, "
                f"{self.feature_dim}), got {tuple(features.shape)}: extract them with the detector it was made for."
            )
        visual = self.visual_norm(self._pooled(features).flatten(start_dim=-2))
        present = (~features.isnan().all(dim=-1)).to(features.dtype).flatten(start_dim=-2)
        if "statistics" in self.without:
            present = torch.zeros_like(present)
        images: Tensor = self.image(torch.cat([visual, present], dim=-1))
        if "attention" in self.without:
            return images
        rows = images.reshape(-1, images.shape[-1])
        attended, _ = self.attention(rows, self.references, self.references, need_weights=False)
        rows = self.attention_norm(rows + attended)
        refined: Tensor = self.output_norm(rows + self.feed_forward(rows))
        return refined.reshape(images.shape)

    def _pooled(self, features: Tensor) -> Tensor:
        """(..., N, 3, 3, D) -> (..., N, 3, D), without the parts that are left out."""
        if "labels" in self.without:
            kept = torch.arange(self.feature_dim, device=features.device) < self.feature_dim - BOX
            # torch.where, not a product: an empty group must stay NaN in all its entries.
            features = torch.where(kept | features.isnan(), features, 0.0)
        if "gwap" in self.without:
            features = features[..., 1:2, :]
        pooled = gwap(features)
        if "pyramid" in self.without:
            last = torch.arange(STAGES, device=features.device).unsqueeze(-1) == STAGES - 1
            pooled = torch.where(last, pooled, 0.0)
        return pooled
