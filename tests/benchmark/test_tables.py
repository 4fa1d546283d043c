from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from nni_hyperfd.benchmark.tables import TableError, load


@pytest.fixture
def folder(tmp_path):
    """Two tasks, three configurations, one cell not measured, one inactive parameter, a graph each."""
    perf = np.array([[0.1, np.nan, 0.3], [1.0, 2.0, 3.0]], dtype=np.float32)
    np.savez(tmp_path / "performance.npz", perf=perf, tasks=["a", "b"], configs=["x", "y", "z"])
    rows = "config_id,kind,rate,depth\nz,sgd,1,4\nx,adam,0.01,\ny,sgd,0.1,2\n"
    with gzip.open(tmp_path / "configs.csv.gz", "wt") as file:
        file.write(rows)
    (tmp_path / "tasks.csv").write_text("task_id,size,faces\nb,2,\na,1,5\n")
    meta = {"name": "toy", "maximize": True, "kinds": {"kind": "cat", "rate": "log", "depth": "num"}}
    (tmp_path / "meta.json").write_text(json.dumps(meta | {"graph_ops": ["in", "out"]}))
    np.savez(tmp_path / "graphs.npz", ops=[[0, 1]] * 3, adj=[[0, 1], [0, 0]])
    return tmp_path


def change_meta(folder, **changes):
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | changes))


def test_a_table_is_read_in_the_order_of_its_performances(folder):
    table = load(folder)
    assert (table.name, table.tasks) == ("toy", ["a", "b"])
    assert np.isnan(table.performance[0, 1]) and table.performance[1].tolist() == [1, 2, 3]
    # adam, sgd; the logarithm's place; depth, inactive for x
    expected = [[1, 0, 0, -0.5], [0, 1, 0.5, 0], [0, 1, 1, 1]]
    assert np.allclose(table.configurations.vectors, expected)
    assert table.meta_features[0].tolist() == [1, 5] and np.isnan(table.meta_features[1, 1])
    assert table.configurations.graphs.adjacency.shape == (3, 2, 2)


def test_a_metric_to_minimise_is_turned_round(folder):
    change_meta(folder, maximize=False)
    assert load(folder).performance[1].tolist() == [-1, -2, -3]


def test_a_constant_column_is_constant(folder):
    with gzip.open(folder / "configs.csv.gz", "wt") as file:
        file.write("config_id,kind,rate,depth\nz,sgd,1,4\nx,sgd,1,4\ny,sgd,1,\n")
    assert load(folder).configurations.vectors.tolist() == [[1, 0, 0], [1, 0, -0.5], [1, 0, 0]]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("meta.json", b"{", "meta.json cannot be read"),
        ("meta.json", b'{"kinds": {"kind": "cat"}}', "kinds must name every column"),
        ("performance.npz", b"no zip", "performance.npz cannot be read"),
        ("tasks.csv", b"task_id,size\na,1\n", "no row whose task_id is 'b'"),
        ("tasks.csv", b"task_id,size\na,big\nb,1\n", "'big' is no number"),
        ("configs.csv.gz", b"plain text", "configs.csv.gz cannot be read"),
        ("configs.csv.gz", gzip.compress(b"config_id,kind,rate,depth\nx,a,0,1\ny,a,1,1\nz,a,1,1\n"), "not positive"),
        ("graphs.npz", b"", "graphs.npz cannot be read"),
    ],
)
def test_broken_files_are_named(folder, file, content, message):
    (folder / file).write_bytes(content)
    with pytest.raises(TableError, match=message):
        load(folder)


def test_what_does_not_fit_together_is_named(folder):
    np.savez(folder / "performance.npz", perf=np.zeros((2, 2)), tasks=["a", "b"], configs=["x", "y", "z"])
    with pytest.raises(TableError, match="3 configurations"):
        load(folder)
    np.savez(folder / "performance.npz", perf=np.zeros((2, 2)))
    with pytest.raises(TableError, match="lacks configs, tasks"):
        load(folder)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(TableError, match="meta.json cannot be read"):
        load(tmp_path)
