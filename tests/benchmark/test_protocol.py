from __future__ import annotations

import csv
import dataclasses
import gzip
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from nni_hyperfd.benchmark import protocol as protocol_module
from nni_hyperfd.benchmark.protocol import Protocol, ProtocolError, course, pick_all, run
from nni_hyperfd.benchmark.regime import Regime
from nni_hyperfd.benchmark.tables import Table
from nni_hyperfd.cli import app
from nni_hyperfd.recommenders import make
from nni_hyperfd.recommenders.base import ScoringRecommender, Task
from nni_hyperfd.recommenders.simple import MeanRank
from nni_hyperfd.space.encoded import EncodedConfigurations


def table(tasks=16, configurations=300, missing=0.0):
    rng = np.random.default_rng(0)
    performance = rng.random((tasks, configurations))
    performance[rng.random(performance.shape) < missing] = np.nan
    vectors = rng.random((configurations, 2), dtype=np.float32)
    meta_features = rng.random((tasks, 2)).astype(np.float32)
    return Table("toy", [f"t{i}" for i in range(tasks)], performance, EncodedConfigurations(vectors), meta_features)


def test_random_search_comes_out_at_20_1():
    # (200 + 1) / (4 + 1) / 200
    outcomes = [o for seed in range(40) for o in run(table(), Protocol(), lambda s: make("random", s), seed)]
    ranks = [outcome.rank_percent[-1] for outcome in outcomes]
    error = np.std(ranks, ddof=1) / np.sqrt(len(ranks))
    assert len(ranks) == 40 * 15 and error < 0.8
    assert np.mean(ranks) == pytest.approx(20.1, abs=3 * error)
    gains = [outcome.gain for outcome in outcomes]
    assert np.mean(gains) == pytest.approx(0, abs=3 * np.std(gains, ddof=1) / np.sqrt(len(gains)))


class Spy(ScoringRecommender):
    """Picks in order and notes what it is told, in words."""

    def __init__(self, seed=0):
        super().__init__(seed)
        self.heard, self.told, self.revealed = [], [], []

    def know(self, data_sets):
        for own in data_sets:
            self.heard.append(("knows", float(own.task.meta_feature[0]), values(own.candidates, own.performance)))

    def start_task(self, task, candidates):
        super().start_task(task, candidates)
        self.described = None if task.meta_feature is None else float(task.meta_feature[0])

    def scores(self):
        return -np.arange(float(len(self.candidates)))

    def tell(self, index, performance):
        super().tell(index, performance)
        self.told.append((index, performance))

    def end_task(self, revealed):
        self.revealed.append(revealed)
        known = values(self.candidates[list(revealed)], list(revealed.values()))
        self.heard.append(("learns", self.described, known))


def values(configurations, performance):
    """Results by configuration."""
    return dict(zip(configurations.vectors[:, 0].round().astype(int).tolist(), np.round(performance, 9), strict=True))


def small(server=(), tasks=4):
    """Task t's result of configuration c is 10 t + c; its meta-feature is t. Six configurations."""
    performance = 10.0 * np.arange(tasks)[:, None] + np.arange(6)
    vectors = np.arange(6, dtype=np.float32)[:, None]
    described = np.arange(tasks, dtype=np.float32)[:, None]
    names = [f"t{place}" for place in range(tasks)]
    return Table("small", names, performance, EncodedConfigurations(vectors), described, server)


def heard(protocol, own=None, seed=3):
    """What a recommender is told in a run, and the outcomes."""
    spy = Spy()
    outcomes = list(run(own or small(), protocol, lambda _: spy, seed))
    return spy.heard, outcomes


def whole(task):
    return {place: 10.0 * task + place for place in range(6)}


def picked(outcome):
    """What the picks have brought; in `small` a task's number is in its name."""
    return {place: 10.0 * int(outcome.task[1:]) + place for place in outcome.picks}


def test_real_the_first_task_is_known_whole_and_of_each_other_its_own_picks():
    told, outcomes = heard(Protocol(budget=2))
    first, *others = (int(what[1]) for what in told)
    assert sorted([first, *others]) == [0, 1, 2, 3]
    assert told[0] == ("knows", first, whole(first))
    assert [outcome.task for outcome in outcomes] == [f"t{task}" for task in others]
    assert [outcome.position for outcome in outcomes] == [0, 1, 2]
    assert told[1:] == [("learns", int(one.task[1:]), picked(one)) for one in outcomes]
    assert all(len(outcome.picks) == 2 for outcome in outcomes)


