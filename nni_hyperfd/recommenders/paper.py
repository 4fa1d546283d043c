"""HyperFD as the paper has it, as `preset: paper` runs it: the same steps on what one process holds in memory.

Without image features a task's precomputed meta-feature vector stands in for them: one image whose anchors all have
this vector as their feature. A task without either is ranked without a meta-feature and teaches the encoder alone. Both
networks are warmed up on the platform's own data sets, where there are any; then they learn after each task by eq. 11.
Past meta-features stay as they were made and are carried into the newest extractor's space by eq. 4. Half of the budget
is explored. Where the platform does less than the paper, because it never has a client's images, so does this.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nni_hyperfd.method import recipe
from nni_hyperfd.method.config_encoder import ConfigurationEncoder
from nni_hyperfd.method.drawing import tasks_to_learn_from
from nni_hyperfd.method.learning import ClientTask, OfflineTask, WarmUp, update_extractor, warm_up
from nni_hyperfd.method.learning.objective import rankable
from nni_hyperfd.method.meta_feature import GROUPS, STAGES, MetaFeatureExtractor
from nni_hyperfd.method.recipe import PastTask
from nni_hyperfd.method.scoring import score
from nni_hyperfd.method.settings import RankerSettings
from nni_hyperfd.method.transform import fit_transform
from nni_hyperfd.recommenders.base import MeasuredDataset, ScoringRecommender, Task, finite_results
from nni_hyperfd.space import EncodedConfigurations


@dataclass(frozen=True, eq=False)
class StoredTask:
    """A past task as it is kept.

    Attributes:
        number: of its arrival, from 1, the platform's own data sets included.
        configurations: the tried ones.
        performance: float32 (n,), their results, two different ones at least.
        meta_feature: float32 (64,), as the extractor of its time made it, or None.
        version: which extractor that was; an index into `PaperHyperFD.landmarks`.
        offline: whether it is one of the platform's own data sets.
    """

    number: int
    configurations: EncodedConfigurations
    performance: Tensor
    meta_feature: Tensor | None
    version: int
    offline: bool = False


class PaperHyperFD(ScoringRecommender):
    """The paper's recipe.

    Search spaces and descriptions of another size start anew, without data sets and warm-up.

    Args:
        seed: of everything random.
        settings: the paper's constants by default.
        offline: the platform's own data sets (D_off), described and encoded like the tasks.
        warmed: what an earlier warm-up on these data sets has brought; by default they are warmed up on.
        without: parts that the extractor goes without (`method.meta_feature.PARTS`).
    """

    extractor: nn.Module
    encoder: ConfigurationEncoder
    importance: dict[str, Tensor] | None
    _feature_dim: int | None

    def __init__(
        self,
        seed: int = 0,
        settings: RankerSettings = RankerSettings(),  # noqa: B008, frozen
        offline: Sequence[MeasuredDataset] = (),
        warmed: WarmUp | None = None,
        without: Collection[str] = (),
    ) -> None:
        super().__init__(seed)
        self.seed, self.settings, self.without = seed, settings, without
        self.know(offline)
        self._begin(warmed)

    def know(self, data_sets: Sequence[MeasuredDataset]) -> None:
        """Keep the platform's own data sets; the networks are warmed up on them when the first task comes."""
        self.offline = [self._offline_task(own) for own in data_sets]
        self._number = len(self.offline)
        self._begin(None)

    def start_task(self, task: Task, candidates: EncodedConfigurations) -> None:
        """Begin with the next data set, and describe it."""
        super().start_task(task, candidates)
        self._number += 1
        self.images = self.described(task)
        if not self._fits(candidates):
            self._start_anew(candidates)
        if self.images is not None and self._feature_dim is None:
            self._feature_dim = _dim(self.images)
            self.extractor = self.new_extractor(self._feature_dim, recipe.INITIAL_SEED)
        self.version = len(self.landmarks) - 1
        self.meta_feature = None if self.images is None else self._meta_feature(self.images)
        self._planned: list[int] | None = None

    def described(self, task: Task) -> Tensor | None:
        """What the extractor is given of a task.

        Returns:
            Image features (N, ..., D), here (N, 3, 3, D); None where nothing is known of the data set. Unknown entries
            of a meta-feature vector are 0.
        """
        if task.images is not None:
            return torch.from_numpy(task.images).float()
        if task.meta_feature is None or not len(task.meta_feature):
            return None
        vector = np.nan_to_num(task.meta_feature, nan=0.0, posinf=0.0, neginf=0.0)
        finite = torch.from_numpy(vector).float()
        return finite.expand(1, STAGES, GROUPS, len(finite))

    def new_extractor(self, feature_dim: int, seed: int) -> nn.Module:
        """f_d for features of D = feature_dim numbers; its weights follow from `seed` alone."""
        return MetaFeatureExtractor.initial(feature_dim, seed, self.settings.hidden, self.without)

    def scores(self) -> NDArray[np.float64]:
        """Eq. 1 for every candidate, (n,)."""
        if self.meta_feature is None:
            past = self._carried(self._drawn(recipe.task_rng(self.seed, self._number)), self._towards)
            meta_feature = recipe.unknown_meta_feature(h for h in past if h is not None)
        else:
            meta_feature = self.carried(self.meta_feature, self.version, self._towards)
        with torch.no_grad():
            scores = score(self.encoder(self.candidates), meta_feature)
        return cast(NDArray[np.float64], scores.double().numpy())

    def ask(self, n: int = 1) -> list[int]:
        """The next `n` of the picks, which are all chosen before the first result."""
        if self._planned is None:
            scores, exploration = torch.from_numpy(self.scores()), self.settings.exploration
            self._planned = recipe.picks(scores, self.task.budget, exploration, self.seed, self._number)
        picks = self._planned[len(self.asked) : len(self.asked) + max(n, 0)]
        self.asked += picks
        return picks

    def end_task(self, revealed: Mapping[int, float]) -> None:
        """Update both networks, first the extractor with the client's images, then the encoder."""
        known, _ = finite_results(revealed, len(self.candidates))
        # In the order in which the platform gets them: a sum's rounding depends on it.
        asked = [index for index in self.asked if index in known]
        indices = [*asked, *(index for index in known.tolist() if index not in asked)]
        configurations = self.candidates[indices] if indices else None
        performance = torch.tensor([float(revealed[index]) for index in indices])
        if self.images is not None:
            self.learn_extractor(self.images, configurations, performance)
        if configurations is not None:
            self.learn_encoder(configurations, performance)
            if rankable(performance):
                stored = (configurations, performance, self.meta_feature, self.version)
                self.past.append(StoredTask(self._number, *stored))

    def learn_extractor(
        self, images: Tensor, configurations: EncodedConfigurations | None, performance: Tensor
    ) -> None:
        """The client's side of eq. 11."""
        embeddings = recipe.embedded(self.encoder, configurations)
        offline = recipe.images_for_client(self.kept, recipe.task_rng(self.seed, self._number))
        task = ClientTask(images, embeddings, performance, offline)
        seed = recipe.task_seed(self.seed, self._number)
        update = update_extractor(self.extractor, self.importance, task, self.settings, seed)
        self.extractor, self.importance = update.extractor, update.importance
        self.meta_feature = update.meta_feature
        self.landmarks.append(self._landmarks())
        self.version = len(self.landmarks) - 1

    def learn_encoder(self, configurations: EncodedConfigurations, performance: Tensor) -> None:
        """The platform's side of eq. 11."""
        seed = recipe.task_seed(self.seed, self._number)
        self._towards = len(self.landmarks) - 1
        past = self.rehearsed(self._drawn(np.random.default_rng(seed)))
        own = StoredTask(self._number, configurations, performance, self.meta_feature, self.version)
        (meta_feature,) = self._carried([own], self._towards)
        current = PastTask(configurations, performance, meta_feature)
        self.encoder = recipe.learned_encoder(self.encoder, current, past, self.settings, seed)

    def rehearsed(self, drawn: Sequence[StoredTask]) -> list[PastTask]:
        """What the encoder learns from beside the current task."""
        return [
            PastTask(past.configurations, past.performance, meta_feature, past.offline)
            for past, meta_feature in zip(drawn, self._carried(drawn, self._towards), strict=True)
        ]

    def carried(self, meta_feature: Tensor, source: int, target: int, number: int | None = None) -> Tensor:
        """A meta-feature (64,) of one version of the extractor in the space of another, by eq. 4.

        Args:
            meta_feature: as it was made.
            source: the version that made it.
            target: the version whose space is asked for.
            number: of the past task that it belongs to, by default the current one.
        """
        if source == target or not self.kept:
            return meta_feature
        return fit_transform(self.landmarks[source], self.landmarks[target]) @ meta_feature

    def _carried(self, tasks: Sequence[StoredTask], target: int) -> list[Tensor | None]:
        return [
            None if past.meta_feature is None else self.carried(past.meta_feature, past.version, target, past.number)
            for past in tasks
        ]

    def _drawn(self, rng: np.random.Generator) -> list[StoredTask]:
        """The past tasks to learn from."""
        by_number = {past.number: past for past in self.past}
        own = [past.number for past in self.past if not past.offline]
        offline = [past.number for past in self.past if past.offline]
        return [by_number[number] for number in tasks_to_learn_from(own, offline, rng)]

    def _offline_task(self, own: MeasuredDataset) -> OfflineTask:
        images = self.described(own.task)
        if images is None:
            raise ValueError("A data set of the platform's own needs images or a meta-feature.")
        return OfflineTask(images, own.candidates, torch.from_numpy(own.performance).float())

    def _fits(self, candidates: EncodedConfigurations) -> bool:
        """Whether the networks take these candidates and the data set's description."""
        described = self.images is None or self._feature_dim in (None, _dim(self.images))
        return described and _kind(candidates) == self._space

    def _start_anew(self, candidates: EncodedConfigurations) -> None:
        kind = _kind(candidates)
        self.encoder = ConfigurationEncoder.initial(candidates, recipe.INITIAL_SEED, self.settings.hidden)
        fitting = [own for own in self.offline if _kind(own.configurations) == kind]
        # A task of which nothing is known fits any description.
        like = [own.features for own in fitting[:1]] if self.images is None else [self.images]
        self.offline = [own for own in fitting if _dim(own.features) == _dim(like[0])]
        self._begin(self._warm_up() if self.offline else None, kind)

    def _begin(self, warmed: WarmUp | None, space: tuple[int, ...] = ()) -> None:
        """As before the first task, with warm networks or, with None, without any."""
        self.warmed, self._space, self._feature_dim = warmed, space, None
        self.importance = None
        self.past: list[StoredTask] = []
        self.kept: list[Tensor] = []
        """What is kept of the images of the platform's own data sets."""
        self.landmarks: list[Tensor] = [torch.zeros(0, self.settings.hidden)]
        """Of each version of the extractor: the meta-features (m, 64) of `kept`."""
        self._towards = 0
        """The version that the encoder was trained towards."""
        if warmed is None:
            return
        self.extractor, self.encoder, self.importance = warmed.extractor, warmed.encoder, warmed.importance
        self._space, self._feature_dim = _kind(self.offline[0].configurations), _dim(self.offline[0].features)
        rng, count = np.random.default_rng(self.seed), len(self.offline)
        self.kept = [recipe.kept_images(own.features, count, rng) for own in self.offline]
        self.landmarks = [self._landmarks()]
        for number, own in enumerate(self.offline, start=1):
            if rankable(own.performance):
                described = (self._meta_feature(own.features), 0)
                self.past.append(StoredTask(number, own.configurations, own.performance, *described, offline=True))

    def _warm_up(self) -> WarmUp:
        extractor = self.new_extractor(_dim(self.offline[0].features), recipe.INITIAL_SEED)
        return warm_up(extractor, self.encoder, self.offline, self.settings, self.seed)

    def _landmarks(self) -> Tensor:
        rows = [self._meta_feature(images) for images in self.kept]
        return torch.stack(rows) if rows else torch.zeros(0, self.settings.hidden)

    def _meta_feature(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return cast(Tensor, self.extractor(images))


class MSEHyperFD(PaperHyperFD):
    """The paper's "HyperFD (MSE)": the squared error of standardised performances in place of the ranking loss."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed, RankerSettings(loss="mse"))


def _kind(configurations: EncodedConfigurations) -> tuple[int, ...]:
    """What an encoder depends on."""
    graphs = configurations.graphs
    sizes = (0, 0) if graphs is None else (graphs.num_ops, graphs.num_stages)
    return configurations.width, *sizes, *configurations.beside


def _dim(images: Tensor) -> int:
    return int(images.shape[-1])
