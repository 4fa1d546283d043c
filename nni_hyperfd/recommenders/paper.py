"""HyperFD as the paper has it, from the parts in `nni_hyperfd.method`, as far as a task's description allows.

Without image features a task's precomputed meta-feature vector stands in for them: one image whose anchors all have
this vector as their feature. Both networks are warmed up on the server's own data sets, then learn after each task by
equation 11; past meta-features stay as they were made and are carried into the newest extractor's space by equation 4;
half the budget is explored. Without data sets of the server's own the first task with something to rank is the warm-up,
and there are no triplets and no transformation (it is the identity then). Equation 9 counts the warm-up as a task.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from nni_hyperfd.method.config_encoder import MLPEncoder
from nni_hyperfd.method.learning import (
    ClientTask,
    OfflineTask,
    TaskExperience,
    WarmUp,
    update_encoder,
    update_extractor,
    warm_up,
)
from nni_hyperfd.method.meta_feature import GROUPS, STAGES, MetaFeatureExtractor
from nni_hyperfd.method.scoring import score
from nni_hyperfd.method.selection import explore_exploit
from nni_hyperfd.method.settings import RankerSettings
from nni_hyperfd.method.transform import fit_transform
from nni_hyperfd.recommenders.base import ScoringRecommender, Task
from nni_hyperfd.space.encoded import EncodedConfigurations


@dataclass(frozen=True, eq=False)
class MeasuredDataset:
    """A data set of the server's own, and what configurations brought on it: performance (n,), finite."""

    task: Task
    candidates: EncodedConfigurations
    performance: np.ndarray


class PaperHyperFD(ScoringRecommender):
    """settings: the paper's constants by default. offline: the server's own data sets (D_off), described and encoded
    like the tasks. warmed: what an earlier warm-up on these data sets has brought. without: parts that the extractor
    goes without. Search spaces and descriptions of another size start anew, without data sets and warm-up."""

    def __init__(
        self,
        seed: int = 0,
        settings: RankerSettings = RankerSettings(),  # noqa: B008, frozen
        offline: Sequence[MeasuredDataset] = (),
        warmed: WarmUp | None = None,
        without: Collection[str] = (),
    ) -> None:
        super().__init__(seed)
        self.settings, self.without = settings, without
        self.extractor: MetaFeatureExtractor | None = None
        self.encoder: MLPEncoder | None = None
        self.offline = [
            OfflineTask(*self.described(own.task), _inputs(own.candidates), torch.from_numpy(own.performance).float())
            for own in offline
        ]
        self._begin(warmed)

    def start_task(self, task: Task, candidates: EncodedConfigurations) -> None:
        super().start_task(task, candidates)
        self._inputs = _inputs(candidates)
        self._images, self._counts = self.described(task)
        if self.encoder is None or self._sizes() != (self.encoder.in_dim, self.extractor.feature_dim):
            self._start_anew()
        self._planned: list[int] | None = None

    def _start_anew(self) -> None:
        in_dim, feature_dim = self._sizes()
        self.encoder = MLPEncoder.initial(in_dim, self._seed(), self.settings.hidden)
        self.extractor = self.new_extractor(feature_dim, self._seed())
        self.offline = [
            own for own in self.offline if (own.inputs.shape[-1], own.features.shape[-1]) == (in_dim, feature_dim)
        ]
        self._begin(self._warm_up(self.offline) if self.offline else None)

    def _begin(self, warmed: WarmUp | None) -> None:
        """As before the first task, with warm networks or, with None, those that are there."""
        self.warmed = warmed
        self.importance: dict[str, Tensor] | None = None
        if warmed is not None:
            self.extractor, self.encoder, self.importance = warmed.extractor, warmed.encoder, warmed.importance
        self.past: list[TaskExperience] = []
        self.landmarks: list[Tensor] = []
        """Of each past task: the meta-features of the offline data sets by the extractor that made the task's own."""

    def _warm_up(self, tasks: list[OfflineTask]) -> WarmUp:
        return warm_up(self.extractor, self.encoder, tasks, self.settings, self._seed())

    def _sizes(self) -> tuple[int, int]:
        return self._inputs.shape[-1], self._images.shape[-1]

    def described(self, task: Task) -> tuple[Tensor, Tensor]:
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
        return MetaFeatureExtractor.initial(feature_dim, seed, self.settings.hidden, self.without)

    def scores(self) -> np.ndarray:
        with torch.no_grad():
            meta_feature = self._meta_feature(self._images, self._counts)
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
        if len(np.unique(performance)) < 2:
            return  # nothing to rank
        first = self.warmed is None
        if first:
            self._begin(self._warm_up([OfflineTask(self._images, self._counts, inputs, results)]))
        else:
            self.learn_extractor(inputs, results)
        current = TaskExperience(inputs, results, self._meta_feature(self._images, self._counts))
        if not first:
            self.learn_encoder(current)
        self.past.append(current)
        self.landmarks.append(self._landmarks())

    def learn_extractor(self, inputs: Tensor, performance: Tensor) -> None:
        """The client's side of equation 11."""
        with torch.no_grad():
            embeddings = self.encoder(inputs)
        images, counts = [own.features for own in self.offline], [own.counts for own in self.offline]
        task = ClientTask(self._images, self._counts, embeddings, performance, images, counts)
        update = update_extractor(self.extractor, self.importance, task, self.settings, self._seed())
        self.extractor, self.importance = update.extractor, update.importance

    def learn_encoder(self, current: TaskExperience) -> None:
        """The platform's side of equation 11."""
        past, offline = self.rehearsed()
        self.encoder = update_encoder(self.encoder, current, past, offline, self.settings, self._seed())

    def rehearsed(self) -> tuple[list[TaskExperience], list[TaskExperience]]:
        """What the encoder learns from beside the current task: past tasks and the server's own data sets."""
        offline = [
            TaskExperience(own.inputs, own.performance, meta_feature)
            for own, meta_feature in zip(self.offline, self._landmarks(), strict=True)
        ]
        return self.carried(), offline

    def carried(self) -> list[TaskExperience]:
        """The past tasks with their meta-features in the newest extractor's space, by equation 4."""
        if not self.offline:
            return self.past
        newest = self._landmarks()
        return [
            replace(past, meta_feature=past.meta_feature @ fit_transform(landmarks, newest).T)
            for past, landmarks in zip(self.past, self.landmarks, strict=True)
        ]

    def _landmarks(self) -> Tensor:
        """(m, hidden), the meta-features of the offline data sets by the newest extractor."""
        rows = [self._meta_feature(own.features, own.counts) for own in self.offline]
        return torch.stack(rows) if rows else torch.zeros(0, self.settings.hidden)

    def _meta_feature(self, features: Tensor, counts: Tensor) -> Tensor:
        with torch.no_grad():
            return self.extractor(features, counts)

    def _seed(self) -> int:
        return int(self.rng.integers(2**31))


class MSEHyperFD(PaperHyperFD):
    """The paper's "HyperFD (MSE)": the squared error of standardised performances in place of the ranking loss."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed, RankerSettings(loss="mse"))


def _inputs(candidates: EncodedConfigurations) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(candidates.vectors, dtype=np.float32))
