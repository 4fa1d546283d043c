"""What graphs would do for the default preset: its belief on a graph network's embeddings in place of flat vectors.

    hyperfd benchmark TABLE --recommenders hyperfd,nni_hyperfd.benchmark.graph_inputs:GraphHyperFD

The default preset keeps flat vectors; docs/benchmarks.md has the figures of another way to let it see graphs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nni_hyperfd.belief.evidence import PastTask
from nni_hyperfd.method.recipe import embedded
from nni_hyperfd.recommenders import EncodedConfigurations, MeasuredDataset, Task
from nni_hyperfd.recommenders.hyperfd import HyperFD
from nni_hyperfd.recommenders.paper import PaperHyperFD

_SPREAD = 12**-0.5  # standard deviation of a uniform number in [0, 1], which the kernel's prior is made for


class GraphHyperFD(HyperFD):
    """The default preset's belief on what the paper's encoder, which learns beside it, makes of configurations.

    Args:
        seed: of everything random.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self._paper = PaperHyperFD(seed)
        self._kept: list[tuple[EncodedConfigurations, PastTask]] = []

    def know(self, data_sets: Sequence[MeasuredDataset]) -> None:
        """Tell both of the platform's own data sets."""
        super().know(data_sets)
        self._paper.know(data_sets)

    def start_task(self, task: Task, candidates: EncodedConfigurations) -> None:
        """Begin with the candidates, and the past, as the encoder sees them now."""
        self._paper.start_task(task, candidates)
        rows = embedded(self._paper.encoder, candidates).numpy()
        self._middle, self._scale = rows.mean(axis=0), np.maximum(rows.std(axis=0), 1e-6)
        super().start_task(task, EncodedConfigurations(self._inputs(candidates)))
        self._encoded = candidates

    def end_task(self, revealed: Mapping[int, float]) -> None:
        """Let both learn."""
        self.candidates = self._encoded
        super().end_task(revealed)
        self._paper.end_task(revealed)

    def past(self, width: int) -> Sequence[PastTask]:
        """The past tasks as the encoder sees them now."""
        return [replace(past, inputs=self._inputs(tried)) for tried, past in self._kept]

    def _keep(
        self, task: Task, configurations: EncodedConfigurations, performance: NDArray[np.float64], sampled: bool
    ) -> None:
        if len(np.unique(performance)) > 1:
            past = PastTask(configurations.vectors, performance, task.meta_feature, sampled)
            self._kept.append((configurations, past))

    def _inputs(self, configurations: EncodedConfigurations) -> NDArray[np.float32]:
        """Embeddings (n, 64), each number about as wide as [0, 1] over the task's candidates."""
        rows = embedded(self._paper.encoder, configurations).numpy()
        inputs: NDArray[np.float32] = (0.5 + _SPREAD * (rows - self._middle) / self._scale).astype(np.float32)
        return inputs
