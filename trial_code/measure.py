"""A lookup table: the same configurations of a search space fine-tuned on each of many data sets, validated and tested.

    python measure.py --data FOLDER --weights FILE --space ../search_spaces/hpo.json --out FOLDER [--configurations 60]
        [--only NAME ...] [--repeated 10] [--seeds 3] [--processes 2] [--size 160] [--epochs 4] ...

--data is a folder of data sets. Each finished trial is a row of OUT/trials.csv, also one that failed: with the reason,
and it does not end the run. Stopped at any time, by Ctrl-C or by a kill, the run has measured about the same on all
data sets, and the same command goes on; more configurations, seeds or data sets may be added. To have trials done
again, remove their rows. `hyperfd table OUT TABLE` makes of it a table for `hyperfd benchmark`.

Several processes of one thread each do the trials, on the GPU where there is one.
"""

from __future__ import annotations

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
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from importlib.metadata import version
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from evaluate import data_sets
from filelock import FileLock, Timeout
from retinaface.job import Job, JobError, run_script
from retinaface.rows import RowFile, note

from nni_hyperfd.benchmark.measured import COLUMNS, FAILED, KEY, MEASURED, START
from nni_hyperfd.benchmark.tables import FORMAT
from nni_hyperfd.datasets import coco
from nni_hyperfd.method.weights import sha256
from nni_hyperfd.space.architecture import PARAMETERS, Architecture
from nni_hyperfd.space.search_space import Configuration, SearchSpace

SPLITS = ("train", "val", "test")
KILLED = -signal.SIGKILL
"""Exit code of a process that the system has ended, for lack of memory as a rule."""


class Trial(NamedTuple):
    """A configuration (None: the starting detector as it is) on the job's data set, with the job's seed."""

    job: Job
    parameters: Configuration | None


def main(argv: list[str] | None = None) -> None:
    parser = Job.parser(__doc__.splitlines()[0])
    parser.set_defaults(workers=0)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder for the rows and for what they were measured with")
    add("--space", type=Path, required=True, help="NNI search space file (JSON)")
    add("--configurations", type=int, default=60, help="how many, drawn by chance; fewer are the first of more")
    add("--only", nargs="+", help="names of the data sets to take; all by default")
    add("--repeated", type=int, default=10, help="how many of the first configurations are measured with other seeds")
    add("--seeds", type=int, default=3, help="seeds of the repeated configurations, --seed and those after it")
    add("--processes", type=int, default=2, help="trials side by side, each on one thread")
    arguments = parser.parse_args(argv)
    for name in ("configurations", "seeds", "processes"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} must be 1 or more")
    job = Job.from_arguments(arguments)
    if job.weights is None:
        raise JobError("the detector to start from is not given; name its file with --weights.")
    space = read_space(arguments.space)
    configurations = drawn(space, arguments.configurations)
    folders = chosen(job.data, arguments.only)
    with locked(arguments.out):
        note_all(arguments.out, job, space, configurations, folders)
        seeds = range(job.seed, job.seed + arguments.seeds)
        trials = {
            key: Trial(dataclasses.replace(job, data=folders[key[0]], seed=key[2]), configurations.get(key[1]))
            for key in in_turn(list(folders), list(configurations), max(arguments.repeated, 0), seeds)
        }
        try:
            run(trials, RowFile(arguments.out / "trials.csv", COLUMNS), arguments.processes)
        except KeyboardInterrupt:
            sys.exit("measure.py: stopped; the same command goes on.")


def read_space(path: Path) -> SearchSpace:
    try:
        return SearchSpace.from_nni(json.loads(path.read_text()))
    except (OSError, ValueError) as error:  # SpaceError is a ValueError
        raise JobError(f"--space: {path} cannot be read as a search space: {error}") from error


def drawn(space: SearchSpace, number: int) -> dict[str, Configuration]:
    """So many configurations of the space, each by a name that it has in every run."""
    if number > space.size:
        raise JobError(f"the space has {space.size:.0f} configurations only; lower --configurations.")
    return {f"c{place:04d}": found for place, found in enumerate(space.sample(number, np.random.default_rng(0)))}


def chosen(data: Path, only: Sequence[str] | None) -> dict[str, Path]:
    """The data sets below a folder, or those named, by name."""
    folders = {path.name: path for path in data_sets(data.resolve(), "test")}
    if strange := [name for name in only or () if name not in folders]:
        raise JobError(f"--only names {', '.join(strange)}; {data} has the data sets {', '.join(folders)}.")
    return {name: folders[name] for name in dict.fromkeys(only or folders)}


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Within the block, no other process is in a block for this folder."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "lock", timeout=0):
            yield
    except Timeout:
        raise JobError(f"{folder} is being filled by another process; wait for it, or name another --out.") from None


def note_all(
    out: Path, job: Job, space: SearchSpace, configurations: Mapping[str, Configuration], folders: Mapping[str, Path]
) -> None:
    """Check what all trials need, and write down what results depend on; what is noted already must be the same."""
    from retinaface.convert import weights_file
    from retinaface.parameters import apply_parameters

    config = job.load_config()
    for parameters in configurations.values():
        apply_parameters(config, parameters)
    sizes = {name: value for name, value in vars(job).items() if name not in ("data", "config", "weights")}
    settings = {"format": FORMAT, "space": space.label, "kind": space.kind, "config": job.config.stem}
    settings |= {"weights": sha256(weights_file(job.weights).read_bytes()), **sizes}
    settings |= {name: version(name) for name in ("nni-hyperfd", "torch", "mmdet")}
    domains = {}
    for name, folder in folders.items():
        splits = [coco.load(folder, split, strict=job.strict) for split in SPLITS]
        fingerprints = "".join(split.fingerprint() for split in splits)
        counts = {"images": splits[0].num_images, "boxes": splits[0].num_boxes}
        domains[name] = {**counts, "fingerprint": sha256(fingerprints.encode())}
    note(out / "settings.json", settings)
    note(out / "space.json", space.definition)
    note(out / "configurations.json", configurations)
    note(out / "domains.json", domains)


