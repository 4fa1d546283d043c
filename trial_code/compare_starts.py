"""Measures what inherited weights are worth: short fine-tuning of random architectures, with and without them.

    python compare_starts.py --data FOLDER --out starts.csv [--architectures 10] [--against OTHER.safetensors] ...

Weights are inherited from the network that comes with configs/retinaface_proxylessnas.py, or from the one of --weights.
With --against, they are compared with those inherited from another network, in place of random ones. Run the script for
several data sets with the same CSV file: each finished run adds a row, runs that have a row are skipped, and the
summary at the end covers the whole file.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from retinaface.options import CONFIGS, Options, run_script

from nni_hyperfd.datasets import coco
from nni_hyperfd.files import RowFile
from nni_hyperfd.space import PARAMETERS, Architecture, ArchitectureSpace

if TYPE_CHECKING:
    from retinaface.runs import Outcome

INHERITED, RANDOM = "inherited", "random"
RUN = ("data", "settings", "architecture", "seed", "start")
COLUMNS = (*RUN, "mflops", "ap50", "epochs", "seconds")


def main(argv: list[str] | None = None) -> None:
    """Do the missing runs and print the summary."""
    parser = Options.parser(__doc__)
    parser.set_defaults(config=CONFIGS / "retinaface_proxylessnas.py")
    parser.add_argument("--out", type=Path, required=True, help="CSV file that the rows are added to")
    parser.add_argument("--architectures", type=int, default=10, help="how many; the same ones for every data set")
    parser.add_argument("--against", help="weights to compare with (default: random ones)")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each, with --seed and the seeds after it")
    parser.add_argument("--optimizer", default="Adam", help="SGD or Adam")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    arguments = parser.parse_args(argv)
    options = Options.from_arguments(arguments).with_start()
    optimizer = {"optimizer": arguments.optimizer, "learning_rate": arguments.learning_rate}
    seeds = range(options.seed, options.seed + arguments.seeds)
    compare(options, optimizer, architectures(arguments.architectures), seeds, arguments.out, arguments.against)
    for line in summary(RowFile(arguments.out, COLUMNS).rows):
        print(line)


def architectures(number: int) -> list[dict[str, int]]:
    """Parameters of random architectures below the FLOPs limit; the first ones are the same for every `number`."""
    space = ArchitectureSpace.of({name: parameter.values for name, parameter in PARAMETERS.items()})
    rng = np.random.default_rng(0)
    return [space.sample(rng) for _ in range(number)]


def compare(
    options: Options,
    optimizer: Mapping[str, Any],
    chosen: list[dict[str, int]],
    seeds: range,
    out: Path,
    against: str | None = None,
) -> None:
    """Do the runs that the CSV file does not have.

    Args:
        options: the data set, the weights of the largest architecture, and how to train.
        optimizer: parameters of all runs besides the architecture.
        chosen: parameters of the architectures.
        seeds: seeds of the runs.
        out: the CSV file.
        against: weights to compare those of `options` with; random ones if None.
    """
    starts = {INHERITED: options.weights, _name(against): against}
    train_split, val_split = (coco.load(options.data, split) for split in ("train", "val"))
    settings = _settings(options, optimizer)
    file = RowFile(out, COLUMNS)
    done = {tuple(row[name] for name in RUN) for row in file.rows}
    for seed, parameters, start in itertools.product(seeds, chosen, starts):
        architecture = Architecture.of(parameters)
        run = (options.data.resolve().name, settings, str(architecture), str(seed), start)
        if run in done:
            continue
        own = dataclasses.replace(options, seed=seed, weights=starts[start])
        outcome = _train(own, {**parameters, **optimizer}, train_split, val_split)
        mflops, seconds = round(architecture.flops / 1e6, 1), round(outcome.seconds, 1)
        values = (*run, mflops, round(outcome.best, 4), outcome.epochs, seconds)
        file.add(dict(zip(COLUMNS, values, strict=True)))
        print(f"{run[0]} seed {seed} {start}: AP@50 {outcome.best:.3f} ({mflops} M FLOPs, {seconds} s)", flush=True)


def _name(against: str | None) -> str:
    """The other start in the rows: the name of its file and the beginning of its sha256."""
    if against is None:
        return RANDOM
    from retinaface.weight_files import weights_file

    from nni_hyperfd.weights import sha256

    path = weights_file(against)
    return f"{path.stem}-{sha256(path.read_bytes())[:8]}"


def _settings(options: Options, optimizer: Mapping[str, Any]) -> str:
    """Everything that the result of a run depends on, besides the other columns of `RUN`."""
    from retinaface.weight_files import weights_file

    from nni_hyperfd.weights import sha256

    given = {name: value for name, value in vars(options).items() if name not in ("data", "seed") and value is not None}
    weights = weights_file(options.require_weights()).read_bytes()
    given |= {"weights": sha256(weights)[:8], "config": options.config.stem, **optimizer}
    return " ".join(f"{name}={value}" for name, value in given.items())


def _train(
    options: Options, parameters: Mapping[str, Any], train_split: coco.CocoSplit, val_split: coco.CocoSplit
) -> Outcome:
    from retinaface.parameters import apply_parameters
    from retinaface.training import train

    with TemporaryDirectory() as folder:
        return train(apply_parameters(options.load_config(), parameters), train_split, val_split, Path(folder))


def summary(rows: list[dict[str, str]]) -> Iterator[str]:
    """For each data set, settings and other start, the mean AP@50 of both starts, and their paired difference.

    Args:
        rows: rows of the CSV file.

    Yields:
        A line of text; the difference has its standard error.
    """
    inherited = {_pair(row): float(row["ap50"]) for row in rows if row["start"] == INHERITED}
    groups: dict[tuple[str, str, str], list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        if row["start"] != INHERITED and _pair(row) in inherited:
            groups[row["data"], row["settings"], row["start"]].append((inherited[_pair(row)], float(row["ap50"])))
    for (data, settings, start), pairs in groups.items():
        ours, others = (statistics.mean(column) for column in zip(*pairs, strict=True))
        gains = [a - b for a, b in pairs]
        error = statistics.stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else math.nan
        yield (
            f"{data} ({settings}): {len(pairs)} pairs, AP@50 {ours:.3f} {INHERITED}, {others:.3f} {start}; "
            f"gain {ours - others:.3f} ± {error:.3f}, above 0 in {sum(gain > 0 for gain in gains)}"
        )


def _pair(row: Mapping[str, str]) -> tuple[str, ...]:
    """What both runs of a pair have in common."""
    return tuple(row[name] for name in RUN if name != "start")


if __name__ == "__main__":
    run_script(main)
