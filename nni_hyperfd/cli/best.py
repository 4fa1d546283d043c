"""`hyperfd best`: the detector of an experiment's best trial, as a folder to ship."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nni_hyperfd.cli.console import State, readable_errors, say, stop
from nni_hyperfd.platform import Platform, TaskView

TaskArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[TASK|EXPERIMENT]",
        help="Number of a task (`hyperfd tasks`), NNI's id of an experiment, or its folder.",
        show_default="the last task with a result",
    ),
]


def best(
    state: State,
    out: Annotated[Path, typer.Option(help="The folder to make; an earlier one of this command is replaced.")],
    task: TaskArgument = None,
) -> None:
    """Make a folder with the best detector of an experiment: weights, config, ONNX file, model card."""
    experiment, number = experiment_of(task, state)
    name = "" if number is None else f"task {number}"
    with readable_errors(out, "detector"):
        from nni_hyperfd.detector import best as writer

        detector = writer.write(experiment, out, say, name)
    boxes, scores = detector.onnx_difference
    test = "" if detector.test is None else f", {detector.test:.4f} on the test split"
    lines = (
        f"AP@50 {detector.before:.4f} before, {detector.validation:.4f} after on the validation split{test}",
        f"model.onnx differs from PyTorch by at most {boxes:.1e} pixels and {scores:.1e} in the scores",
        f"{detector.images_per_second:.1f} images/s on one core",
        f"{out / 'card.md'} has more. Next: hyperfd detect {out} IMAGES --draw drawn",
    )
    for line in lines:
        say(line)


def experiment_of(task: str | None, state: Path) -> tuple[str, int | None]:
    """The experiment that a command's user names, as its id or folder, and its task's number if the state has it.

    Args:
        task: number of a task, id or folder of an experiment; None for the last task with a result.
        state: the state file, which need not exist if an experiment is named.
    """
    known = [task for task in Platform(state).tasks() if task.dataset is None] if state.exists() else []
    chosen = _chosen(task, known)
    if chosen is not None:
        return (task if task is not None and Path(task).is_dir() else chosen.experiment), chosen.id
    if task is None:
        stop(f"state {state}: no task has a result yet; wait for the first trial, or name an experiment")
    return task, None


def _chosen(task: str | None, known: list[TaskView]) -> TaskView | None:
    if task is None:
        return next((each for each in reversed(known) if each.best is not None), None)
    names = (task, Path(task).name)
    return next((each for each in known if str(each.id) == task or each.experiment in names), None)