def test_cold_nothing_is_known_and_the_first_task_is_scored():
    told, outcomes = heard(Protocol(Regime.COLD, budget=2))
    assert len(outcomes) == 4 and told == [("learns", int(one.task[1:]), picked(one)) for one in outcomes]


def test_revealed_every_past_task_becomes_known_whole():
    told, outcomes = heard(Protocol(Regime.REVEALED, budget=2))
    assert told[0][0] == "knows" and [what for what, *_ in told[1:]] == ["learns"] * 3 == ["learns"] * len(outcomes)
    assert [results for *_, results in told] == [whole(task) for _, task, _ in told]


@pytest.mark.parametrize("regime", [Regime.REAL, Regime.REVEALED])
def test_the_server_s_tasks_are_known_whole_and_take_no_part(regime):
    told, outcomes = heard(Protocol(regime, budget=2), small(server=(2, 0)))
    assert told[:2] == [("knows", 2, whole(2)), ("knows", 0, whole(0))], "in the order of the table's list"
    assert {outcome.task for outcome in outcomes} == {"t1", "t3"} and len(told) == 4
    _, cold = heard(Protocol(Regime.COLD, budget=2), small(server=(2, 0)))
    assert [one.task for one in cold] == [one.task for one in outcomes], "nor do they where they are not known"


@pytest.mark.parametrize("offline", [0, 1, 2, 3])
def test_offline_takes_the_first_of_the_order(offline):
    order = [one.task for one in heard(Protocol(Regime.COLD))[1]]
    told, outcomes = heard(Protocol(offline=offline))
    assert [f"t{task:.0f}" for what, task, _ in told if what == "knows"] == order[:offline]
    assert [one.task for one in outcomes] == order[offline:]


def test_offline_takes_some_of_the_server_s_tasks_at_random():
    def known(offline, seed):
        told, outcomes = heard(Protocol(offline=offline), small((5, 1, 3, 4), tasks=7), seed)
        assert len(outcomes) == 3, "those that are not known do not become clients"
        return [int(task) for what, task, _ in told if what == "knows"]

    chosen = {seed: known(2, seed) for seed in range(60)}
    assert len(set(map(tuple, chosen.values()))) == 6, "all pairs"
    for seed, own in chosen.items():
        assert own == [task for task in (5, 1, 3, 4) if task in own], "in the order of the table's list"
        assert set(known(1, seed)) < set(own) < set(known(3, seed))
    assert known(4, 0) == known(None, 0) == [5, 1, 3, 4] and known(0, 0) == []


def test_the_order_and_the_candidates_are_the_same_in_all_regimes():
    full = table()
    cold = course(full, Protocol(Regime.COLD), 5).turns
    for protocol in (
        Protocol(),
        Protocol(offline=4),
        Protocol(Regime.REVEALED),
        Protocol(budget=16),
        Protocol(max_tasks=9),
    ):
        turns = course(full, protocol, 5).turns
        left = [turn for turn in cold[: protocol.max_tasks] if turn.name in {one.name for one in turns}]
        assert [turn.name for turn in turns] == [turn.name for turn in left]
        assert all(np.array_equal(one.indices, other.indices) for one, other in zip(turns, left, strict=True))
    served = dataclasses.replace(full, server=(0, 5, 11))
    one, other = (course(served, Protocol(offline=offline), 5).turns for offline in (0, 3))
    assert [turn.name for turn in one] == [turn.name for turn in other] and len(one) == 13
    assert all(np.array_equal(a.indices, b.indices) for a, b in zip(one, other, strict=True))


def test_results_of_the_server_s_tasks_are_drawn_of_what_was_measured(monkeypatch):
    own = dataclasses.replace(table(tasks=6, configurations=10), server=(4, 1, 2))
    own.performance[1] = np.nan  # not measured at all
    own.performance[2, ::2] = np.nan
    protocol = Protocol(candidates=6)
    whole, half = course(own, protocol, 0).offline
    assert (len(whole.performance), len(half.performance)) == (6, 5), "candidates at most; five were measured"
    for data_set, task in ((whole, 4), (half, 2)):
        for vector, performance in zip(data_set.candidates.vectors, data_set.performance, strict=True):
            (place,) = np.flatnonzero((own.configurations.vectors == vector).all(axis=1))
            assert own.performance[task, place] == performance
        assert data_set.task.meta_feature.tolist() == own.meta_features[task].tolist()
    again, other = (course(own, protocol, seed).offline[0].performance.tolist() for seed in (0, 1))
    assert again == whole.performance.tolist() != other
    assert [one.performance.tolist() for one in course(own, protocol, 7, server_seed=0).offline] == [
        whole.performance.tolist(),
        half.performance.tolist(),
    ]
    monkeypatch.setattr(protocol_module, "PAIRS", 7)
    assert [len(data_set.performance) for data_set in course(own, protocol, 0).offline] == [3, 3]
    first = course(dataclasses.replace(own, server=()), Protocol(offline=2), 0).offline
    assert [len(data_set.performance) for data_set in first] == [3, 3], "tasks of the order likewise"


