"""What a warmed-up state is worth to its first experiment: Rank% of the picks for data sets that it has not seen.

    python -m nni_hyperfd.benchmark.warm MEASURED --state STATE --features FOLDER

MEASURED is what `trial_code/measure.py` has filled. FOLDER holds what `trial_code/describe.py --whole` wrote, with the
detector of the state, of those of the data sets that are to be asked about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from nni_hyperfd.benchmark import measured, metrics
from nni_hyperfd.benchmark.tables import TableError
from nni_hyperfd.platform.platform import Platform
from nni_hyperfd.platform.presets import DefaultPreset
from nni_hyperfd.space.search_space import Configuration, SearchSpace
from nni_hyperfd.state import store as tables
from nni_hyperfd.state.versions import Versions
from nni_hyperfd.task import FINE_TUNE, TaskSettings

if TYPE_CHECKING:
    from torch import Tensor

STARTS = ("cold", "warm, data set unknown", "warm")
"""What is compared: a new state, and the warmed-up one without and with a meta-feature of the data set."""


def picks(
    platform: Platform,
    space: SearchSpace,
    candidates: Sequence[Configuration],
    performance: NDArray[np.float64],
    features: bytes | None,
    settings: TaskSettings,
) -> list[int]:
    """The picks of the platform's first task, each known before the next is chosen; nothing is kept in the state.

    Args:
        platform: one without tasks.
        space: the search space.
        candidates: the configurations to choose from.
        performance: (candidates,), their results, finite.
        features: the data set's image features, packed; None goes without a meta-feature.
        settings: of the task.

    Returns:
        Indices of the candidates, in order.
    """
    chosen: list[int] = []
    with platform.store.write() as session:
        versions = Versions(platform.store, session)
        head = versions.head().id
        task = tables.Task(id=1, settings=asdict(settings), extractor_id=head)
        if features is not None:
            task.meta_feature = _meta_feature(versions.extractor_tensors(head), features)
        preset = DefaultPreset(versions, session, {})
        while len(chosen) < settings.budget:
            left = [place for place in range(len(candidates)) if place not in chosen]
            (pick,) = preset.pick(task, space, [candidates[place] for place in left], settings.budget - len(chosen))
            place = candidates.index(pick.configuration)
            chosen.append(place)
            result = {"status": "succeeded", "performance": float(performance[place])}
            task.trials.append(tables.Trial(phase=FINE_TUNE, configuration=pick.configuration, **result))
    return chosen


def _meta_feature(tensors: Mapping[str, Tensor], features: bytes) -> list[float]:
    """The meta-feature (64,) of packed image features.

    Args:
        tensors: of a version of the extractor.
        features: of the data set.
    """
    import torch

    from nni_hyperfd.method import MetaFeatureExtractor, weights
    from nni_hyperfd.method import features as image_features

    images, counts = image_features.unpack(weights.loads(features))
    extractor = MetaFeatureExtractor.from_weights(weights.under(tensors, "extractor"))
    with torch.no_grad():
        meta_feature: list[float] = extractor(images, counts).tolist()
    return meta_feature


def main(
    folder: Annotated[Path, typer.Argument(help="What measure.py has filled.", metavar="MEASURED")],
    state: Annotated[Path, typer.Option(help="The warmed-up state; it is not changed.")],
    features: Annotated[Path, typer.Option(help="Folder with a .safetensors file of each data set to ask about.")],
    budget: Annotated[int, typer.Option(min=1)] = 4,
    seeds: Annotated[int, typer.Option(min=1)] = 20,
) -> None:
    """Measure Rank% of the first pick and of the best pick of the budget, with a new and with a warmed-up state."""
    try:
        found = measured.read(folder)
    except TableError as error:
        raise typer.BadParameter(str(error)) from None
    domains = [name for name in found.domains if (features / f"{name}.safetensors").is_file()]
    if not domains:
        raise typer.BadParameter(
            f"{features} has no .safetensors file of any of {', '.join(found.domains)}; trial_code/describe.py --whole"
            " writes them."
        )
    measured_seed = found.settings["seed"]
    first = {(t.domain, t.configuration): t.val for t in found.trials if t.seed == measured_seed and not t.failed}
    tasks = [TaskSettings(budget=budget, seed=seed) for seed in range(seeds)]
    rows = {}
    with TemporaryDirectory() as scratch:
        own = Path(scratch, "warm.sqlite")
        copyfile(state, own)
        platforms = {"cold": Platform(Path(scratch, "cold.sqlite"))}
        platforms |= dict.fromkeys(STARTS[1:], Platform(own))
        for domain in domains:
            names = [name for name in found.configurations if (domain, name) in first]
            candidates = [found.configurations[name] for name in names]
            performance = np.array([first[domain, name] for name in names])
            known = (features / f"{domain}.safetensors").read_bytes()
            rows[domain] = {
                start: _ranks(platform, found.space, candidates, performance, known if start == "warm" else None, tasks)
                for start, platform in platforms.items()
            }
    Console().print(_table(rows, budget, seeds))


def _ranks(
    platform: Platform,
    space: SearchSpace,
    candidates: Sequence[Configuration],
    performance: NDArray[np.float64],
    features: bytes | None,
    tasks: Sequence[TaskSettings],
) -> NDArray[np.float64]:
    """Rank% after each pick, (tasks, budget), as `picks` chooses them with each of the settings."""
    ranks = [
        metrics.rank_percent(
            performance,
            picks(platform, space, candidates, performance, features, settings),
            np.random.default_rng(settings.seed),
        )
        for settings in tasks
    ]
    return np.array(ranks)


def _table(rows: Mapping[str, Mapping[str, NDArray[np.float64]]], budget: int, seeds: int) -> Table:
    """Means over the seeds; the last row is the mean over the data sets with its standard error."""
    columns = [f"{start}: {place}" for start in STARTS for place in ("first", f"best of {budget}")]
    table = Table("data set", *columns, title=f"Rank% of picks, {seeds} seeds")
    means = {
        domain: [found[start].mean(axis=0)[place] for start in STARTS for place in (0, -1)]
        for domain, found in rows.items()
    }
    for domain, values in means.items():
        table.add_row(domain, *(f"{value:.1f}" for value in values))
    together = np.array(list(means.values()))
    errors = together.std(axis=0, ddof=1) / len(together) ** 0.5 if len(together) > 1 else np.full(len(columns), np.nan)
    table.add_row("mean", *(f"{m:.1f} ± {e:.1f}" for m, e in zip(together.mean(axis=0), errors, strict=True)))
    return table


if __name__ == "__main__":
    typer.run(main)
