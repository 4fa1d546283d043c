"""Makes a table for `hyperfd benchmark` of what `trial_code/measure.py` has measured, gaps included."""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nni_hyperfd.benchmark import tables
from nni_hyperfd.benchmark.measured import COLUMNS, START, MeasuredFolder, MeasuredTrial
from nni_hyperfd.benchmark.tables import FORMAT, Table, TableError
from nni_hyperfd.files import atomic, write_bytes, write_text
from nni_hyperfd.space import Architecture, Choice, SearchSpace, architecture

TRIALS = "trials.csv.gz"
METRIC = "AP@50 of the validation split"


def write(
    found: MeasuredFolder, out: Path, about: str = "", features: Path | None = None, server: Sequence[str] = ()
) -> Table:
    """Write a table.

    The performance is what a trial reports, the validation AP, of the first seed alone, so that all cells are equally
    noisy. `test` in performance.npz is the same trials' AP on the test split; `trials.csv.gz` has every trial of every
    seed. Configurations that have not been tried yet are left out; of the others each trial that failed or has not been
    done is a gap.

    Args:
        found: the measurements.
        out: folder of the table.
        about: Markdown for its README.md: what the images are, their licences.
        features: a folder with a .safetensors file of each data set, by trial_code/describe.py, which becomes part of
            the table.
        server: names of the data sets that are the server's own.

    Returns:
        The table as it is read.

    Raises:
        TableError: `out` holds a table of another space, fewer than two data sets have a result, a file of features is
            missing, or `server` names what was not measured.
    """
    first = {(t.domain, t.configuration): t for t in found.trials if t.seed == found.settings["seed"]}
    begun = {configuration for _, configuration in first}
    names = [name for name in found.configurations if name in begun]
    domains = list(found.domains)
    _check(found, out, features, server)
    if len({domain for (domain, name), trial in first.items() if name in names and not trial.failed}) < 2:
        raise TableError("Fewer than two data sets have a result; measure on.")
    out.mkdir(parents=True, exist_ok=True)
    arrays = {
        key: np.array([[_result(first.get((d, name)), split) for name in names] for d in domains])
        for key, split in (("perf", "val"), ("test", "test"))
    }
    _save(out / "performance.npz", **arrays, tasks=domains, configs=names)
    _write_configurations(out, found, names)
    if features:
        (out / "features").mkdir(exist_ok=True)
        for name in domains:
            shutil.copyfile(features / f"{name}.safetensors", out / "features" / f"{name}.safetensors")
    _write_tasks(out, found, {domain: first.get((domain, START)) for domain in domains})
    _compressed(out / TRIALS, _csv(COLUMNS, ([trial.row[name] for name in COLUMNS] for trial in found.trials)))
    meta = _meta(found, out, server)
    write_text(out / "meta.json", json.dumps(meta, indent=1) + "\n")
    table = tables.load(out)
    write_text(out / "README.md", _readme(found, table, meta, about))
    return table


def _check(found: MeasuredFolder, out: Path, features: Path | None, server: Sequence[str]) -> None:
    """Raise a TableError if these measurements cannot become a table in `out`."""
    space, domains = found.space.label, list(found.domains)
    if (out / "meta.json").is_file() and (other := tables.read_meta(out).get("space")) != space:
        raise TableError(f"{out} holds a table of the space {other}, not {space}; name another folder.")
    if strange := sorted(set(server) - set(domains)):
        raise TableError(f"{strange[0]} is to be the server's but was not measured; there are {', '.join(domains)}.")
    if features and (bare := [name for name in domains if not (features / f"{name}.safetensors").is_file()]):
        raise TableError(f"{features} has no {bare[0]}.safetensors; trial_code/describe.py --whole writes it.")


def _result(trial: MeasuredTrial | None, split: str) -> float:
    """AP@50 on one split, NaN without a result."""
    return float("nan") if trial is None else {"val": trial.val, "test": trial.test}[split]


def _write_tasks(out: Path, found: MeasuredFolder, before: Mapping[str, MeasuredTrial | None]) -> None:
    """Write tasks.csv; before: of each data set the trial of the detector that all others start from."""
    rows = [
        [domain, found.domains[domain]["images"], found.domains[domain]["boxes"], trial.val if trial else ""]
        for domain, trial in before.items()
    ]
    write_bytes(out / "tasks.csv", _csv(["task_id", "images", "boxes", "ap_before"], rows))


