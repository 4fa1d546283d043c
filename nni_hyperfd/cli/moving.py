"""The commands that bring experience into a state or take it out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nni_hyperfd.cli.console import State, console, open_state, read_json, stop
from nni_hyperfd.files import write_json
from nni_hyperfd.platform import Platform, moving, own_datasets
from nni_hyperfd.space import SearchSpace


def export_experience(file: Path, state: State) -> None:
    """Write all experience as JSON: tasks, meta-features, configurations, results, and what was learned from them."""
    document = moving.export(open_state(state))
    try:
        write_json(file, document)
    except OSError as error:
        stop(f"{file}: {error.strerror}")
    console.print(f"{len(document['tasks'])} tasks written to {file}")


def import_experience(file: Path, state: State) -> None:
    """Add the experience of an exported file. Tasks that the state has already are left as they are."""
    added = moving.import_(Platform(state), read_json(file))
    console.print(f"{added} tasks added to {state}")


def offline(
    files: list[Path],
    state: State,
    private: Annotated[bool, typer.Option("--private", help="Never give anything of them to clients.")] = False,
) -> None:
    """Add data sets of the platform's own (D_off), as trial_code/describe.py writes them."""
    platform = Platform(state)
    for file in files:
        try:
            own_datasets.add(platform, file.stem, file.read_bytes(), private)
        except OSError as error:
            stop(f"{file}: {error.strerror}")
    console.print(f"{len(files)} offline data sets added to {state}")


def relearn(
    state: State, space: Annotated[Path, typer.Option(help="NNI search space file (JSON) whose encoder is to learn.")]
) -> None:
    """Learn a search space's configuration encoder anew from all results in the state."""
    platform, search_space = open_state(state), SearchSpace.from_nni(read_json(space))
    if not any(task.space.signature == search_space.signature for task in platform.tasks()):
        stop(f"state {state}: it has no task in the search space of {space}; name the file of an experiment in it")
    ndcg = platform.learning.learn_anew(search_space)
    if ndcg:
        checks = " ".join(f"{value:.4f}" for value in ndcg)
        console.print(f"NDCG of the results held out, before and after every check: {checks}", soft_wrap=True)
    console.print(f"The encoder of {search_space.label} has learned anew from the results in {state}")
