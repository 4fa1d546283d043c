"""HyperFD as the paper has it, from the parts in `nni_hyperfd.ranker`, as far as a task's description allows.

Without image features a task's precomputed meta-feature vector stands in for them: one image whose anchors all have
this vector as their feature. There are no offline data sets here: no triplets, no transformation (it is the identity
then), and the warm-up is the first task. Everything else is the paper's: both networks learn after each task by
equation 11, past meta-features stay as they were made, and half the budget is explored.
"""

from __future__ import annotations

import numpy as np
import torch

from nni_hyperfd.ranker.config_encoder import MLPEncoder
from nni_hyperfd.ranker.learning import ClientTask, TaskExperience, update_encoder, update_extractor
from nni_hyperfd.ranker.meta_feature import GROUPS, STAGES, MetaFeatureExtractor
from nni_hyperfd.ranker.ranker import score
from nni_hyperfd.ranker.selection import explore_exploit
from nni_hyperfd.ranker.settings import RankerSettings
from nni_hyperfd.recommenders.base import Candidates, ScoringRecommender, Task


class PaperHyperFD(ScoringRecommender):
    """settings: the paper's constants by default. Search spaces and descriptions of another size start anew."""

    def __init__(self, seed: int = 0, settings: RankerSettings = RankerSettings()) -> None:  # noqa: B008, frozen
        super().__init__(seed)
        self.settings = settings
        self.encoder: MLPEncoder | None = None
        self.extractor: MetaFeatureExtractor | None = None

    def start_task(self, task: Task, candidates: Candidates) -> None:
        super().start_task(task, candidates)
        self._inputs = torch.from_numpy(np.ascontiguousarray(candidates.vectors, dtype=np.float32))
        self._images, self._counts = self.described(task)
        if self.encoder is None or self.encoder.in_dim != self._inputs.shape[1]:
            self.encoder = MLPEncoder.initial(self._inputs.shape[1], self._seed(), self.settings.hidden)
            self.past: list[TaskExperience] = []
        if self.extractor is None or self.extractor.feature_dim != self._images.shape[-1]:
            self.extractor = self.new_extractor(self._images.shape[-1], self._seed())
            self.importance = None
        self._planned: list[int] | None = None

    def described(self, task: Task) -> tuple[torch.Tensor, torch.Tensor]:
        """What the extractor is given of a task: image features (N, ..., D), here (N, 3, 3, D), and counts (2,).

        Unknown entries of a meta-feature vector are 0.
        """
        if task.images is not None:
            counts = np.zeros(2) if task.counts is None else task.counts
            return torch.from_numpy(task.images).float(), torch.from_numpy(counts).float()
        vector = np.zeros(1) if task.meta_feature is None or not len(task.meta_feature) else task.meta_feature
        finite = torch.from_numpy(np.nan_to_num(vector, nan=0.0, posinf=0.0, neginf=0.0)).float()
        return finite.expand(1, STAGES, GROUPS, len(finite)), torch.zeros(2)

    def new_extractor(self, feature_dim: int, seed: int) -> MetaFeatureExtractor:
        """f_d for features of D = feature_dim numbers; its weights follow from `seed` alone."""
        return MetaFeatureExtractor.initial(feature_dim, seed, self.settings.hidden)

    def scores(self) -> np.ndarray:
        with torch.no_grad():
            meta_feature = self.extractor(self._images, self._counts)
            return score(self.encoder(self._inputs), meta_feature).double().numpy()

    def ask(self, n: int = 1) -> list[int]:
        # The paper picks the whole budget before the first result.
        if self._planned is None:
            scores = torch.from_numpy(self.scores())
            self._planned = explore_exploit(scores, self.task.budget, self.settings.exploration, self._seed())
        picks = self._planned[len(self.asked) : len(self.asked) + max(n, 0)]
        self.asked += picks
        return picks

    def learn(self, indices: np.ndarray, performance: np.ndarray) -> None:
        inputs, results = self._inputs[indices], torch.from_numpy(performance).float()
        with torch.no_grad():
            embeddings = self.encoder(inputs)
        task = ClientTask(self._images, self._counts, embeddings, results)
        update = update_extractor(self.extractor, self.importance, task, self.settings, self._seed())
        self.extractor, self.importance = update.extractor, update.importance
        current = TaskExperience(inputs, results, update.meta_feature)
        self.encoder = update_encoder(self.encoder, current, self.past, [], self.settings, self._seed())
        self.past.append(current)

    def _seed(self) -> int:
        return int(self.rng.integers(2**31))


class MSEHyperFD(PaperHyperFD):
    """The paper's "HyperFD (MSE)": the squared error of standardised performances in place of the ranking loss."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed, RankerSettings(loss="mse"))
