from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
import torch

from nni_hyperfd.benchmark.tables import TableError, load, load_all
from nni_hyperfd.method.features import pack
from nni_hyperfd.method.weights import dumps


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
    assert table.columns == (2, 1, 1)
    assert table.meta_features[0].tolist() == [1, 5] and np.isnan(table.meta_features[1, 1])
    assert table.configurations.graphs.adjacency.shape == (3, 2, 2)


def test_a_metric_to_minimise_is_turned_round(folder):
    change_meta(folder, maximize=False)
    assert load(folder).performance[1].tolist() == [-1, -2, -3]


def test_a_constant_column_is_constant(folder):
    with gzip.open(folder / "configs.csv.gz", "wt") as file:
        file.write("config_id,kind,rate,depth\nz,sgd,1,4\nx,sgd,1,4\ny,sgd,1,\n")
    assert load(folder).configurations.vectors.tolist() == [[1, 0, 0], [1, 0, -0.5], [1, 0, 0]]


def change_arrays(folder, file="performance.npz", **changes):
    with np.load(folder / file) as arrays:
        changed = dict(arrays) | changes
    np.savez(folder / file, **changed)


def packed(text):
    # Without the time, which would be part of the parametrized tests' names: both workers must collect the same names.
    return gzip.compress(f"config_id,kind,rate,depth\n{text}".encode(), mtime=0)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("meta.json", b"{", "meta.json cannot be read"),
        ("meta.json", b"[]", "must hold a JSON object"),
        ("meta.json", b'{"kinds": {"kind": "cat"}}', "kinds must name every column"),
        ("performance.npz", b"no zip", "no npz archive"),
        ("tasks.csv", b"", "no row whose task_id is 'a'"),
        ("tasks.csv", b"id,size\na,1\nb,2\n", "no column task_id"),
        ("tasks.csv", b"task_id,size\na,1\n", "no row whose task_id is 'b'"),
        ("tasks.csv", b"task_id,size\na,1\nb,2\na,3\n", "two rows whose task_id is 'a'"),
        ("tasks.csv", b"task_id,size\na,1,2\nb,1\n", "the row of 'a' has more values"),
        ("tasks.csv", b"task_id,size\na,big\nb,1\n", "'big' is no number"),
        ("tasks.csv", b"task_id,size\na,\xe9\nb,1\n", "tasks.csv cannot be read"),
        ("configs.csv.gz", b"plain text", "configs.csv.gz cannot be read"),
        ("configs.csv.gz", packed("x,a,1,1\ny,a,1,1\nz,a,1,1\n")[:-9], "configs.csv.gz cannot be read"),
        ("configs.csv.gz", packed("x,a,0,1\ny,a,1,1\nz,a,1,1\n"), "not positive"),
        ("configs.csv.gz", packed("x,a,1,1\nx,a,1,2\ny,a,1,1\nz,a,1,1\n"), "two rows whose config_id is 'x'"),
        ("graphs.npz", b"", "graphs.npz cannot be read"),
    ],
)
def test_broken_files_are_named(folder, file, content, message):
    (folder / file).write_bytes(content)
    with pytest.raises(TableError, match=message):
        load(folder)


@pytest.mark.parametrize("file", ["performance.npz", "configs.csv.gz"])
def test_a_byte_that_has_changed_is_noticed(folder, file):
    content = bytearray((folder / file).read_bytes())
    middle = content.index(b"NUMPY") + 80 if file.endswith("npz") else len(content) // 2
    content[middle] ^= 255
    (folder / file).write_bytes(content)
    with pytest.raises(TableError, match=f"{file} cannot be read"):
        load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"perf": np.zeros((2, 2))}, "3 configurations"),
        ({"perf": np.zeros(3)}, "3 configurations"),
        ({"perf": np.full((2, 3), "high")}, "there must be a number"),
        ({"perf": np.full((2, 3), np.nan)}, "fewer than two tasks"),
        ({"perf": np.array([[1, 2, 3], [np.nan] * 3])}, "fewer than two tasks"),
        ({"perf": np.zeros((1, 3)), "tasks": ["a"]}, "fewer than two tasks"),
        ({"perf": np.zeros((2, 0)), "configs": np.zeros(0, str)}, "configs must be a list of names"),
        ({"tasks": "a"}, "tasks must be a list of names"),
        ({"tasks": ["a", "a"]}, "tasks has 'a' 2 times"),
        ({"configs": ["x", "y", "y"]}, "configs has 'y' 2 times"),
    ],
)
def test_performances_that_make_no_table(folder, changes, message):
    change_arrays(folder, **changes)
    with pytest.raises(TableError, match=message):
        load(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"maximize": "no"},
        {"kinds": None},
        {"kinds": ["kind"]},
        {"kinds": {"kind": ["cat"], "rate": "log", "depth": "num"}},
    ],
)
def test_descriptions_that_make_no_table(folder, changes):
    change_meta(folder, **changes)
    with pytest.raises(TableError, match=r"meta\.json: (maximize|kinds) must"):
        load(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"ops": [[0, 1]] * 2},
        {"ops": [[0, 5]] * 3},
        {"ops": [[0.5, 1]] * 3},
        {"ops": 1},
        {"adj": [0, 1]},
        {"adj": "edge"},
    ],
)
def test_graphs_that_do_not_fit(folder, changes):
    change_arrays(folder, "graphs.npz", **changes)
    with pytest.raises(TableError, match="do not fit together"):
        load(folder)