def in_turn(
    domains: Sequence[str], configurations: Sequence[str], repeated: int, seeds: Sequence[int]
) -> Iterator[tuple[str, str, int]]:
    """(domain, configuration, seed) of all trials, in an order that treats data sets alike wherever it ends.

    First the starting detector and every configuration once, then the first ones with the other seeds.
    """
    yield from ((domain, name, seeds[0]) for name in (START, *configurations) for domain in domains)
    for name, seed in itertools.product(configurations[:repeated], seeds[1:]):
        yield from ((domain, name, seed) for domain in domains)


def run(trials: Mapping[tuple[str, str, int], Trial], rows: RowFile, processes: int) -> None:
    """Do the trials, by (domain, configuration, seed), that have no row yet; tells how far it is and at what cost."""
    done = {(row["domain"], row["configuration"], int(row["seed"])) for row in rows.rows}
    missing = [key for key in trials if key not in done]
    total, before, began = len(trials), len(trials) - len(missing), time.monotonic()
    print(f"{total} trials, {before} of them done already", flush=True)
    with contextlib.closing(in_parallel([trials[key] for key in missing], processes)) as results:
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


def in_parallel(trials: Sequence[Trial], processes: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """The place of each trial and what came out, as `measure` gives it, in the order in which they end.

    A process that the system kills, as it does when memory runs out, has failed at its trial, and another takes its
    place. Raises JobError when one ends of an error that no trial should have; the processes end with the iterator.
    """
    context = multiprocessing.get_context("spawn")
    waiting, running, idle = deque(enumerate(trials)), {}, []
    crew: dict[Connection, multiprocessing.process.BaseProcess] = {}
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                if not idle:
                    ours, theirs = context.Pipe()
                    crew[ours] = context.Process(target=work, args=(theirs,), daemon=True)
                    crew[ours].start()
                    theirs.close()
                    idle.append(ours)
                connection, (place, trial) = idle.pop(), waiting[0]
                try:
                    connection.send(trial)
                except BrokenPipeError:  # it died while it had nothing to do
                    crew.pop(connection).join()
                    continue
                waiting.popleft()
                running[connection] = place
            for connection in wait(list(running)):
                place = running.pop(connection)
                try:
                    result = connection.recv()
                    idle.append(connection)
                except (EOFError, ConnectionResetError):
                    process = crew.pop(connection)
                    process.join()
                    if process.exitcode != KILLED:
                        raise JobError(f"a trial ended the run with status {process.exitcode}; see above.") from None
                    reason = "its process was killed, as happens when memory runs out"
                    result = {**dict.fromkeys(COLUMNS, ""), "seconds": 0, "status": FAILED, "reason": reason}
                yield place, result
    finally:
        for process in crew.values():
            process.terminate()
        for process in crew.values():
            process.join()


def work(connection: Connection) -> None:
    """Do one trial after another, on one thread, until the other side is gone."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one ends the others
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that a trial's folder is removed
    sys.stdout = open(os.devnull, "w")  # a trial tells its progress
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "Multi-processing start method")  # mmengine's, for workers that load images
    with contextlib.suppress(EOFError, BrokenPipeError):
        for number in itertools.count():
            connection.send(measure(connection.recv()))
            if number == 0:
                # mmengine's data sets collect garbage, and that takes longer than anything else of a small trial's
                # overhead while it looks at all that the imports have left.
                gc.collect()
                gc.freeze()


def measure(trial: Trial) -> dict[str, Any]:
    """A row's values beside its key: AP@50 of the best validated detector on both splits, or why there is none."""
    import torch

    row = {"val": "", "test": "", "epochs": "", "mflops": "", "status": FAILED, "reason": ""}
    row["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    began = time.monotonic()
    try:
        row |= {**fine_tuned(trial), "status": MEASURED}
    except (FloatingPointError, JobError, MemoryError, torch.OutOfMemoryError) as error:
        row["reason"] = str(error) or "there was not enough memory"
    except RuntimeError as error:
        if "allocate memory" not in str(error):  # torch has no class of its own for it without a GPU
            raise
        row["reason"] = str(error)
    return {**row, "seconds": round(time.monotonic() - began, 2)}


def fine_tuned(trial: Trial) -> dict[str, Any]:
    """AP@50 on both splits, epochs, and for an architecture its M FLOPs."""
    from retinaface.parameters import apply_parameters
    from retinaface.training import train, tuned, validate

    config = trial.job.load_config()
    training, val, test = (load(trial.job.data, split) for split in SPLITS)
    if trial.parameters is None:
        return {"val": validate(config, val), "test": validate(config, test), "epochs": 0}
    config = apply_parameters(config, trial.parameters)
    with TemporaryDirectory() as folder:
        outcome = train(config, training, val, Path(folder))
        found = {"val": outcome.best, "test": validate(tuned(config, outcome), test), "epochs": outcome.epochs}
    chosen = {name: value for name, value in trial.parameters.items() if name in PARAMETERS}
    return {**found, "mflops": round(Architecture.of(chosen).flops / 1e6, 1)} if chosen else found


@functools.cache
def load(folder: Path, split: str) -> coco.CocoSplit:
    """A split, checked once in each process."""
    return coco.load(folder, split)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that its processes end with it
    run_script(main)
