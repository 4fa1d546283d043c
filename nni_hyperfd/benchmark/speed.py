"""The time that ranking and learning take on one core, each beside a baseline in the same process.

    OMP_NUM_THREADS=1 python -m nni_hyperfd.benchmark.speed [CSV]

Every figure is a median of processor time, to which other programs on the machine add little, and so is its baseline;
the two are measured in turn. Results are made up, so that there can be any number of past tasks; sizes are the paper's:
216 configurations, 64 numbers for a data set, budget 4.
"""

from __future__ import annotations

import csv
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from nni_hyperfd.files import atomic
from nni_hyperfd.method import (
    ConfigurationEncoder,
    GINEncoder,
    RankerSettings,
    TaskExperience,
    explore_exploit,
    score,
    update_encoder,
)
from nni_hyperfd.recommenders import MeasuredDataset, Task
from nni_hyperfd.recommenders.hyperfd import HyperFD
from nni_hyperfd.space import EncodedConfigurations, Graphs

VALUES = (2, 3, 2, 3, 3, 2)
"""Numbers of values of the paper's six hyper-parameters."""
SPACE = np.array([np.concatenate(row) for row in itertools.product(*map(np.eye, VALUES))], dtype=np.float32)
"""All 216 configurations, one-hot, (216, 15)."""
HIDDEN, BUDGET = 64, 4
GRAPHS, GRAPHS_AT_ONCE = 25_600, 256
EMBEDDED, BEST = 1_000_000, 10


class Line(NamedTuple):
    """One figure.

    Attributes:
        what: what was measured.
        median: its median time, in `unit`.
        unit: ms, s or us a graph.
        goal: the time that it should take.
        ratio: its time divided by the baseline's.
        baseline: what the baseline is.
    """

    what: str
    median: float
    unit: str
    goal: str
    ratio: float
    baseline: str


def main() -> None:
    """Measure everything, print a table and, where a file is named, write a CSV."""
    if os.environ.get("OMP_NUM_THREADS") != "1":
        sys.exit("One core is measured: start with OMP_NUM_THREADS=1 in the environment.")
    table = Table("what", "median", "goal", "against", title="One core")
    lines = []
    for line in itertools.chain(recommending(), learning(), encoding(), searching()):
        lines.append(line)
        table.add_row(line.what, f"{line.median:,.3g} {line.unit}", line.goal, f"{line.ratio:.3g} x {line.baseline}")
    Console().print(table)
    if sys.argv[1:]:
        with atomic(Path(sys.argv[1])) as unfinished, unfinished.open("w", newline="") as file:
            csv.writer(file).writerows([Line._fields, *lines])


def recommending() -> Iterator[Line]:
    """Measure a task without its learning: the candidates are ranked, and again after each result."""
    encoded, rng = EncodedConfigurations(SPACE), np.random.default_rng(0)
    encoder = ConfigurationEncoder.initial(encoded, seed=0)
    for past in (10, 100, 1_000, 10_000):
        meta_feature = _meta_feature(rng)
        task = Task(BUDGET, meta_feature)
        ours = partial(_tried, _experienced(past), task, EncodedConfigurations(SPACE), rng.random(len(SPACE)))
        paper = partial(_tried_by_paper, encoder, torch.from_numpy(meta_feature), encoded)
        seconds, baseline = _medians(ours, paper, repeats=200)
        what = f"recommend {BUDGET} of {len(SPACE)}, {past:,} past tasks"
        yield Line(what, 1e3 * seconds, "ms", "1 ms", seconds / baseline, "the paper's ranking")


def learning() -> Iterator[Line]:
    """Measure the learning after a task whose 216 results have all become known."""
    encoded, rng = EncodedConfigurations(SPACE), np.random.default_rng(0)
    encoder = ConfigurationEncoder.initial(encoded, seed=0)
    for past in (30, 3_000):
        recommender = _experienced(past)
        task = Task(BUDGET, _meta_feature(rng))
        recommender.start_task(task, encoded)
        ours = partial(_learned, recommender, task, encoded, dict(enumerate(rng.random(len(SPACE)).tolist())))
        known = [
            TaskExperience(encoded, torch.rand(len(SPACE)), torch.from_numpy(_meta_feature(rng))) for _ in range(past)
        ]
        paper = partial(update_encoder, encoder, known[0], known[1:], [], RankerSettings(), seed=0)
        seconds, baseline = _medians(ours, paper, repeats=7)
        yield Line(f"learn, {past:,} past tasks", seconds, "s", "2 s", seconds / baseline, "the paper's encoder")


