"""HyperSTAR (Mittal et al., CVPR 2020) as a baseline: regression on a joint space of tasks and configurations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cosine_similarity

from nni_hyperfd.method.seeding import seeded
from nni_hyperfd.recommenders.base import ScoringRecommender, Task
from nni_hyperfd.recommenders.simple import RankedTask
from nni_hyperfd.space import EncodedConfigurations

_HIDDEN, _LEARNING_RATE, _BATCHES = 64, 1e-3, 50
_CONFIGURATIONS, _IMAGES = 32, 64
_SIMILARITY, _ADVERSARIAL = 0.5, 0.1
_TOP = 10


@dataclass(eq=False)
class _Known:
    """A past task.

    Attributes:
        images: (N, width), what is known of each image.
        inputs: (k, d), the encoded configurations with a result.
        targets: (k,), their performances, standardised.
        ranks: their relative ranks.
        candidates: the same k configurations.
        order: the configurations, best first, as indices into `candidates`.
    """

    images: Tensor
    inputs: Tensor
    targets: Tensor
    ranks: RankedTask
    candidates: EncodedConfigurations
    order: list[int]

    def agreement(self, earlier: _Known) -> float:
        """AP@10 of the order that an earlier task predicts, by interpolation."""
        predicted = np.argsort(-earlier.ranks.interpolate(self.candidates), kind="stable")
        return average_precision(predicted, self.order)


class HyperSTAR(ScoringRecommender):
    """Predicts performance from a vector of the task and a vector of the configuration.

    A task's vector is the mean over a batch of images of a learned layer on their features, a configuration's that of a
    layer on its encoding; a network on both predicts the performance, standardised within the task.

    The loss has three terms: the squared error; (AP@10 of two tasks' best configurations - cosine of their vectors)^2,
    so that tasks which like the same configurations have similar vectors; and an adversary that tells the vectors of
    image batches from those of all images, against which the first layer learns. A task without image features is one
    image with the meta-feature as its features; then there is only one batch and no adversary. As configurations are
    drawn afresh, AP@10 compares the newer task's best ones with the interpolated best ones of the earlier task.

    Attributes:
        known: the past tasks of the space, the oldest first.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.known: list[_Known] = []
        self._network: _Network | None = None
        self._generator = torch.Generator().manual_seed(seed)

    def start_task(self, task: Task, candidates: EncodedConfigurations) -> None:
        """Begin with the next data set; a new search space or kind of description starts anew."""
        super().start_task(task, candidates)
        self._images = _image_rows(task)
        self._inputs = torch.from_numpy(np.ascontiguousarray(candidates.vectors, dtype=np.float32))
        widths = (self._images.shape[1], self._inputs.shape[1])
        if self._network is None or self._network.widths != widths:
            with seeded(int(self.rng.integers(2**31))):
                self._network = _Network(*widths)
            self.known = []

    @property
    def network(self) -> _Network:
        """The network of the task at hand."""
        if self._network is None:
            raise RuntimeError("HyperSTAR has no network before its first task; call start_task.")
        return self._network

    @torch.no_grad()
    def scores(self) -> NDArray[np.float64]:
        """Predicted performances (n,), standardised."""
        vector = self.network.task_vector(self._images)
        predicted: NDArray[np.float64] = self.network.predict(vector, self._inputs).double().numpy()
        return predicted

    def learn(self, indices: NDArray[np.int64], performance: NDArray[np.float64]) -> None:
        """Keep the task's results and train on all tasks; equal results say nothing."""
        spread = performance.std()
        if spread == 0:
            return
        targets = torch.from_numpy((performance - performance.mean()) / spread).float()
        order = np.argsort(-performance, kind="stable").tolist()
        ranks = RankedTask(self.task, self.candidates, indices, performance)
        here = self.candidates[indices]
        self.known.append(_Known(self._images, self._inputs[indices], targets, ranks, here, order))
        self._train()

    def _train(self) -> None:
        """Train predictor and adversary in turn."""
        network = self.network
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
                loss = loss + _SIMILARITY * self._dissimilarity(drawn, vector)
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

    def _dissimilarity(self, drawn: int, vector: Tensor) -> Tensor:
        """(AP@10 - cosine)^2 of the task `drawn`, with this vector, and another one drawn at random; a scalar."""
        other = (drawn + 1 + self._draw(len(self.known) - 1)) % len(self.known)
        late, early = max(drawn, other), min(drawn, other)
        alike = cosine_similarity(vector, self.network.task_vector(self._batch(self.known[other])), dim=0)
        return (self.known[late].agreement(self.known[early]) - alike).square()

    def _batch(self, task: _Known) -> Tensor:
        """Randomly drawn images of a task."""
        return task.images[torch.randperm(len(task.images), generator=self._generator)[:_IMAGES]]

    def _draw(self, count: int) -> int:
        """A number from 0 to count - 1."""
        return int(torch.randint(count, (), generator=self._generator))


class _Network(nn.Module):
    """The predictor and its adversary (`discriminator`)."""

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
        """The mean over a batch of images, (N, width) to (hidden,)."""
        vector: Tensor = self.image(images).mean(dim=0)
        return vector

    def predict(self, vector: Tensor, inputs: Tensor) -> Tensor:
        """Standardised performances (n,) of encoded configurations (n, d) on a task with this vector (hidden,)."""
        joined = torch.cat([vector.expand(len(inputs), -1), self.configuration(inputs)], dim=1)
        performance: Tensor = self.performance(joined)[:, 0]
        return performance


def average_precision(predicted: NDArray[np.int64], true: Sequence[int]) -> float:
    """AP@10 of a predicted order.

    The mean over the first 10 places k of the share of the first k predicted items that are among the true best 10,
    counted where the k-th item is one of them.

    Args:
        predicted: (n,), items, best first.
        true: the same items in the true order, best first.

    Returns:
        A value in [0, 1].
    """
    best = set(true[:_TOP])
    hits, total = 0, 0.0
    for place, item in enumerate(predicted[:_TOP], start=1):
        if int(item) in best:
            hits += 1
            total += hits / place
    return total / max(len(best), 1)


def _adversarial(logit: Tensor, whole: bool) -> Tensor:
    """Cross-entropy of the adversary's answer to whether a vector is that of all images; a scalar."""
    return binary_cross_entropy_with_logits(logit, torch.full_like(logit, float(whole)))


def _image_rows(task: Task) -> Tensor:
    """What is known of each image, (N, width); unknown entries are 0."""
    if task.images is not None:
        return torch.from_numpy(np.nan_to_num(task.images.reshape(len(task.images), -1))).float()
    vector = np.zeros(1) if task.meta_feature is None or not len(task.meta_feature) else task.meta_feature
    return torch.from_numpy(np.nan_to_num(vector, posinf=0.0, neginf=0.0)).float()[None]
