"""The commands `hyperfd privacy ...`: what the data owner has decided, what was spent, what an attacker would gain."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.table import Table

from nni_hyperfd.cli.console import State, console, open_state, say, stop

_NOT_COVERED = {
    True: "APs, of which two digits leave; durations; whether the data set has changed; what it is like as a whole.",
    False: "APs, which leave exact; durations; whether the data set has changed; what it is like as a whole.",
}
"""By whether APs are rounded; docs/privacy.md has the whole list."""

_AUDITED = 1000  # images of a folder at most

privacy = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="See and test what leaves a data set.")


@privacy.command()
def show() -> None:
    """Print the settings of this user and what they mean, as a trial would find them here."""
    from nni_hyperfd.privacy import mechanism, settings

    owner = settings.of_owner()
    table = Table(show_header=False)
    if owner.off:
        table.add_row("description", "the exact mean of the image vectors, and exact counts: off")
    else:
        multiplier = mechanism.noise_multiplier(owner.epsilon, owner.delta)
        times = _descriptions(owner.total, owner.epsilon, owner.delta)
        table.add_row("protected", f"each {owner.unit.value}")
        table.add_row("one description", f"epsilon {owner.epsilon:g}, delta {owner.delta:g}")
        table.add_row("all of a data set", f"epsilon {owner.total:g}: {times} descriptions; sent again, one is free")
        table.add_row("noise", f"{multiplier:.3f} times what one {owner.unit.value} can change")
        table.add_row("not described", f"data sets of fewer than {owner.minimum} {owner.unit.value}s")
    table.add_row("APs", "rounded to two digits" if owner.rounds_ap else "exact")
    update = f"sent, to be averaged among {owner.among} or more" if owner.learn else "not sent"
    table.add_row("updates of the extractor", update)
    table.add_row("given to other owners", "the description, without a name" if owner.share else "nothing")
    console.print(table)


@privacy.command()
def ledger(data: Annotated[Path, typer.Argument(help="Folder of a data set.")]) -> None:
    """Print the privacy receipt of a data set: what was sent, what it has spent, what is left, what is not covered."""
    from nni_hyperfd.privacy import settings
    from nni_hyperfd.privacy.accounting import GaussianRelease, ZCDPAccountant
    from nni_hyperfd.privacy.release import DataSet, ledger_of

    owner = settings.of_owner()
    book = ledger_of(DataSet(data, ""), owner)
    table, accountant = Table("description", "images", "extractor", "epsilon", "in all"), ZCDPAccountant()
    for entry in sorted(book.entries(), key=lambda entry: entry.when):
        alone = ZCDPAccountant()
        for each in (alone, accountant):
            each.compose(GaussianRelease(entry.multiplier))
        epsilons = [f"{each.epsilon(owner.delta):.2f}" for each in (alone, accountant)]
        table.add_row(entry.when, f"{entry.size} or more", entry.extractor[:12], *epsilons)
    console.print(table)
    spent = f"{accountant.epsilon(owner.delta):.2f} spent at delta {owner.delta:g}"
    if owner.off:
        lines = [f"{spent}, epsilon does not bound what leaves: off. Exact descriptions and updates are not counted."]
    else:
        left = _descriptions(owner.total, owner.epsilon, owner.delta, accountant.rho)
        lines = [f"{spent}, of epsilon {owner.total:g}; {left} more descriptions of epsilon {owner.epsilon:g} are left"]
        lines.append("Sent each time: 64 numbers that follow from the noised ones, and the rounded number of images.")
    lines.append(f"Not covered: {_NOT_COVERED[owner.rounds_ap]}")
    for line in lines:
        say(line)


def _descriptions(total: float, epsilon: float, delta: float, spent: float = 0.0) -> int:
    """How many descriptions of this epsilon still fit into the total, after a sum of rho."""
    from nni_hyperfd.privacy.accounting import rho
    from nni_hyperfd.privacy.mechanism import noise_multiplier

    left = rho(noise_multiplier(total, delta)) * (1 + 1e-9) - spent
    return max(0, int(left / rho(noise_multiplier(epsilon, delta))))


@privacy.command()
def audit(
    data: Annotated[
        list[Path],
        typer.Argument(help="Folders of data sets, or their image features (trial_code/describe.py --whole)."),
    ],
    state: Annotated[Path | None, typer.Option(help="State with the extractor; the package's own by default.")] = None,
    runs: Annotated[int, typer.Option(min=20, help="Simulated data sets for each figure.")] = 300,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Attack descriptions of data sets before any is sent, without noise and under this user's settings.

    Nothing is sent, and nothing is spent. Of a folder, at most 1000 training images take part.
    """
    from nni_hyperfd.experiment.class_args import WARM_STATE
    from nni_hyperfd.privacy import auditing, settings
    from nni_hyperfd.privacy.projection import ProjectionError
    from nni_hyperfd.state.store import head_of
    from nni_hyperfd.tuning.errors import TuningError

    owner = settings.of_owner()
    if owner.off:
        stop("the settings are off, so there is nothing to compare; name an epsilon in HYPERFD_PRIVACY for the audit")
    head = head_of(state or WARM_STATE)
    if head is None:
        stop(f"state {state}: it has no extractor of this format; name another by --state")
    try:
        with TemporaryDirectory() as folder:
            files = [_described(path, Path(folder)) if path.is_dir() else path for path in data]
            vectors = auditing.read(files, head[0], owner)
        found = auditing.audit(vectors, owner, runs, seed)
    except (ProjectionError, TuningError, auditing.AuditError) as error:
        stop(str(error))
    table = Table("attack", "guessing", "without noise", f"epsilon {owner.epsilon:g}", "bound")
    for row in found:
        numbers = ("" if number is None else f"{number:.3f}" for number in (row.off, row.on, row.bound))
        table.add_row(row.attack, f"{row.guessing:g}", *numbers)
    console.print(table)


