"""Draws the paper's figures from runs and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from torch import nn

from nni_hyperfd.benchmark.report import Estimate
from nni_hyperfd.benchmark.reproduce.arms import OVER_BUDGETS, OVER_ORDERS
from nni_hyperfd.benchmark.reproduce.comparison import per_seed
from nni_hyperfd.benchmark.reproduce.plan import BUDGET, BUDGETS
from nni_hyperfd.benchmark.tables import Table
from nni_hyperfd.space import architecture

BATCHES = 30
"""Number of image batches of a data set in Figure 5, as in the paper."""
IMAGES = 32
"""Number of images in a batch."""


def against_budget(outcomes: Mapping[str, pd.DataFrame], seeds: int, path: Path) -> pd.DataFrame:
    """Draw Figure 3: Rank% against the budget, a panel per space.

    Args:
        outcomes: rows of runs, by what says the space and how they went.
        seeds: number of seeds.
        path: of the PNG file.

    Returns:
        The points: `runs`, `arm`, `budget`, `mean`, `se`.
    """
    figure = Figure(figsize=(4.5 * len(outcomes) + 2.5, 4.2), layout="constrained")
    panels = figure.subplots(1, len(outcomes), squeeze=False)[0]
    rows = []
    for panel, (label, own) in zip(panels, outcomes.items(), strict=True):
        for place, arm in enumerate(OVER_BUDGETS):
            points = [Estimate.of(per_seed(own, arm, budget, seeds).rank_percent.tolist()) for budget in BUDGETS]
            mean, error = np.array([point.mean for point in points]), np.array([point.error for point in points])
            panel.plot(BUDGETS, mean, marker=".", color=f"C{place}", label=arm)
            panel.fill_between(BUDGETS, mean - error, mean + error, alpha=0.15, color=f"C{place}")
            rows += [
                {"runs": label, "arm": arm, "budget": budget, "mean": point.mean, "se": point.error}
                for budget, point in zip(BUDGETS, points, strict=True)
            ]
        panel.set(title=label, xlabel="budget", ylabel="Rank%", xticks=BUDGETS, ylim=(0, None))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper")
    figure.savefig(path, dpi=120)
    return pd.DataFrame(rows)


def over_orders(outcomes: Mapping[str, pd.DataFrame], orders: int, path: Path) -> pd.DataFrame:
    """Draw Figure 4: Rank% of runs with their tasks in different orders.

    Args:
        outcomes: rows of runs, by what says the space and how they went.
        orders: number of orders, one per seed.
        path: of the PNG file.

    Returns:
        A row per space and arm with the mean, the deviation, the best and the worst order.
    """
    figure = Figure(figsize=(4.5 * len(outcomes), 3.6), layout="constrained")
    panels = figure.subplots(1, len(outcomes), squeeze=False)[0]
    rows = []
    for panel, (label, own) in zip(panels, outcomes.items(), strict=True):
        found = {arm: per_seed(own, arm, BUDGET, orders).rank_percent for arm in OVER_ORDERS}
        panel.boxplot(list(found.values()), tick_labels=list(found), whis=(0, 100))
        panel.set(
            title=f"{label}, {min(map(len, found.values()))} orders", ylabel="Rank%, mean of a run", ylim=(0, None)
        )
        for arm, ranks in found.items():
            measures = {"mean": ranks.mean(), "deviation": ranks.std(), "best": ranks.min(), "worst": ranks.max()}
            rows.append({"runs": label, "arm": arm, "orders": len(ranks)} | measures)
    figure.savefig(path, dpi=120)
    return pd.DataFrame(rows)


def meta_features(table: Table, clients: Sequence[int], extractor: nn.Module, label: str, path: Path) -> pd.DataFrame:
    """Draw Figure 5: meta-features of random image batches of the client data sets, by t-SNE.

    Args:
        table: one with image features.
        clients: indices of the client data sets.
        extractor: what makes the meta-features.
        label: what says how the runs went that it was warmed up for.
        path: of the PNG file.

    Returns:
        For each data set the mean silhouette of its batches among all, from the 64 numbers.
    """
    from sklearn.manifold import TSNE
    from sklearn.metrics import silhouette_samples

    vectors, labels = _batches(table, clients, extractor), np.repeat(clients, BATCHES)
    points = TSNE(perplexity=BATCHES, init="pca", random_state=0).fit_transform(vectors)
    apart = silhouette_samples(vectors, labels)
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    panel = figure.subplots()
    for number, place in enumerate(clients):
        own = labels == place
        panel.scatter(
            points[own, 0],
            points[own, 1],
            s=12,
            color=f"C{number % 10}",
            marker="o" if number < 10 else "x",
            label=table.tasks[place],
        )
    panel.set(title=f"{label}\n{BATCHES} batches of {IMAGES} images a data set", xticks=[], yticks=[])
    figure.legend(loc="outside right upper", fontsize="small")
    figure.savefig(path, dpi=120)
    rows = [{"data set": table.tasks[place], "silhouette": float(apart[labels == place].mean())} for place in clients]
    return pd.DataFrame(rows)


@torch.no_grad()
def _batches(table: Table, clients: Sequence[int], extractor: nn.Module) -> NDArray[np.float32]:
    """Meta-features (clients x BATCHES, 64) of random image batches."""
    rng = np.random.default_rng(0)
    vectors = []
    for place in clients:
        images = torch.from_numpy(table.images[place])
        for _ in range(BATCHES):
            vectors.append(extractor(images[rng.permutation(len(images))[:IMAGES]]).numpy())
    return np.array(vectors)


def architectures(best: pd.DataFrame, path: Path) -> None:
    """Draw Figure 10: the best architecture of each data set, a row of blocks.

    Args:
        best: `data set`, and the parameters as a table's configs.csv.gz has them.
        path: of the PNG file.
    """
    stages = range(2, len(architecture.STAGES) + 1)
    places = [(stage, block) for stage in stages for block in range(1, max(architecture.STAGES[stage - 1].depths) + 1)]
    operations = {tuple(block): number for number, block in enumerate(architecture.OPERATIONS)}
    figure = Figure(figsize=(2.5 + 0.5 * len(places), 1.6 + 0.32 * len(best)), layout="constrained")
    panel = figure.subplots()
    shown = np.full((len(best), len(places)), np.nan)
    for row, found in enumerate(best.to_dict("records")):
        chosen = {name: int(value) for name, value in found.items() if name in architecture.PARAMETERS and value != ""}
        # A table leaves the parameters of blocks beyond a stage's depth empty; they choose nothing.
        unused = {name: parameter.values[0] for name, parameter in architecture.PARAMETERS.items()}
        found_stages = architecture.Architecture.of(unused | chosen).stages
        for column, (stage, block) in enumerate(places):
            if block <= len(found_stages[stage - 1]):
                shown[row, column] = operations[tuple(found_stages[stage - 1][block - 1])]
    image = panel.imshow(shown, cmap="tab10", vmin=-0.5, vmax=9.5, aspect="auto")
    panel.set_xticks(range(len(places)), [f"{stage}.{block}" for stage, block in places], rotation=90)
    panel.set_yticks(range(len(best)), best["data set"])
    panel.set(xlabel="stage.block")
    names = [f"expand {block.expand}, kernel {block.kernel}" for block in architecture.OPERATIONS]
    handles = [Patch(color=image.cmap(number), label=name) for number, name in enumerate(names)]
    figure.legend(handles=handles, loc="outside right upper", fontsize="small")
    figure.savefig(path, dpi=120)
