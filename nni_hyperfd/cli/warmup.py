"""The commands `hyperfd warmup ...`: measure configurations on the platform's own data sets, and learn from them."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from nni_hyperfd.cli.console import changing_line, read_json, stop

warmup = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Warm the ranker up on data sets of your own.")


@warmup.command()
def collect(
    experiment: Annotated[Path, typer.Argument(help="NNI experiment file, for any training service.")],
    data: Annotated[Path, typer.Option(help="Folder of sub-data-sets; trials on this machine see it as HYPERFD_DATA.")],
    out: Annotated[Path, typer.Option(help="Folder for what is measured; the same one goes on.")],
    pairs: Annotated[int, typer.Option(min=1, help="Sub-data-sets with a configuration to measure at most.")] = 3000,
    each: Annotated[int, typer.Option(min=1, help="Configurations for every sub-data-set.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Of which pairs, and their order.")] = 0,
    port: Annotated[int, typer.Option(min=1, max=65534, help="Of NNI's web UI.")] = 8080,
) -> None:
    """Measure (configuration, sub-data-set) pairs as trials of NNI.

    Stop it with Ctrl-C at any time, or let it be killed: the same command goes on and measures no pair twice. A trial
    that fails is run once more.
    """
    import nni

    from nni_hyperfd.experiment.launch import LaunchError
    from nni_hyperfd.files import FolderError, locked
    from nni_hyperfd.warmup import collect as measuring
    from nni_hyperfd.warmup.pairs import PairError, PairFile, draw

    console = Console()
    nni.silence_stdout()
    os.environ["HYPERFD_DATA"] = str(data.resolve())
    try:
        names = measuring.find_data_sets(data)
        config, space = measuring.load_experiment(experiment)
        with locked(out):
            file, plan = PairFile(out / measuring.PAIRS), draw(names, space, pairs, each, seed)
            file.plan(plan)
            _print(console, f"{file.progress().total} pairs of {len({name for name, _ in plan})} sub-data-sets")
            with changing_line("NNI starts") as show:
                progress = measuring.collect(file, config, port, show)
    except (measuring.CollectError, FolderError, LaunchError, PairError) as error:
        stop(str(error))
    except OSError as error:
        stop(f"{error.filename or out}: {error.strerror}; correct it, and the same command goes on")
    except KeyboardInterrupt:
        stop("stopped; the same command goes on")
    cost = timedelta(seconds=round(progress.seconds))
    _print(
        console,
        f"{progress.succeeded} pairs measured, {progress.failed} failed, in {cost} of trials: {out / measuring.PAIRS}",
    )


@warmup.command()
def train(
    out: Annotated[Path, typer.Argument(help="The folder that 'hyperfd warmup collect' has written.")],
    features: Annotated[Path, typer.Option(help="Folder with what trial_code/describe.py --whole has written.")],
    space: Annotated[Path, typer.Option(help="The search space file (JSON) that was measured in.")],
    state: Annotated[
        Path,
        typer.Option(
            help="A new state file, to be named as warm_start or begun with, or one with warm-ups in other spaces."
        ),
    ],
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Learn from measured pairs, and begin a state with it: both networks, the sub-data-sets, their results.

    Beside the state NAME.sqlite it writes NAME.projection.json, which clients of the state need to describe their data:
    they name it by projection=FILE in HYPERFD_PRIVACY.

    A state that has been warmed up in another space learns the new one beside it; its extractor stays.
    """
    from nni_hyperfd.platform import Platform, own_datasets
    from nni_hyperfd.privacy.projection import SUFFIX
    from nni_hyperfd.space import SearchSpace
    from nni_hyperfd.warmup import collect as measuring
    from nni_hyperfd.warmup import train as training
    from nni_hyperfd.warmup.pairs import PairError, PairFile

    console, file, definition = Console(), out / measuring.PAIRS, read_json(space)
    if not file.exists():
        stop(f"{file}: there is none; run 'hyperfd warmup collect' first")
    try:
        search_space = SearchSpace.from_nni(definition)
        data_sets = training.read(PairFile(file), features, search_space)
        platform = Platform(state)
        extractor = own_datasets.warm_extractor(platform, search_space)
        results = sum(len(one.performance) for one in data_sets)
        _print(console, f"{results} results on {len(data_sets)} sub-data-sets")
        began = time.monotonic()
        warm = training.train(data_sets, search_space, seed, extractor)
        projection = training.projection_of(data_sets, warm, state.with_suffix(SUFFIX))
        own_datasets.begin_with(platform, search_space, data_sets, warm, seed, projection)
    except (PairError, training.TrainError) as error:
        stop(str(error))
    checks = " ".join(f"{value:.4f}" for value in warm.ndcg)
    _print(console, f"NDCG of the results held out, before and after every check: {checks}")
    _print(
        console,
        f"{warm.ndcg[0]:.4f} before, {max(warm.ndcg):.4f} at best, {time.monotonic() - began:.0f} s: {state}",
    )


def _print(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True, highlight=False, markup=False)
