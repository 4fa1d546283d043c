"""`hyperfd tune`: from a data set to a detector that runs without us."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from nni_hyperfd.cli.console import changing_line, say, stop

Data = Annotated[Path, typer.Argument(help="Folder with images and annotations, in any layout that is known.")]
SpaceOption = Annotated[str, typer.Option(help="hpo, nas, joint, extended, or a file with a search space of NNI.")]
Budget = Annotated[int, typer.Option(min=1, help="Configurations to try.")]
Concurrency = Annotated[int, typer.Option(min=1, help="Trials side by side.")]
StartOption = Annotated[
    Path | None, typer.Option("--start", help="Weights to start from.", show_default="those of the package")
]
Config = Annotated[
    Path | None, typer.Option(help="MMDetection config of --start.", show_default="the one that belongs to the space")
]
Layout = Annotated[
    str | None, typer.Option(help="Layout of the annotations (hyperfd data convert).", show_default="recognised")
]
Category = Annotated[list[str] | None, typer.Option(help="Category that counts as a face; may be repeated.")]
StateOption = Annotated[
    Path | None, typer.Option("--state", help="The state file.", show_default="in the user's data folder")
]
PlatformOption = Annotated[
    str | None, typer.Option("--platform", help="Address of a server, in place of --state.", show_default=False)
]
TokenFile = Annotated[Path | None, typer.Option(help="File with the token for --platform.", show_default=False)]
CaFile = Annotated[
    Path | None, typer.Option(help="Certificates to check that of --platform against.", show_default="the system's")
]
Options = Annotated[str, typer.Option(help="More options of finetune.py, such as '--size 320 --epochs 5'.")]


def tune(
    data: Data,
    space: SpaceOption = "hpo",
    budget: Budget = 4,
    concurrency: Concurrency = 1,
    out: Annotated[
        Path | None, typer.Option(help="Folder of results; the same one goes on.", show_default="DATA-tuned, here")
    ] = None,
    start: StartOption = None,
    config: Config = None,
    layout: Layout = None,
    category: Category = None,
    state: StateOption = None,
    platform: PlatformOption = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65534, help="Of NNI's web UI.", show_default="8080, or a free one")
    ] = None,
    options: Options = "",
) -> None:
    """Tune a face detector on a data set: check and convert it, run the trials, write detector and report.

    Stop it with Ctrl-C at any time, or let it be killed: the same command goes on.
    """
    from nni_hyperfd.tuning import data_set, plan, run
    from nni_hyperfd.tuning.finish import finish

    target = out or Path(f"{data.resolve().name}-tuned")
    with tuning_errors(target):
        _check_machine(target)
        experience = plan.experience(state, platform, token_file, ca_file)
        made = plan.make(space, start, config, budget, concurrency, experience, options)
        with run.workplace(target):
            prepared = data_set.prepare(data, target / "data", say, layout, category or ())
            with changing_line("NNI starts") as show:
                record, progress = run.run(made, prepared, target, port, say, show)
            if progress is None:
                say(f"Experiment {record.experiment} has ended before; to tune anew, name another folder with --out")
            for line in finish(record.folder(target), target, None if state is None else state.expanduser(), say):
                say(line)


def _check_machine(folder: Path) -> None:
    from nni_hyperfd.tuning.doctor import Level, blocking

    for finding in blocking(folder):
        if finding.level is Level.WRONG:
            stop(f"{finding.subject}: {finding.text}; `hyperfd doctor` looks at everything")


@contextmanager
def tuning_errors(folder: Path) -> Iterator[None]:
    """End the command with one line on stderr for an error that its user can correct.

    Args:
        folder: what is named when the system does not say which file it could not use.
    """
    from nni_hyperfd.experiment.launch import Interrupted, LaunchError
    from nni_hyperfd.files import FolderError
    from nni_hyperfd.tuning.errors import TuningError

    try:
        yield
    except (TuningError, LaunchError, FolderError) as error:
        message = str(error)
    except OSError as error:
        message = f"{error.filename or folder}: {error.strerror}; make room or correct it, and the same command goes on"
    except Interrupted as interrupted:
        say("Stopped, and all that it had started; the same command goes on.")
        raise SystemExit(interrupted.exit_code) from None
    except KeyboardInterrupt:
        stop("stopped; the same command goes on")
    else:
        return
    stop(message)