def encoding() -> Iterator[Line]:
    """Measure the GIN, which encodes networks as vectors."""
    for what, graphs in (("cells of 8 nodes", _cells()), ("chains of up to 22 blocks", _chains())):
        encoder = GINEncoder.initial(graphs.num_ops, graphs.num_stages, seed=0).eval()
        nodes = GRAPHS_AT_ONCE * graphs.ops.shape[1]
        seconds, baseline = _medians(partial(_encoded, encoder, graphs), partial(_multiplied, nodes), repeats=7)
        line = (f"GIN, {what}", 1e6 * seconds / GRAPHS, "us a graph", "10 us a graph")
        yield Line(*line, seconds / baseline, "its matrix products")


def searching() -> Iterator[Line]:
    """Measure the search for the best of many embedded candidates by inner products with a data set's vector."""
    embedded = torch.rand(EMBEDDED, HIDDEN, generator=torch.Generator().manual_seed(0))
    meta_feature = torch.ones(HIDDEN)
    seconds, baseline = _medians(lambda: score(embedded, meta_feature).topk(BEST), embedded.sum, repeats=21)
    what = f"top {BEST} of {EMBEDDED:,} embedded candidates"
    yield Line(what, 1e3 * seconds, "ms", "60 ms", seconds / baseline, "reading them once")


def _tried(
    recommender: HyperFD, task: Task, candidates: EncodedConfigurations, performance: NDArray[np.float64]
) -> None:
    """Lead a recommender through a task, without the learning."""
    recommender.start_task(task, candidates)
    for _ in range(task.budget):
        (pick,) = recommender.ask()
        recommender.tell(pick, performance[pick])


def _learned(recommender: HyperFD, task: Task, candidates: EncodedConfigurations, revealed: dict[int, float]) -> None:
    """End a task; what it has taught is learned when the next one begins."""
    recommender.end_task(revealed)
    recommender.start_task(task, candidates)


@torch.inference_mode()
def _tried_by_paper(encoder: ConfigurationEncoder, meta_feature: Tensor, configurations: EncodedConfigurations) -> None:
    """Rank the candidates once, as the paper does."""
    explore_exploit(score(encoder(configurations), meta_feature), BUDGET, RankerSettings().exploration, seed=0)


@torch.inference_mode()
def _encoded(encoder: GINEncoder, graphs: Graphs) -> None:
    """Encode all graphs."""
    for start in range(0, len(graphs), GRAPHS_AT_ONCE):
        encoder(graphs[start : start + GRAPHS_AT_ONCE])


@torch.inference_mode()
def _multiplied(nodes: int) -> None:
    """The encoder's matrix products alone: four for each node, five for each graph."""
    matrix = nn.Linear(HIDDEN, HIDDEN)
    of_nodes, of_graphs = torch.ones(nodes, HIDDEN), torch.ones(GRAPHS_AT_ONCE, HIDDEN)
    for _ in range(0, GRAPHS, GRAPHS_AT_ONCE):
        for rows in 4 * [of_nodes] + 5 * [of_graphs]:
            matrix(rows)


def _experienced(past: int) -> HyperFD:
    """A recommender with this number of past tasks.

    All but the last one are the platform's own, which it learns from when the next task begins: learning one by one
    would take hours.
    """
    rng, recommender, encoded = np.random.default_rng(past), HyperFD(0), EncodedConfigurations(SPACE)
    recommender.know(
        [MeasuredDataset(Task(BUDGET, _meta_feature(rng)), encoded, rng.random(len(SPACE))) for _ in range(past - 1)]
    )
    recommender.start_task(Task(BUDGET, _meta_feature(rng)), encoded)
    recommender.end_task(dict(enumerate(rng.random(len(SPACE)).tolist())))
    recommender.start_task(Task(BUDGET), encoded)
    return recommender


def _meta_feature(rng: np.random.Generator) -> NDArray[np.float32]:
    """A random meta-feature (64,)."""
    return rng.random(HIDDEN, dtype=np.float32)


def _cells() -> Graphs:
    """Random cells of 8 nodes."""
    rng = np.random.default_rng(0)
    return Graphs(rng.integers(6, size=(GRAPHS, 8)), np.triu(rng.random((GRAPHS, 8, 8)) < 0.4, 1), num_ops=6)


def _chains() -> Graphs:
    """Random chains of blocks in 7 stages; each block has one of 6 kinds or is left out, except a stage's first."""
    rng = np.random.default_rng(0)
    stages = np.repeat(np.arange(7), (1, 3, 4, 4, 4, 4, 2))
    first = np.diff(stages, prepend=-1) > 0
    ops = np.where(first | (rng.random((GRAPHS, len(stages))) < 0.7), rng.integers(6, size=(GRAPHS, len(stages))), -1)
    return Graphs.chains(ops, 6, np.broadcast_to(stages, ops.shape), 7)


def _medians(ours: Callable[[], object], baseline: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median processor seconds of each, called in turn, after one call each that is not counted."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats + 1):
        for function, measured in zip((ours, baseline), times, strict=True):
            begin = time.process_time()
            function()
            measured.append(time.process_time() - begin)
    return statistics.median(times[0][1:]), statistics.median(times[1][1:])


if __name__ == "__main__":
    main()