def _described(data: Path, out: Path) -> Path:
    """The image features of a data set's folder."""
    from nni_hyperfd.tuning import image_features

    say(f"Describing {data} ...")
    return image_features.write(data, out, _AUDITED)


@privacy.command()
def forget(
    data: Annotated[Path, typer.Argument(help="Folder of a data set.")],
    state: State,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove what trials have left of a data set here, and its tasks from the state.

    That is cached image features and sizes, and of every NNI experiment with trials on it the whole folder: records,
    logs, checkpoints, tuned detectors. The ledger stays: what was sent is known, and what was spent is spent.
    """
    from nni.tools.nnictl.config_utils import Experiments

    from nni_hyperfd.datasets.decoded import cache_file
    from nni_hyperfd.experiment import launch
    from nni_hyperfd.platform import forgetting
    from nni_hyperfd.privacy import traces

    found, listed = traces.left(data), Experiments()
    experiments = sorted({trace.experiment for trace in found if trace.experiment is not None})
    if running := [each for each in experiments if launch.find(each, 0, Path()) is not None]:
        stop(f"experiment {running[0]} with trials on {data} has not ended; run 'nnictl stop {running[0]}' first")
    known = listed.get_all_experiments()
    folders = [Path(known[each]["logDir"], each) for each in experiments if each in known]
    paths = [path for path in (*folders, *(Path(trace.path) for trace in found), cache_file(data)) if path.exists()]
    for path in paths:
        say(str(path))
    say(f"{len(paths)} files and folders, and in {state} the tasks of: {', '.join(experiments) or 'none'}")
    if not yes:
        typer.confirm("Remove them for good?", abort=True)
    try:
        traces.remove(paths)
    except OSError as error:
        stop(f"{error.filename}: {error.strerror}; put it right and repeat the command")
    deleted = forgetting.forget(open_state(state), experiments) if state.exists() and experiments else None
    forgotten = set() if deleted is None else {*deleted.experiments}
    for each in experiments:
        listed.remove_experiment(each)
    traces.drop(data, forgotten)
    say(f"Removed, and {len(forgotten)} tasks in {state}. The ledger stays: what was spent is spent.")
    for line in deleted.sentences() if deleted is not None and forgotten else []:
        say(line)
    if elsewhere := sorted(set(experiments) - forgotten):
        say(f"Tasks of {', '.join(elsewhere)} are not in it: if they are in another state, repeat with --state.")