def test_a_run_follows_from_its_seed_alone():
    first, again, other = (course(table(), Protocol(), seed).turns for seed in (1, 1, 2))
    assert [t.name for t in first] == [t.name for t in again] != [t.name for t in other]
    assert all(np.array_equal(a.indices, b.indices) for a, b in zip(first, again, strict=True))
    assert len({tuple(turn.indices) for turn in first}) == 15  # drawn afresh


def test_at_most_16_tasks_and_every_candidate_once():
    result = course(table(tasks=20), Protocol(Regime.COLD), 0).turns
    assert len({turn.name for turn in result}) == 16
    assert all(len(set(turn.indices)) == 200 for turn in result)
    assert len(course(table(tasks=20), Protocol(offline=4), 0).turns) == 12, "offline ones of the order count"
    served = dataclasses.replace(table(tasks=20), server=(0, 1, 2))
    assert len(course(served, Protocol(), 0).turns) == 16, "the table's own do not"


def test_only_measured_cells_are_candidates():
    patchy = table(missing=0.5)
    patchy.performance[3] = np.nan
    result = course(patchy, Protocol(Regime.COLD), 0).turns
    assert "t3" not in {turn.name for turn in result} and len(result) == 15
    assert all(np.isfinite(turn.performance).all() and 100 < len(turn.indices) < 200 for turn in result)


def test_a_table_without_differences():
    flat = table(tasks=3, configurations=8)
    flat.performance[:] = 0.5
    outcomes = list(run(flat, Protocol(), MeanRank, 0))
    assert [(o.gain, o.ndcg, o.regret) for o in outcomes] == [(pytest.approx(0), 1, 0)] * 2
    assert all(12.5 <= o.rank_percent[-1] <= 100 for o in outcomes)


def test_a_table_of_one_configuration():
    outcomes = list(run(table(tasks=3, configurations=1), Protocol(), MeanRank, 0))
    assert [(o.picks, o.rank_percent) for o in outcomes] == [((0,), (100,))] * 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"regime": Regime.COLD, "offline": 2}, "The cold regime has no offline data sets, so it cannot have 2"),
        ({"offline": -1}, "no negative number of offline data sets"),
        ({"max_tasks": 0}, "at least 1 task"),
        ({"candidates": 1}, "2 candidates"),
        ({"budget": 0}, "1 pick per task"),
        ({"concurrency": 0}, "1 trial at a time"),
    ],
)
def test_protocols_that_contradict_themselves_are_refused(changes, message):
    with pytest.raises(ProtocolError, match=message):
        Protocol(**changes)


@pytest.mark.parametrize(
    ("server", "protocol", "message"),
    [
        ((), Protocol(offline=4), "small has no task left to score: 4 take part and 4 data sets are to be offline"),
        ((), Protocol(offline=9), "no task left to score"),
        ((), Protocol(max_tasks=1), "no task left to score: 1 take part and 1"),
        ((0, 1), Protocol(offline=3), "small has results for 2 of the platform's own data sets, so there cannot be 3"),
        ((0, 1, 2, 3), Protocol(), "no task left to score: 0 take part"),
        ((0, 1, 2, 3), Protocol(Regime.COLD), "no task left to score: 0 take part"),
    ],
)
def test_protocols_that_do_not_fit_the_table_are_refused(server, protocol, message):
    with pytest.raises(ProtocolError, match=message):
        protocol.on(small(server))
    with pytest.raises(ProtocolError, match=message):
        course(small(server), protocol, 0)


