"""`hyperfd init`: the experiment file alone, for `nnictl create`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nni_hyperfd.cli.console import say
from nni_hyperfd.cli.tune import (
    Budget,
    CaFile,
    Concurrency,
    Config,
    Options,
    PlatformOption,
    SpaceOption,
    StartOption,
    StateOption,
    TokenFile,
    tuning_errors,
)


def init(
    data: Annotated[Path, typer.Argument(help="Folder with train.json, val.json and images/.")],
    space: SpaceOption = "hpo",
    budget: Budget = 4,
    concurrency: Concurrency = 1,
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("experiment.yml"),
    start: StartOption = None,
    config: Config = None,
    state: StateOption = None,
    platform: PlatformOption = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    options: Options = "",
) -> None:
    """Write an NNI experiment file for a data set, ready for `nnictl create`; nothing is run."""
    from nni_hyperfd import files
    from nni_hyperfd.tuning import data_set, plan
    from nni_hyperfd.tuning.errors import TuningError

    with tuning_errors(out):
        if out.exists():
            raise TuningError(f"{out}: it exists, and is left as it is; name another file with --out")
        if data.is_dir() and not data_set.is_ready(data):
            raise TuningError(
                f"{data}: it has no train.json and val.json; run `hyperfd data convert LAYOUT {data} FOLDER` and name "
                "FOLDER, or let `hyperfd tune` do both"
            )
        loaded = data_set.load(data, say)
        experience = plan.experience(state, platform, token_file, ca_file)
        made = plan.make(space, start, config, budget, concurrency, experience, options)
        files.write_text(out, plan.as_yaml(made.experiment(loaded.folder), "init", out.name))
        say(f"{out}: run it with `nnictl create --config {out}`")
