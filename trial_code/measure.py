"""Measures a lookup table: configurations of a search space, fine-tuned, validated and tested on many data sets.

    python measure.py --data FOLDER --space ../search_spaces/hpo.json --out FOLDER [--configurations 60]
        [--only NAME ...] [--repeated 10] [--best 0] [--seeds 3] [--processes 2] [--size 160] [--epochs 4] ...

--data is a folder of data sets. Each finished trial is a row of OUT/trials.csv. A trial that fails is a row with the
reason, and does not end the run. Whenever the run is stopped, by Ctrl-C or by a kill, it has measured about as many
trials on each data set, and the same command continues; more configurations, seeds or data sets may be added. To
repeat trials, remove their rows. `hyperfd table OUT TABLE` turns the folder into a table for `hyperfd benchmark`.

The trials are done by several processes of one thread each, on the GPU if there is one.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import gc
import itertools
import json
import multiprocessing
import os
import signal
import sys
import time
import warnings
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from importlib.metadata import version
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, cast

import numpy as np
from retinaface.folders import data_sets
from retinaface.options import Options, ScriptError, run_script

from nni_hyperfd.benchmark.measured import COLUMNS, FAILED, KEY, MEASURED, START
from nni_hyperfd.benchmark.tables import FORMAT
from nni_hyperfd.datasets import coco
from nni_hyperfd.files import RowFile, locked, note
from nni_hyperfd.space import PARAMETERS, Architecture, Configuration, SearchSpace

SPLITS = ("train", "val", "test")
KILLED = -signal.SIGKILL
"""Exit code of a process that the system has killed, usually for lack of memory."""

Key = tuple[str, str, int]
"""Data set, configuration and seed of a trial."""


class Measurement(NamedTuple):
    """One trial to measure.

    Attributes:
        options: data set, seed, starting detector and how to train.
        parameters: the configuration; None measures the starting detector without fine-tuning.
    """

    options: Options
    parameters: Configuration | None


def main(argv: list[str] | None = None) -> None:
    """Measure the missing trials."""
    arguments = _parse(argv)
    options = Options.from_arguments(arguments).with_start()
    space = read_space(arguments.space)
    configurations = drawn(space, arguments.configurations)
    folders = data_sets(options.data.resolve(), "test", arguments.only)
    with locked(arguments.out):
        note_all(arguments.out, options, space, configurations, folders)
        seeds = range(options.seed, options.seed + arguments.seeds)
        rows = RowFile(arguments.out / "trials.csv", COLUMNS)

        def run_all(keys: Iterable[Key]) -> None:
            trials = {
                (domain, name, seed): Measurement(
                    dataclasses.replace(options, data=folders[domain], seed=seed), configurations.get(name)
                )
                for domain, name, seed in keys
            }
            run(trials, rows, arguments.processes)

        try:
            run_all(in_turn(list(folders), list(configurations), max(arguments.repeated, 0), seeds))
            if arguments.best:
                run_all(repeats_of_best(rows.rows, list(folders), list(configurations), arguments.best, seeds))
        except KeyboardInterrupt:
            sys.exit("measure.py: stopped; the same command goes on.")


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Options.parser(__doc__)
    parser.set_defaults(workers=0)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder for the rows and for what they were measured with")
    add("--space", type=Path, required=True, help="NNI search space file (JSON)")
    add("--configurations", type=int, default=60, help="how many, drawn at random; fewer are the first of more")
    add("--only", nargs="+", help="names of the data sets to use; all by default")
    add("--repeated", type=int, default=10, help="how many of the first configurations are measured with other seeds")
    add("--best", type=int, default=0, help="how many are measured with other seeds on the data sets they do best on")
    add("--seeds", type=int, default=3, help="seeds of the repeated configurations, --seed and those after it")
    add("--processes", type=int, default=2, help="number of simultaneous trials, each on one thread")
    arguments = parser.parse_args(argv)
    for name in ("configurations", "seeds", "processes"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} must be 1 or more")
    return arguments


def read_space(path: Path) -> SearchSpace:
    """The search space in a file.

    Raises:
        ScriptError: the file cannot be read as a search space.
    """
    try:
        return SearchSpace.from_nni(json.loads(path.read_text()))
    except (OSError, ValueError) as error:  # SpaceError is a ValueError
        raise ScriptError(f"--space: {path} cannot be read as a search space: {error}") from error


def drawn(space: SearchSpace, number: int) -> dict[str, Configuration]:
    """Random configurations of a space, by names that are the same in every run.

    Raises:
        ScriptError: the space has fewer configurations.
    """
    if number > space.size:
        raise ScriptError(f"the space has {space.size:.0f} configurations only; lower --configurations.")
    return {f"c{place:04d}": found for place, found in enumerate(space.sample(number, np.random.default_rng(0)))}


def note_all(
    out: Path,
    options: Options,
    space: SearchSpace,
    configurations: Mapping[str, Configuration],
    folders: Mapping[str, Path],
) -> None:
    """Check what all trials need, and record everything that results depend on.

    Args:
        out: folder of the run.
        options: starting detector and how to train.
        space: the search space.
        configurations: configurations by name.
        folders: data sets by name.

    Raises:
        FolderError: the folder has results of other settings; the message names them.
    """
    from retinaface.parameters import apply_parameters

    config = options.load_config()
    for parameters in configurations.values():
        apply_parameters(config, parameters)
    note(out / "settings.json", _settings(options, space))
    note(out / "space.json", space.definition)
    note(out / "configurations.json", configurations)
    note(out / "domains.json", {name: _domain(folder, options.strict) for name, folder in folders.items()})


def _settings(options: Options, space: SearchSpace) -> dict[str, Any]:
    import mmdet
    from retinaface.weight_files import weights_file

    from nni_hyperfd.weights import sha256

    sizes = {name: value for name, value in vars(options).items() if name not in ("data", "config", "weights")}
    settings = {"format": FORMAT, "space": space.label, "kind": space.kind, "config": options.config.stem}
    settings |= {"weights": sha256(weights_file(options.require_weights()).read_bytes()), **sizes}
    # Each of the packages that provide mmdet has its own name in the metadata, so the module is asked.
    return settings | {name: version(name) for name in ("nni-hyperfd", "torch")} | {"mmdet": mmdet.__version__}


def _domain(folder: Path, strict: bool) -> dict[str, Any]:
    """Number of training images and boxes of a data set, and a fingerprint of all its splits."""
    from nni_hyperfd.weights import sha256

    splits = [coco.load(folder, split, strict=strict) for split in SPLITS]
    fingerprints = "".join(split.fingerprint() for split in splits)
    counts = {"images": splits[0].num_images, "boxes": splits[0].num_boxes}
    return {**counts, "fingerprint": sha256(fingerprints.encode())}


def in_turn(
    domains: Sequence[str], configurations: Sequence[str], repeated: int, seeds: Sequence[int]
) -> Iterator[Key]:
    """Keys of all trials, in an order that treats all data sets alike wherever it is cut off.

    First come the starting detector and every configuration once, then the first configurations with the other seeds.

    Args:
        domains: names of the data sets.
        configurations: names of the configurations.
        repeated: how many of the first configurations are measured with other seeds.
        seeds: the seeds.
    """
    yield from ((domain, name, seeds[0]) for name in (START, *configurations) for domain in domains)
    for name, seed in itertools.product(configurations[:repeated], seeds[1:]):
        yield from ((domain, name, seed) for domain in domains)


def repeats_of_best(
    rows: Iterable[Mapping[str, str]],
    domains: Sequence[str],
    configurations: Sequence[str],
    number: int,
    seeds: Sequence[int],
) -> Iterator[Key]:
    """Keys of the trials that repeat each data set's best configurations with the other seeds, best ones first.

    Args:
        rows: the trials that have been measured.
        domains: names of the data sets.
        configurations: names of the configurations.
        number: how many of each data set, by validation AP with the first seed.
        seeds: the seeds.
    """
    known: dict[str, dict[str, float]] = {domain: {} for domain in domains}
    for row in rows:
        first = row["status"] == MEASURED and int(row["seed"]) == seeds[0]
        if first and row["domain"] in known and row["configuration"] in configurations:
            known[row["domain"]][row["configuration"]] = float(row["val"])
    ranked = {domain: sorted(own, key=own.__getitem__, reverse=True) for domain, own in known.items()}
    for place, seed in itertools.product(range(number), seeds[1:]):
        yield from ((domain, best[place], seed) for domain, best in ranked.items() if place < len(best))


def run(measurements: Mapping[Key, Measurement], rows: RowFile, processes: int) -> None:
    """Measure the trials that have no row yet, and print the progress and the time spent."""
    done = {(row["domain"], row["configuration"], int(row["seed"])) for row in rows.rows}
    missing = [key for key in measurements if key not in done]
    total, before, began = len(measurements), len(measurements) - len(missing), time.monotonic()
    print(f"{total} trials, {before} of them done already", flush=True)
    with contextlib.closing(in_parallel([measurements[key] for key in missing], processes)) as results:
        for number, (place, result) in enumerate(results, start=1):
            rows.add({**result, **dict(zip(KEY, missing[place], strict=True))})
            hours = sum(float(row["seconds"]) for row in rows.rows) / 3600
            left = timedelta(seconds=round((time.monotonic() - began) / number * (len(missing) - number)))
            outcome = result["reason"] or f"AP@50 {result['val']:.3f} val, {result['test']:.3f} test"
            print(
                f"{before + number}/{total} {' '.join(map(str, missing[place]))}: {outcome}, {result['seconds']} s;"
                f" {hours:.2f} process hours spent, {left} left",
                flush=True,
            )
    failed = sum(row["status"] == FAILED for row in rows.rows)
    print(f"{len(rows.rows)} rows, {failed} of them failed trials: {rows.path}", flush=True)


def in_parallel(
    measurements: Sequence[Measurement], processes: int
) -> Generator[tuple[int, dict[str, Any]], None, None]:
    """Measure trials in several processes, which end when the generator is closed.

    A trial whose process is killed by the system, as happens when memory runs out, has failed; another process
    replaces it.

    Yields:
        Index of a trial and its row as `measure` returns it, in the order in which the trials end.

    Raises:
        ScriptError: a process has ended with an error that is not a result of its trial.
    """
    waiting = deque(enumerate(measurements))
    workers: list[_Worker] = []
    idle: list[_Worker] = []
    running: dict[Connection, tuple[_Worker, int]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                if not idle:
                    idle.append(_Worker())
                    workers.append(idle[-1])
                worker, (place, measurement) = idle.pop(), waiting[0]
                if worker.send(measurement):
                    waiting.popleft()
                    running[worker.connection] = worker, place
            for connection in wait(list(running)):
                worker, place = running.pop(cast(Connection, connection))
                row = worker.receive()
                if row is not None:
                    idle.append(worker)
                yield place, row or _failed("its process was killed, as happens when memory runs out")
    finally:
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.process.join()


class _Worker:
    """A process that measures one trial at a time, and a connection to it."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()

    def send(self, measurement: Measurement) -> bool:
        """Give the process a trial; False if it has died while it was idle."""
        try:
            self.connection.send(measurement)
        except BrokenPipeError:
            return False
        return True

    def receive(self) -> dict[str, Any] | None:
        """Wait for the row of its trial; None if the process was killed.

        Raises:
            ScriptError: the process has ended in another way.
        """
        try:
            row: dict[str, Any] = self.connection.recv()
            return row
        except (EOFError, ConnectionResetError):
            self.process.join()
            if self.process.exitcode != KILLED:
                status = self.process.exitcode
                raise ScriptError(f"a trial ended the run with status {status}; see above.") from None
            return None


