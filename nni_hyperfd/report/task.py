"""The page of one task, on the client's side: what was gained on his own images, and why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nni_hyperfd.files import FolderError
from nni_hyperfd.platform import default_state
from nni_hyperfd.report import of_images, of_platform, of_trials, page
from nni_hyperfd.report.page import MissingError, Panel, panel
from nni_hyperfd.report.subject import Subject


def write(
    experiment: Path | str,
    out: Path,
    state: Path | None = None,
    price: float | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> Path:
    """Write the page of an experiment, one HTML file without links to other files.

    Args:
        experiment: NNI's id of an experiment, or its folder (`EXPERIMENT_DIR/ID`).
        out: the file to write.
        state: the state in which the experiment's task is; the user's own by default.
        price: of an hour of a trial, in any currency.
        progress: called with each step that takes long.

    Returns:
        The file.

    Raises:
        FolderError: nothing of the experiment has ended yet, or it is known neither here nor in the state.
        StateError: the state cannot be read.
    """
    page.require()
    subject = Subject(experiment, default_state() if state is None else state, progress)
    _check_ended(subject)
    title = f"Face detector of {f'task {subject.task.id}' if subject.has_task else f'experiment {subject.id}'}"
    return page.write(out, title, _lead(subject), _panels(subject, price))


def _check_ended(subject: Subject) -> None:
    if subject.has_task or subject.trials:
        if any(attempt.ap is not None for attempt in subject.attempts):
            return
        raise FolderError(f"experiment {subject.id}: no trial has a result yet; wait for the first one to end")
    try:
        _ = subject.folder
    except MissingError as error:
        raise FolderError(f"experiment {subject.id}: it is not in the state {subject.state}. {error}") from error
    raise FolderError(f"experiment {subject.id}: no trial has a result yet; wait for the first one to end")


def _lead(subject: Subject) -> list[str]:
    """What came out, in sentences."""
    aps = [attempt.ap for attempt in subject.attempts if attempt.ap is not None]
    best = max(aps) if subject.maximize else min(aps)
    failed = sum(attempt.status.startswith("failed") for attempt in subject.attempts)
    many = f"{len(aps)} trial{'s' * (len(aps) != 1)}{f' ({failed} more failed)' if failed else ''}"
    lines = []
    if subject.baseline is None:
        lines.append(f"The best of {many} came to an AP@50 of {best:.3f} on the validation split.")
    else:
        lines.append(
            f"AP@50 on the validation split: {subject.baseline:.3f} before fine-tuning, {best:.3f} after the best of "
            f"{many}."
        )
    try:
        test = {name: found["test"].ap() for name, found in subject.matched.items() if "test" in found}
        if test and test["before"] is not None:
            lines.append(
                f"On the test split, which chose nothing: {test['before']:.3f} before, {test['after']:.3f} after."
            )
        lines.append(
            "This page was made on the machine of the trials and shows images of the data set with their file names: "
            "it is for the data's owner, and nothing of it was sent anywhere."
        )
    except MissingError:
        pass
    return lines


def _panels(subject: Subject, price: float | None) -> list[Panel]:
    return [
        panel(
            "Before and after",
            "Validation images, those with the most missed faces after fine-tuning first, then by false detections. "
            "Each detector is shown at its best F1.",
            lambda: of_images.detections(subject),
        ),
        panel(
            "Precision and recall",
            "A detection is right if its IoU with a face is at least 0.5. The trial was chosen, and the threshold set, "
            "on the validation split; figures of the test split are the honest ones.",
            lambda: of_images.precision_and_recall(subject),
        ),
        panel(
            "Which faces are found",
            "Faces of other sizes are ignored in each bar; a group of few faces says little.",
            lambda: of_images.by_faces(subject),
        ),
        panel(
            "Trials and time",
            "The dashed line is the detector before fine-tuning.",
            lambda: of_trials.progress(subject),
        ),
        panel(
            "Configurations",
            "What was expected of each when it was picked, in normal scores (0: the middle of the candidates, 1: "
            "better than 84 % of them), and what came out.",
            lambda: of_trials.configurations(subject),
        ),
        panel(
            "Parallel coordinates",
            "A line is a trial, from its parameters to its AP@50; the stronger its colour, the better.",
            lambda: of_trials.parallel(subject),
        ),
        panel(
            "Importance of the parameters",
            "Share of the variance of results within a data set that a parameter alone explains, less what chance "
            "gives.",
            lambda: of_trials.importance(subject),
        ),
        panel(
            "Nearest data sets",
            "By the distance of their meta-features, and by how much a ranking leans on each.",
            lambda: of_platform.neighbours(subject),
        ),
        panel(
            "What left this machine",
            "What the platform holds of the data set, what trials sent as metrics, and what the privacy ledger says.",
            lambda: of_platform.what_left(subject),
        ),
        panel(
            "Time and cost",
            "From when a trial was handed out until it ended.",
            lambda: of_platform.time_and_cost(subject, price),
        ),
    ]
