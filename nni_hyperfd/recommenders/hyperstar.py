"""HyperSTAR (Mittal et al., CVPR 2020): regression on a joint space of tasks and configurations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cosine_similarity

from nni_hyperfd.method.seeding import seeded
from nni_hyperfd.recommenders.base import ScoringRecommender, Task
from nni_hyperfd.recommenders.simple import PastTask
from nni_hyperfd.space.encoded import EncodedConfigurations

_HIDDEN, _LEARNING_RATE, _BATCHES = 64, 1e-3, 50
_CONFIGURATIONS, _IMAGES = 32, 64
_SIMILARITY, _ADVERSARIAL = 0.5, 0.1
_TOP = 10


@dataclass(eq=False)
class _Known:
    images: Tensor
    inputs: Tensor
    targets: Tensor
    ranks: PastTask
    candidates: EncodedConfigurations
    order: list[int]
    """The configurations, best first, as places in `candidates`."""

    def agreement(self, earlier: _Known) -> float:
        """AP@10 of the order that an earlier task foretells, by interpolation."""
        foretold = np.argsort(-earlier.ranks.interpolate(self.candidates), kind="stable")
        return average_precision(foretold, self.order)


class HyperSTAR(ScoringRecommender):
    """A task's vector is the mean over a batch of images of a learned layer on their features, a configuration's that
    of a layer on its encoding; a network on both predicts the performance, standardised within the task.

    Three terms: squared error; (AP@10 of two tasks' best configurations - cosine of their vectors)^2, so that tasks
    which like the same configurations lie together; and an adversary that tells vectors of image batches from those
    of all images, against which the first layer learns. A task without image features is one image with the
    meta-feature as its features: then there is one batch only and no adversary. Configurations being drawn afresh,
    AP@10 compares the newer task's best with the earlier one's best by interpolation.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.known: list[_Known] = []
        self._network: _Network | None = None
        self._generator = torch.Generator().manual_seed(seed)

    def start_task(self, task: Task, candidates: EncodedConfigurations) -> None:
        super().start_task(task, candidates)
        self._images = _image_rows(task)
        self._inputs = torch.from_numpy(np.ascontiguousarray(candidates.vectors, dtype=np.float32))
        widths = (self._images.shape[1], self._inputs.shape[1])
        if self._network is None or self._network.widths != widths:
            with seeded(int(self.rng.integers(2**31))):
                self._network = _Network(*widths)
            self.known = []

    def scores(self) -> np.ndarray:
        with torch.no_grad():
            vector = self._network.task_vector(self._images)
            return self._network.predict(vector, self._inputs).double().numpy()

    def learn(self, indices: np.ndarray, performance: np.ndarray) -> None:
        spread = performance.std()
        if spread == 0:
            return
        targets = torch.from_numpy((performance - performance.mean()) / spread).float()
        order = np.argsort(-performance, kind="stable").tolist()
        ranks = PastTask(self.task, self.candidates, indices, performance)
        here = self.candidates[indices]
        self.known.append(_Known(self._images, self._inputs[indices], targets, ranks, here, order))
        self._train()

    def _train(self) -> None:
        network = self._network
        optimizer = torch.optim.Adam(network.predictor_parameters(), lr=_LEARNING_RATE)
        against = torch.optim.Adam(network.discriminator.parameters(), lr=_LEARNING_RATE)
        for _ in range(_BATCHES):
            # The newest task as often as all others together: the predictor is fine-tuned on all experience.
            current = len(self.known) - 1
            drawn = current if self._draw(2) else self._draw(len(self.known))
            task = self.known[drawn]
            rows = torch.randperm(len(task.targets), generator=self._generator)[:_CONFIGURATIONS]
            vector = network.task_vector(self._batch(task))
            loss = (network.predict(vector, task.inputs[rows]) - task.targets[rows]).square().mean()
            if len(self.known) > 1:
                other = (drawn + 1 + self._draw(len(self.known) - 1)) % len(self.known)
                late, early = max(drawn, other), min(drawn, other)
                alike = cosine_similarity(vector, network.task_vector(self._batch(self.known[other])), dim=0)
                agreement = self.known[late].agreement(self.known[early])
                loss = loss + _SIMILARITY * (agreement - alike).square()
            if len(task.images) > 1:
                whole = network.task_vector(task.images).detach()
                loss = loss + _ADVERSARIAL * _adversarial(network.discriminator(vector), whole=True)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if len(task.images) > 1:
                judged = _adversarial(network.discriminator(whole), whole=True)
                judged = judged + _adversarial(network.discriminator(vector.detach()), whole=False)
                against.zero_grad()
                judged.backward()
                against.step()

    def _batch(self, task: _Known) -> Tensor:
        return task.images[torch.randperm(len(task.images), generator=self._generator)[:_IMAGES]]

    def _draw(self, count: int) -> int:
        return int(torch.randint(count, (), generator=self._generator))


class _Network(nn.Module):
    def __init__(self, image_width: int, input_width: int) -> None:
        super().__init__()
        self.widths = (image_width, input_width)
        self.image = nn.Sequential(nn.Linear(image_width, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, _HIDDEN))
        self.configuration = nn.Sequential(nn.Linear(input_width, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, _HIDDEN))
        self.performance = nn.Sequential(nn.Linear(2 * _HIDDEN, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, 1))
        self.discriminator = nn.Sequential(nn.Linear(_HIDDEN, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, 1))

    def predictor_parameters(self) -> list[nn.Parameter]:
        return [p for part in (self.image, self.configuration, self.performance) for p in part.parameters()]

    def task_vector(self, images: Tensor) -> Tensor:
        """(N, width) to (hidden,), the batchwise mean."""
        return self.image(images).mean(dim=0)

    def predict(self, vector: Tensor, inputs: Tensor) -> Tensor:
        """(n,), standardised performances."""
        joined = torch.cat([vector.expand(len(inputs), -1), self.configuration(inputs)], dim=1)
        return self.performance(joined)[:, 0]


def average_precision(predicted: np.ndarray, true: list[int]) -> float:
    """AP@10 of two orders of the same items, best first: the mean over the first 10 places k of the share of the first
    k predicted that are among the true best 10, counted where the k-th is one of them."""
    best = set(true[:_TOP])
    hits, total = 0, 0.0
    for place, item in enumerate(predicted[:_TOP], start=1):
        if int(item) in best:
            hits += 1
            total += hits / place
    return total / max(len(best), 1)


def _adversarial(logit: Tensor, whole: bool) -> Tensor:
    return binary_cross_entropy_with_logits(logit, torch.full_like(logit, float(whole)))


def _image_rows(task: Task) -> Tensor:
    """(N, width): what is known of each image, unknown entries 0."""
    if task.images is not None:
        return torch.from_numpy(np.nan_to_num(task.images.reshape(len(task.images), -1))).float()
    vector = np.zeros(1) if task.meta_feature is None or not len(task.meta_feature) else task.meta_feature
    return torch.from_numpy(np.nan_to_num(vector, posinf=0.0, neginf=0.0)).float()[None]