def work(connection: Connection) -> None:
    """Measure one trial after another, on one thread, until the other side closes the connection."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the main one ends the others
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that a trial's folder is removed
    sys.stdout = open(os.devnull, "w")  # a trial prints its progress
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "Multi-processing start method")  # mmengine's, for workers that load images
    with contextlib.suppress(EOFError, BrokenPipeError):
        for number in itertools.count():
            connection.send(measure(connection.recv()))
            if number == 0:
                # mmengine's data sets collect garbage. As long as everything that the imports left is searched, that
                # takes longer than all other overhead of a small trial.
                gc.collect()
                gc.freeze()


def measure(measurement: Measurement) -> dict[str, Any]:
    """The row of a trial without its key: AP@50 of the best validated detector on both splits, or why there is none."""
    import torch

    row = _failed("")
    row["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    began = time.monotonic()
    try:
        row |= {**fine_tuned(measurement), "status": MEASURED}
    except (FloatingPointError, ScriptError, MemoryError, torch.OutOfMemoryError) as error:
        row["reason"] = str(error) or "there was not enough memory"
    except RuntimeError as error:
        if "allocate memory" not in str(error):  # what torch raises on a CPU has no class of its own
            raise
        row["reason"] = str(error)
    return {**row, "seconds": round(time.monotonic() - began, 2)}


def _failed(reason: str) -> dict[str, Any]:
    """The row of a failed trial without its key."""
    columns = [name for name in COLUMNS if name not in KEY]
    return {**dict.fromkeys(columns, ""), "seconds": 0, "status": FAILED, "reason": reason}


def fine_tuned(measurement: Measurement) -> dict[str, Any]:
    """AP@50 on both splits, number of epochs, and for an architecture its M FLOPs."""
    from retinaface.parameters import apply_parameters
    from retinaface.training import train, tuned, validate

    options, parameters = measurement
    config = options.load_config()
    training, val, test = (load(options.data, split) for split in SPLITS)
    if parameters is None:
        return {"val": validate(config, val), "test": validate(config, test), "epochs": 0}
    config = apply_parameters(config, parameters)
    with TemporaryDirectory() as folder:
        outcome = train(config, training, val, Path(folder))
        found = {"val": outcome.best, "test": validate(tuned(config, outcome), test), "epochs": outcome.epochs}
    chosen = {name: value for name, value in parameters.items() if name in PARAMETERS}
    return {**found, "mflops": round(Architecture.of(chosen).flops / 1e6, 1)} if chosen else found


@functools.cache
def load(folder: Path, split: str) -> coco.CocoSplit:
    """A split, which each process reads and checks once."""
    return coco.load(folder, split)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that its processes end with it
    run_script(main)
