"""What a warmed-up state is worth to its first experiment: Rank% of the picks for data sets that it has not seen.

    python -m nni_hyperfd.benchmark.warm MEASURED --state STATE --features FOLDER

MEASURED is what `trial_code/measure.py` has filled. FOLDER holds what `trial_code/describe.py --whole` wrote, with the
detector of the state, of those of the data sets that are to be asked about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from nni_hyperfd.benchmark import measured, metrics
from nni_hyperfd.benchmark.tables import TableError
from nni_hyperfd.platform import Platform, Recommendation, TaskView, TrialView
from nni_hyperfd.space import Configuration, SearchSpace
from nni_hyperfd.task import Phase, Preset, Status, TaskSettings

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
    meta_feature = None if features is None else _meta_feature(platform, features)
    now = datetime.now(timezone.utc)
    task = TaskView(
        id=1,
        experiment="",
        space=space,
        settings=settings,
        dataset=None,
        extractor_id=platform.versions.head_id(),
        meta_feature=meta_feature,
        num_images=None,
        num_boxes=None,
        baseline=None,
        created=now,
        closed=None,
        trials=(),
    )
    preset = platform.preset(settings.preset)
    chosen: list[int] = []
    while len(chosen) < settings.budget:
        left = [place for place in range(len(candidates)) if place not in chosen]
        for pick in preset.pick(task, [candidates[place] for place in left], settings.budget - len(chosen)):
            chosen.append(candidates.index(pick.configuration))
            task = replace(task, trials=(*task.trials, _tried(pick, float(performance[chosen[-1]]), len(chosen))))
    return chosen


def _tried(pick: Recommendation, performance: float, number: int) -> TrialView:
    """A pick's finished trial."""
    return TrialView(
        id=number,
        parameter_id=number,
        phase=Phase.FINE_TUNE,
        status=Status.SUCCEEDED,
        configuration=pick.configuration,
        rank=pick.rank,
        score=pick.score,
        performance=performance,
        reason=None,
        started=None,
        ended=None,
        is_result=True,
    )


def _meta_feature(platform: Platform, packed: bytes) -> tuple[float, ...]:
    """The meta-feature (64,) of packed image features, by the platform's newest extractor."""
    import torch

    from nni_hyperfd.method import MetaFeatureExtractor, features, weights

    images, _ = features.unpack(weights.loads(packed))
    tensors, _ = platform.versions.tensors(platform.versions.head_id())
    with torch.no_grad():
        return tuple(MetaFeatureExtractor.from_weights(tensors)(images).tolist())


def main(
    folder: Annotated[Path, typer.Argument(help="What measure.py has filled.", metavar="MEASURED")],
    state: Annotated[Path, typer.Option(help="The warmed-up state; it is not changed.")],
    features: Annotated[Path, typer.Option(help="Folder with a .safetensors file of each data set to ask about.")],
    budget: Annotated[int, typer.Option(min=1)] = 4,
    seeds: Annotated[int, typer.Option(min=1)] = 20,
    preset: Annotated[Literal["default", "paper"], typer.Option(help="How to pick.")] = "default",
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
    tasks = [TaskSettings(budget=budget, seed=seed, preset=Preset(preset)) for seed in range(seeds)]
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