def test_every_result_can_say_its_regime_and_number_of_offline_data_sets():
    served = small((0, 1))
    assert str(Protocol().on(small())) == "real regime, 1 offline data set"
    assert str(Protocol().on(served)) == "real regime, 2 offline data sets"
    assert str(Protocol(Regime.COLD).on(served)) == "cold regime, no offline data sets"
    assert str(Protocol(Regime.REVEALED, meta_features=False).on(served)).endswith(
        "2 offline data sets, no meta-features"
    )
    assert Protocol().on(served) == Protocol(offline=2).on(served), "two ways to ask for the same run"


@pytest.mark.parametrize("known", [{"meta_features": False}, {}])
def test_data_sets_of_which_nothing_is_known_are_past_tasks(known):
    """The paper's recipe cannot be warmed up on them, but it can learn which configurations are good."""

    class Refusing(Spy):
        def know(self, data_sets):
            raise ValueError("needs images or a meta-feature")

    nothing = dataclasses.replace(small(), meta_features=np.zeros((4, 0), dtype=np.float32))
    spy = Refusing()
    assert len(list(run(nothing, Protocol(budget=2, **known), lambda _: spy, 0))) == 3
    assert [len(results) for *_, results in spy.heard] == [6, 2, 2, 2]
    assert [(what, described) for what, described, _ in spy.heard] == [("learns", None)] * 4


class Queue(Spy):
    """Notes for each pick how many results are known and how many trials are running."""

    def __init__(self, seed=0):
        super().__init__(seed)
        self.seen = []

    def ask(self, n=1):
        picks = super().ask(n)
        self.seen += [(len(self.results), len(self.asked) - len(self.results) - n + place) for place in range(n)]
        return picks


@pytest.mark.parametrize(
    ("concurrency", "expected"),
    [
        (1, [(0, 0), (1, 0), (2, 0), (3, 0)]),
        (2, [(0, 0), (0, 1), (1, 1), (2, 1)]),
        (3, [(0, 0), (0, 1), (0, 2), (1, 2)]),
        (4, [(0, 0), (0, 1), (0, 2), (0, 3)]),
        (9, [(0, 0), (0, 1), (0, 2), (0, 3)]),
    ],
)
def test_trials_side_by_side(concurrency, expected):
    performance = np.arange(6.0)
    queue = Queue()
    queue.start_task(Task(4), EncodedConfigurations(np.zeros((6, 1), dtype=np.float32)))
    assert pick_all(queue, performance, 4, concurrency) == [0, 1, 2, 3]
    assert queue.seen == expected
    assert queue.told == [(index, performance[index]) for index in range(4)]


@pytest.fixture
def stored(tmp_path):
    made = table(tasks=3, configurations=30)
    names = [f"c{i}" for i in range(30)]
    np.savez(tmp_path / "performance.npz", perf=made.performance, tasks=made.tasks, configs=names)
    rows = [f"{name},{u},{v}\n" for name, (u, v) in zip(names, made.configurations.vectors, strict=True)]
    (tmp_path / "configs.csv.gz").write_bytes(gzip.compress("".join(["config_id,u,v\n", *rows]).encode()))
    (tmp_path / "tasks.csv").write_text("task_id,m\n" + "".join(f"{name},1\n" for name in made.tasks))
    (tmp_path / "meta.json").write_text(json.dumps({"name": "toy", "kinds": {"u": "num", "v": "num"}}))
    return tmp_path


