"""What inherited weights are worth: the same short fine-tuning of random architectures from them and from nothing.

    python compare_starts.py --data FOLDER --weights LARGEST.safetensors --out starts.csv [--architectures 10] ...

LARGEST is what pretrain.py made with configs/retinaface_proxylessnas.py. Run it for one data set after the other with
the same CSV file: each run adds a row when it has ended, runs that have a row are not done again, and what is printed
at the end is about the whole file.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from retinaface.convert import weights_file
from retinaface.job import CONFIGS, Job
from retinaface.parameters import apply_parameters
from retinaface.rows import RowFile
from retinaface.training import train

from nni_hyperfd.datasets import coco
from nni_hyperfd.method.weights import sha256
from nni_hyperfd.space.architecture import PARAMETERS, Architecture
from nni_hyperfd.space.architecture_space import ArchitectureSpace

STARTS = ("inherited", "random")
RUN = ("data", "settings", "architecture", "seed", "start")
COLUMNS = (*RUN, "mflops", "ap50", "epochs", "seconds")


def main(argv: list[str] | None = None) -> None:
    parser = Job.parser(__doc__.splitlines()[0])
    parser.set_defaults(config=CONFIGS / "retinaface_proxylessnas.py")
    parser.add_argument("--out", type=Path, required=True, help="CSV file that the rows are added to")
    parser.add_argument("--architectures", type=int, default=10, help="how many; for every data set the same ones")
    parser.add_argument("--seeds", type=int, default=1, help="how many runs of each, with --seed and those after it")
    parser.add_argument("--optimizer", default="Adam", help="SGD or Adam")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    arguments = parser.parse_args(argv)
    if arguments.weights is None:
        parser.error("--weights: name the file with the largest network's weights")
    job = Job.from_arguments(arguments)
    optimizer = {"optimizer": arguments.optimizer, "learning_rate": arguments.learning_rate}
    seeds = range(job.seed, job.seed + arguments.seeds)
    compare(job, optimizer, architectures(arguments.architectures), seeds, arguments.out)
    for line in summary(RowFile(arguments.out, COLUMNS).rows):
        print(line)


def architectures(n: int) -> list[dict[str, int]]:
    """The parameters of `n` architectures below the FLOPs limit; fewer are the first of more."""
    space = ArchitectureSpace.of({name: parameter.values for name, parameter in PARAMETERS.items()})
    rng = np.random.default_rng(0)
    return [space.sample(rng) for _ in range(n)]


def compare(job: Job, optimizer: dict[str, Any], chosen: list[dict[str, int]], seeds: range, out: Path) -> None:
    """Do the runs that the file does not have."""
    splits = [coco.load(job.data, split) for split in ("train", "val")]
    # Everything beside a run's own columns that its result depends on.
    given = {name: value for name, value in vars(job).items() if name not in ("data", "seed") and value is not None}
    given |= {"weights": sha256(weights_file(job.weights).read_bytes())[:8], "config": job.config.stem, **optimizer}
    settings = " ".join(f"{name}={value}" for name, value in given.items())
    file = RowFile(out, COLUMNS)
    done = {tuple(row[name] for name in RUN) for row in file.rows}
    for seed, parameters, start in itertools.product(seeds, chosen, STARTS):
        architecture = Architecture.of(parameters)
        run = (job.data.resolve().name, settings, str(architecture), str(seed), start)
        if run in done:
            continue
        own = dataclasses.replace(job, seed=seed, weights=job.weights if start == "inherited" else None)
        with TemporaryDirectory() as folder:
            outcome = train(apply_parameters(own.load_config(), {**parameters, **optimizer}), *splits, Path(folder))
        mflops, seconds = round(architecture.flops / 1e6, 1), round(outcome.seconds, 1)
        values = (*run, mflops, round(outcome.best, 4), outcome.epochs, seconds)
        file.add(dict(zip(COLUMNS, values, strict=True)))
        print(f"{run[0]} seed {seed} {start}: AP@50 {outcome.best:.3f} ({mflops} M FLOPs, {seconds} s)", flush=True)


def summary(measured: list[dict[str, str]]) -> Iterator[str]:
    """For each data set and settings: both starts' mean AP@50, and their paired difference with its standard error."""
    groups = defaultdict(lambda: defaultdict(dict))
    for row in measured:
        groups[row["data"], row["settings"]][row["architecture"], row["seed"]][row["start"]] = float(row["ap50"])
    for (data, settings), runs in groups.items():
        pairs = [[run[start] for start in STARTS] for run in runs.values() if len(run) == len(STARTS)]
        if not pairs:
            continue
        inherited, nothing = (statistics.mean(column) for column in zip(*pairs, strict=True))
        gains = [a - b for a, b in pairs]
        error = statistics.stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else math.nan
        yield (
            f"{data} ({settings}): {len(pairs)} pairs, AP@50 {inherited:.3f} inherited, {nothing:.3f} random; "
            f"gain {inherited - nothing:.3f} ± {error:.3f}, above 0 in {sum(gain > 0 for gain in gains)}"
        )


if __name__ == "__main__":
    main()
