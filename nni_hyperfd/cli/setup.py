"""The commands for a first start."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nni_hyperfd.cli.console import console, stop


def synthetic(
    folder: Path,
    domain: Annotated[str, typer.Option(help="Which kind of scenes; nni_hyperfd.datasets.synthetic lists them.")],
    images: Annotated[tuple[int, int, int], typer.Option(help="Training, validation and test images.")] = (64, 32, 0),
    size: Annotated[int, typer.Option(min=64, help="Side of an image in pixels.")] = 160,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Draw a synthetic face data set, for trying things out without any real image."""
    from nni_hyperfd.datasets.synthetic import make

    try:
        make(folder, domain, images=images, size=size, seed=seed)
    except (ValueError, OSError) as error:
        stop(str(error))
    console.print(f"Synthetic scenes of the domain {domain} in {folder}")


def register() -> None:
    """Make `tuner: {name: HyperFD}` known to the NNI of this environment."""
    from nni.tools.package_utils import AlgoMeta, register_algo_meta

    meta = {"builtinName": "HyperFD", "className": "nni_hyperfd.HyperFDAdvisor", "algoType": "advisor"}
    register_algo_meta(AlgoMeta.load(meta))
    console.print("Registered. In the experiment's configuration: tuner: {name: HyperFD, classArgs: {...}}")
