"""A table for `hyperfd benchmark` made of what `trial_code/measure.py` has measured, gaps and all."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nni_hyperfd.benchmark import tables
from nni_hyperfd.benchmark.measured import COLUMNS, START, Measured, Trial
from nni_hyperfd.benchmark.tables import FORMAT, Table, TableError
from nni_hyperfd.space import architecture
from nni_hyperfd.space.search_space import Choice, SearchSpace

TRIALS = "trials.csv.gz"
METRIC = "AP@50 of the validation split"


def write(
    found: Measured, out: Path, about: str = "", features: Path | None = None, server: Sequence[str] = ()
) -> Table:
    """Write the table and return it as it is read.

    Its performance is what a trial reports, the validation AP, of the first seed alone: so all cells are equally noisy.
    `test` in performance.npz is the same trials' AP on the test split; `trials.csv.gz` has every trial of every seed.
    Configurations that the run has not come to are left out; of the others each trial that failed or has not been done
    is a gap. `about` (Markdown: what the images are, their licences) goes into README.md. features: a folder with a
    .safetensors file of each data set, by trial_code/describe.py, that becomes part of the table. server: which data
    sets are the server's own.

    Raises TableError where `out` holds a table of another space, two data sets have no result each, a file of features
    is missing, or `server` names what was not measured.
    """
    meta_file = out / "meta.json"
    space = found.space.label
    if meta_file.is_file() and (other := tables.read_meta(out).get("space")) != space:
        raise TableError(f"{out} holds a table of the space {other}, not {space}; name another folder.")
    first = {trial[:2]: trial for trial in found.trials if trial.seed == found.settings["seed"]}
    begun = {name for _, name in first}
    names = [name for name in found.configurations if name in begun]
    domains = list(found.domains)
    if strange := sorted(set(server) - set(domains)):
        raise TableError(f"{strange[0]} is to be the server's but was not measured; there are {', '.join(domains)}.")
    if features and (bare := [name for name in domains if not (features / f"{name}.safetensors").is_file()]):
        raise TableError(f"{features} has no {bare[0]}.safetensors; trial_code/describe.py --whole writes it.")
    if len({domain for domain, name in first if name in names and not first[domain, name].failed}) < 2:
        raise TableError("Fewer than two data sets have a result; measure on.")
    val, test = (
        np.array([[getattr(first.get((d, name)), split, math.nan) for name in names] for d in domains])
        for split in ("val", "test")
    )
    out.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(out / "performance.npz", perf=val, test=test, tasks=domains, configs=names)
    _write_configurations(out, found, names)
    if features:
        (out / "features").mkdir(exist_ok=True)
        for name in domains:
            shutil.copyfile(features / f"{name}.safetensors", out / "features" / f"{name}.safetensors")
    before = {domain: first.get((domain, START)) for domain in domains}
    described = [
        [
            domain,
            *(found.domains[domain][key] for key in ("images", "boxes")),
            before[domain].val if before[domain] else "",
        ]
        for domain in domains
    ]
    (out / "tasks.csv").write_bytes(_csv(["task_id", "images", "boxes", "ap_before"], described))
    _compressed(out / TRIALS, _csv(COLUMNS, ([trial.row[name] for name in COLUMNS] for trial in found.trials)))
    meta = {"format": FORMAT, "name": out.resolve().name, "metric": METRIC, "maximize": True, "space": space}
    meta |= {"kinds": _kinds(found.space), "settings": found.settings, "cost": cost(found.trials)}
    if server:
        meta["server"] = list(server)
    if found.space.architectures:
        meta["graph_ops"] = [f"expand {block.expand} kernel {block.kernel}" for block in architecture.OPERATIONS]
    meta_file.write_text(json.dumps(meta, indent=1) + "\n")
    table = tables.load(out)
    (out / "README.md").write_text(_readme(found, table, meta, about))
    return table


def cost(trials: Sequence[Trial]) -> dict[str, Any]:
    """Number of trials, of those that failed, hours of all together (one process each), and the devices."""
    return {
        "trials": len(trials),
        "failed": sum(trial.failed for trial in trials),
        "process hours": round(sum(trial.seconds for trial in trials) / 3600, 2),
        "devices": sorted({trial.row["device"] for trial in trials} - {""}),
    }


def _kinds(space: SearchSpace) -> dict[str, str]:
    """As the platform encodes them: choices one-hot, ranges as numbers."""
    kinds = {True: "log", False: "num"}
    return {name: "cat" if isinstance(p, Choice) else kinds[p.log] for name, p in space.parameters.items()}


def _write_configurations(out: Path, found: Measured, names: Sequence[str]) -> None:
    chosen = [found.configurations[name] for name in names]
    rows = []
    for name, configuration in zip(names, chosen, strict=True):
        unused = architecture.inactive(configuration) if found.space.architectures else ()
        rows.append([name, *("" if key in unused else value for key, value in configuration.items())])
    _compressed(out / "configs.csv.gz", _csv(["config_id", *found.space.parameters], rows))
    if found.space.architectures:
        graphs = found.space.graphs(chosen)
        np.savez_compressed(out / "graphs.npz", ops=graphs.ops, adj=graphs.adjacency)


def _csv(columns: Iterable[str], rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([list(columns), *rows])
    return text.getvalue().encode()


def _compressed(path: Path, content: bytes) -> None:
    path.write_bytes(gzip.compress(content, mtime=0))  # the same content, the same bytes


def _readme(found: Measured, table: Table, meta: dict[str, Any], about: str) -> str:
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