@pytest.mark.parametrize("names", [None, 2, ["in"]])
def test_operations_without_their_names(folder, names):
    change_meta(folder, graph_ops=names)
    with pytest.raises(TableError, match="do not fit together"):
        load(folder)


def test_what_is_missing_is_named(folder):
    np.savez(folder / "performance.npz", perf=np.zeros((2, 3)))
    with pytest.raises(TableError, match="lacks configs, tasks"):
        load(folder)


def test_tasks_that_nothing_is_known_of(folder):
    (folder / "tasks.csv").write_text("task_id\nb\na\n")
    table = load(folder)
    assert table.meta_features.shape == (2, 0) and table.task(0, 4).meta_feature is None


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(TableError, match="meta.json cannot be read"):
        load(tmp_path)


def describe(folder, task, images=2, width=5):
    features = torch.full((images, 3, 3, width), float(width))
    features[0, 0, 1] = torch.nan
    (folder / "features").mkdir(exist_ok=True)
    packed_features = pack(features, torch.tensor([40.0, 90.0]))
    (folder / "features" / f"{task}.safetensors").write_bytes(dumps(packed_features))
    return features.numpy()


def test_image_features_and_the_servers_tasks_are_read(folder):
    expected = {task: describe(folder, task) for task in ("a", "b")}
    change_meta(folder, server=["b"])
    table = load(folder)
    assert table.server == (1,)
    task = table.task(1, budget=3)
    np.testing.assert_array_equal(task.images, expected["b"])
    assert task.budget == 3 and task.counts.tolist() == [40, 90] and task.meta_feature[0] == 2
    unknown = table.task(1, budget=3, meta_features=False)
    assert unknown.images is None and unknown.counts is None and unknown.meta_feature is None


def test_a_table_without_them_describes_tasks_by_their_numbers(folder):
    table = load(folder)
    assert table.server == () and table.task(0, 4).images is None and table.task(0, 4).meta_feature.tolist() == [1, 5]


def test_features_that_do_not_fit_are_named(folder):
    describe(folder, "a")
    with pytest.raises(TableError, match=r"b\.safetensors holds no image features"):
        load(folder)
    describe(folder, "b", width=6)
    with pytest.raises(TableError, match="different detectors"):
        load(folder)
    (folder / "features" / "b.safetensors").write_bytes(b"broken")
    with pytest.raises(TableError, match=r"b\.safetensors holds no image features"):
        load(folder)


@pytest.mark.parametrize("server", [["c"], "b"])
def test_a_server_that_is_no_list_of_tasks_is_refused(folder, server):
    change_meta(folder, server=server)
    with pytest.raises(TableError, match="server must list tasks of the table, got 'c'|got 'b'"):
        load(folder)


def test_another_server_than_the_tables(folder):
    change_meta(folder, server=["b"])
    table = load(folder)
    assert table.with_server(["a", "b"]).server == (0, 1) and table.with_server([]).server == ()
    assert table.server == (1,) and table.with_server(["a"]).digest != table.digest
    with pytest.raises(TableError, match="Table toy has no task 'c' to be the server's; it has a, b"):
        table.with_server(["a", "c"])
    assert [own.server for own in load_all([folder], ["a"])] == [(0,)] and load_all([folder])[0].server == (1,)