def test_the_command_writes_each_task_a_summary_and_a_figure(stored, tmp_path):
    out = tmp_path / "results"
    arguments = [
        "benchmark",
        str(stored),
        "--recommenders",
        "random,mean_rank",
        "--candidates",
        "20",
        "--out",
        str(out),
    ]
    more = ["--seeds", "3", "--first-seed", "7", "--budget", "2,4", "--regime", "revealed", "--concurrency", "2"]
    result = CliRunner().invoke(app, [*arguments, *more], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    with (out / "outcomes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["budget"], row["recommender"], row["seed"], row["position"]) for row in rows] == [
        (budget, name, seed, position)
        for budget in "24"
        for name in ("random", "mean_rank")
        for seed in "789"
        for position in "01"
    ]
    what = {"table": "toy", "max_tasks": "16", "candidates": "20", "concurrency": "2", "regime": "revealed"}
    assert all(row.items() >= (what | {"offline": "1"}).items() for row in rows)
    for row in rows:
        after_each = row["rank_percents"].split()
        assert (
            len(after_each) == len(row["picks"].split()) == int(row["budget"]) and row["rank_percent"] == after_each[-1]
        )
    summary = json.loads((out / "summary.json").read_text())
    assert summary["reference"] == "mean_rank" and set(summary["tables"]) == {"toy"}
    (found,) = (one for one in summary["results"] if (one["budget"], one["recommender"]) == (4, "random"))
    assert (found["regime"], found["offline"], found["seeds"]) == ("revealed", 1, 3)
    assert {f"rank_percent_{mark}" for mark in (1, 2, 4)} < set(found["measures"])
    ranks = {
        (row["recommender"], row["seed"]): float(row["rank_percent"])
        for row in rows
        if (row["budget"], row["position"]) == ("4", "0")
    }
    differences = [ranks["random", seed] - ranks["mean_rank", seed] for seed in "789"]
    measure = found["measures"]["first_half"]
    assert measure["mean"] == pytest.approx(np.mean([ranks["random", seed] for seed in "789"]))
    assert measure["minus_mean_rank_mean"] == pytest.approx(np.mean(differences))
    assert measure["minus_mean_rank_se_over_seeds"] == pytest.approx(np.std(differences, ddof=1) / 3**0.5)
    assert (out / "rank_against_budget.png").read_bytes().startswith(b"\x89PNG")
    assert "toy, budget 4, 3 seeds: revealed regime, 1 offline data set, 2 trials side by side" in result.output


def test_the_command_chooses_regime_offline_data_sets_and_reference(stored, tmp_path):
    out = tmp_path / "out"
    arguments = ["benchmark", str(stored), "--recommenders", "random,knn", "--seeds", "2", "--out", str(out)]
    result = CliRunner().invoke(app, [*arguments, "--server", "t2", "--reference", "random"], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    with (out / "outcomes.csv").open() as file:
        assert {(row["regime"], row["offline"], row["task"]) for row in csv.DictReader(file)} == {
            ("real", "1", "t0"),
            ("real", "1", "t1"),
        }
    assert "- random" in result.output and "± over seeds, ± over data sets" in result.output
    result = CliRunner().invoke(app, [*arguments, "--regime", "cold", "--server", ""])
    assert result.exit_code == 0, result.output
    with (out / "outcomes.csv").open() as file:
        assert {(row["regime"], row["offline"], row["task"]) for row in csv.DictReader(file)} == {
            ("cold", "0", f"t{task}") for task in range(3)
        }, "runs are done anew"
    (first, *_) = json.loads((out / "summary.json").read_text())["results"]
    assert (first["regime"], first["offline"]) == ("cold", 0)
    assert not [name for name in first["measures"]["rank_percent"] if name.startswith("minus")], "mean_rank was not run"


def test_all_recommenders_and_a_single_budget_without_figure(stored, tmp_path, monkeypatch):
    monkeypatch.setattr("nni_hyperfd.recommenders.NAMES", ("knn", "random"))  # the others take longer to learn
    arguments = ["--recommenders", "all", "--seeds", "1", "--candidates", "5", "--budget", "1", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, ["benchmark", str(stored), *arguments])
    assert result.exit_code == 0, result.output
    with (tmp_path / "outcomes.csv").open() as file:
        assert [row["recommender"] for row in csv.DictReader(file)] == ["knn"] * 2 + ["random"] * 2
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recommenders", "oracle"], "oracle"),
        (["--regime", "kind"], "--regime"),
        (["--regime", "cold", "--offline", "1"], "cold regime has no offline data sets"),
        (["--offline", "3"], "no task left to score"),
        (["--server", "t9"], "no task 't9'"),
        (["--noise", "1"], "no image features"),
        (["--budget", "4,0"], "--budget"),
        (["--budget", "four"], "--budget"),
    ],
)
def test_the_command_refuses_what_it_does_not_know(stored, arguments, message):
    result = CliRunner().invoke(app, ["benchmark", str(stored), *arguments], env={"COLUMNS": "400"})
    assert result.exit_code == 2 and message in result.output


def test_the_same_table_twice_is_refused(stored):
    result = CliRunner().invoke(app, ["benchmark", str(stored), str(stored)])
    assert result.exit_code == 2 and "same name" in result.output


def test_meta_features_may_be_withheld():
    seen = []

    class Watching(MeanRank):
        def start_task(self, task, candidates):
            super().start_task(task, candidates)
            seen.append(task.meta_feature)

    for shown in (True, False):
        list(run(table(3), Protocol(meta_features=shown), Watching, seed=0))
    assert all(vector.shape == (2,) for vector in seen[:3]) and seen[3:] == [None, None, None]
