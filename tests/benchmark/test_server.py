"""The server's own data sets in a run on a table."""

from __future__ import annotations

import numpy as np

from nni_hyperfd.benchmark import server
from nni_hyperfd.benchmark.protocol import Protocol, turns
from nni_hyperfd.benchmark.tables import Table
from nni_hyperfd.recommenders.base import ScoringRecommender
from nni_hyperfd.space.encoded import EncodedConfigurations

NAN = np.nan


def table(named: tuple[int, ...] = ()) -> Table:
    """Six tasks with ten configurations; the second has no result, of the third one half is missing."""
    performance = np.random.default_rng(0).random((6, 10))
    performance[1] = NAN
    performance[2, ::2] = NAN
    vectors = np.arange(10, dtype=np.float32)[:, None] / 10
    described = np.arange(6, dtype=np.float32)[:, None]
    return Table("toy", list("abcdef"), performance, EncodedConfigurations(vectors), described, named)


PROTOCOL = Protocol(max_tasks=3, candidates=6, given=0)


def test_named_data_sets_are_known_before_every_run_unless_nothing_was_measured_on_them() -> None:
    own = table((4, 1, 2))
    for seed in range(3):
        assert server.own_tasks(own, PROTOCOL, seed) == [4, 2], "in the order of the table's list"
        assert not {4, 2} & {turn.task for turn in turns(own, PROTOCOL, seed)}


def test_without_names_it_is_those_that_have_no_turn() -> None:
    for seed in range(3):
        used = {turn.task for turn in turns(table(), PROTOCOL, seed)}
        assert len(used) == 3 and set(server.own_tasks(table(), PROTOCOL, seed)) == set(range(6)) - used - {1}


def test_results_are_drawn_of_what_was_measured(monkeypatch) -> None:
    own = table((4, 2))
    whole, half = server.offline(own, PROTOCOL, 0)
    assert (len(whole.performance), len(half.performance)) == (6, 5), "candidates at most; five were measured"
    for data_set, task in ((whole, 4), (half, 2)):
        places = np.rint(data_set.candidates.vectors[:, 0] * 10).astype(int)
        assert len(set(places)) == len(places)
        np.testing.assert_array_equal(data_set.performance, own.performance[task, places])
        assert data_set.task.meta_feature.tolist() == [task] and np.isfinite(data_set.performance).all()
    again, other = (server.offline(own, PROTOCOL, seed)[0].performance.tolist() for seed in (0, 1))
    assert again == whole.performance.tolist() != other
    monkeypatch.setattr(server, "PAIRS", 7)
    assert [len(data_set.performance) for data_set in server.offline(own, PROTOCOL, 0)] == [3, 3]
    hidden = server.offline(own, Protocol(max_tasks=3, given=0, meta_features=False), 0)
    assert all(data_set.task.meta_feature is None for data_set in hidden)


class Listener(ScoringRecommender):
    """Notes what it learns."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[tuple] = []

    def scores(self) -> np.ndarray:
        return np.zeros(len(self.candidates))

    def learn(self, indices: np.ndarray, performance: np.ndarray) -> None:
        self.heard.append((self.task, self.candidates, indices.tolist(), performance.tolist()))


def test_a_taught_recommender_has_heard_all_results_in_order() -> None:
    own = server.offline(table((4, 2)), PROTOCOL, 0)
    listener = Listener()
    assert server.taught(listener, own) is listener
    assert listener.heard == [
        (data_set.task, data_set.candidates, list(range(len(data_set.performance))), data_set.performance.tolist())
        for data_set in own
    ]
    assert server.taught(Listener(), []).heard == []