def _meta(found: MeasuredFolder, out: Path, server: Sequence[str]) -> dict[str, Any]:
    """What meta.json holds."""
    meta = {"format": FORMAT, "name": out.resolve().name, "metric": METRIC, "maximize": True}
    meta |= {"space": found.space.label, "kinds": _kinds(found.space)}
    meta |= {"settings": found.settings, "cost": cost(found.trials)}
    if server:
        meta["server"] = list(server)
    if found.space.architectures:
        meta["graph_ops"] = [f"expand {block.expand} kernel {block.kernel}" for block in architecture.OPERATIONS]
    return meta


def cost(trials: Sequence[MeasuredTrial]) -> dict[str, Any]:
    """Number of trials and of those that failed, hours of all together (one process each), and the devices."""
    return {
        "trials": len(trials),
        "failed": sum(trial.failed for trial in trials),
        "process hours": round(sum(trial.seconds for trial in trials) / 3600, 2),
        "devices": sorted({trial.row["device"] for trial in trials} - {""}),
    }


def _kinds(space: SearchSpace) -> dict[str, str]:
    """How a table encodes the parameters, which is how the platform does: choices one-hot, ranges as numbers."""
    kinds = {True: "log", False: "num"}
    return {name: "cat" if isinstance(p, Choice) else kinds[p.log] for name, p in space.parameters.items()}


def _write_configurations(out: Path, found: MeasuredFolder, names: Sequence[str]) -> None:
    """Write configs.csv.gz and, for architectures, graphs.npz."""
    chosen = [found.configurations[name] for name in names]
    rows = []
    for name, configuration in zip(names, chosen, strict=True):
        unused = architecture.inactive(configuration) if found.space.architectures else ()
        rows.append([name, *("" if key in unused else value for key, value in configuration.items())])
    _compressed(out / "configs.csv.gz", _csv(["config_id", *found.space.parameters], rows))
    if found.space.architectures:
        graphs = architecture.graphs([Architecture.of(one) for one in chosen])
        _save(out / "graphs.npz", ops=graphs.ops, adj=graphs.adjacency)


def _save(path: Path, **arrays: ArrayLike) -> None:
    """Write an npz archive."""
    with atomic(path) as partial:
        np.savez_compressed(partial, **arrays)  # type: ignore[arg-type]  # the stub has allow_pickle among them


def _csv(columns: Iterable[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """Lines of a CSV file."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([list(columns), *rows])
    return text.getvalue().encode()


def _compressed(path: Path, content: bytes) -> None:
    """Write a gzip file; the same content gives the same bytes."""
    write_bytes(path, gzip.compress(content, mtime=0))


def _readme(found: MeasuredFolder, table: Table, meta: Mapping[str, Any], about: str) -> str:
    """How the table was measured, what is missing, what it cost, and its limits."""
    settings, spent = found.settings, meta["cost"]
    shown = {name: value for name, value in settings.items() if value is not None and name not in ("format", "kind")}
    later = len(found.configurations) - len(table.configurations)
    waiting = f" Configurations that the run has not come to: {later}." if later else ""
    reasons = sorted({trial.row["reason"] for trial in found.trials if trial.failed})
    lines = [
        f"# {table.name}: {len(table.tasks)} face data sets x {len(table.configurations)} configurations",
        "",
        f"Measured by `trial_code/measure.py`, made into a table by `hyperfd table`. Space: {meta['space']}. Each cell"
        f" of `perf` is {METRIC} after fine-tuning with seed {settings['seed']}; `test` in `performance.npz` is that of"
        " the same detector, the best validated one, on the test split. `trials.csv.gz` has a row per trial, the"
        " repeats with other seeds and the starting detector (`start`) as well. `tasks.csv` has the numbers of training"
        " images and boxes, and the validation AP before.",
        "",
        *([f"The server's own data sets: {', '.join(meta['server'])}.", ""] if "server" in meta else []),
        f"Gaps: {table.gaps or 'none.'}{waiting}",
        *(f"* a trial failed: {reason}" for reason in reasons),
        "",
        f"Cost: {spent['trials']} trials ({spent['failed']} failed), {spent['process hours']} process hours on"
        f" {', '.join(spent['devices'])}.",
        "",
        "| setting | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in shown.items()),
        "",
        "Limits: one starting detector, small images and few epochs, so AP is below what longer training reaches and"
        " configurations that learn fast are favoured; validation splits are small.",
    ]
    return "\n".join([*lines, "", about.strip()]).strip() + "\n"
