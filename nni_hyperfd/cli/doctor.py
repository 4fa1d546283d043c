"""`hyperfd doctor`: what is missing or wrong on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from nni_hyperfd.cli.console import console, say
from nni_hyperfd.cli.tune import Config, Options, SpaceOption, StartOption, tuning_errors


def doctor(
    data: Annotated[Path | None, typer.Argument(help="A data set, to measure the starting detector on.")] = None,
    space: SpaceOption = "hpo",
    start: StartOption = None,
    config: Config = None,
    port: Annotated[int, typer.Option(min=1, max=65534, help="Of NNI's web UI.")] = 8080,
    options: Options = "",
) -> None:
    """Look at everything that `hyperfd tune` needs: NNI, MMDetection, torch and its device, ports, disk, the start.

    With a data set, it also says how good the starting detector is on its validation split. It ends with status 1 if
    tuning cannot work here.
    """
    from nni_hyperfd.tuning import data_set, plan
    from nni_hyperfd.tuning.doctor import Level, examine, measure_start

    with tuning_errors(data or Path.cwd()):
        made = plan.make(space, start, config, options=options)
        table, wrong = Table("", "", ""), 0
        for finding in examine(Path.cwd(), made.start, port):
            table.add_row(finding.level.value, finding.subject, Text(finding.text, overflow="fold"))
            wrong += finding.level is Level.WRONG
        console.print(table)
        if data is not None and not wrong:
            with data_set.looked_at(data, say) as loaded:
                say(f"{made.start.weights.name} on its validation split:")
                say(measure_start(made.start, loaded.folder, options))
    if wrong:
        say(f"{wrong} to put right before anything can be tuned here.")
        raise SystemExit(1)
    say("Ready: hyperfd tune DATA")
