from __future__ import annotations

import numpy as np
import pytest

from nni_hyperfd.recommenders.base import MeasuredDataset, ScoringRecommender, Task, finite_results
from nni_hyperfd.space.encoded import EncodedConfigurations


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": -1}, "budget"),
        ({"meta_feature": np.zeros((1, 64))}, "one row"),
        ({"images": np.zeros((4, 3, 5))}, r"shape \(N, 3, 3, D\)"),
        ({"images": np.zeros((4, 3, 2, 5))}, r"shape \(N, 3, 3, D\)"),
        ({"images": np.zeros((0, 3, 3, 5))}, r"shape \(N, 3, 3, D\)"),
        ({"images": np.full((1, 3, 3, 5), np.inf)}, "finite, or NaN throughout"),
        ({"images": np.tile([0.0, np.nan], (1, 3, 3, 1))}, "finite, or NaN throughout"),
        ({"counts": np.zeros(3)}, "images and boxes"),
        ({"counts": np.array([5.0, -1.0])}, "images and boxes"),
        ({"counts": np.array([5.0, np.nan])}, "images and boxes"),
    ],
)
def test_what_describes_no_task_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Task(**changes)


def test_what_may_be_unknown_of_a_task():
    Task(meta_feature=np.array([np.nan, np.inf]))
    Task(0, np.zeros(0), np.full((1, 3, 3, 5), np.nan), np.zeros(2))


# -- what a task has revealed ------------------------------------------------------------------------------------------


def test_results_that_are_not_finite_are_left_out_and_the_others_sorted():
    revealed = {np.int64(5): np.float32(0.5), 0: 2, 3: np.nan, 4: np.inf, 2: -1.0}
    indices, performance = finite_results(revealed, 6)
    assert indices.tolist() == [0, 2, 5] and performance.tolist() == [2, -1, 0.5]
    nothing, none = finite_results({1: np.nan}, 6)
    assert nothing.shape == none.shape == (0,) and nothing.dtype == int


@pytest.mark.parametrize("index", [-1, 6])
def test_a_result_of_no_candidate_is_refused(index):
    with pytest.raises(ValueError, match=f"revealed for candidate {index}; the task has 0 to 5"):
        finite_results({0: 1.0, index: np.nan}, 6)


# -- candidates in the order of their scores ---------------------------------------------------------------------------


class Scored(ScoringRecommender):
    """Scores as given, and what it was to learn."""

    def __init__(self, values, seed=0):
        super().__init__(seed)
        self.values, self.learned = np.array(values, dtype=float), []

    def scores(self):
        return self.values

    def learn(self, indices, performance):
        self.learned.append((indices.tolist(), performance.tolist()))


def started(values, budget=4, seed=0):
    recommender = Scored(values, seed)
    recommender.start_task(Task(budget), EncodedConfigurations(np.zeros((len(values), 1), dtype=np.float32)))
    return recommender


def test_the_best_come_first_and_what_has_no_score_last():
    recommender = started([0.1, np.nan, 0.9, -np.inf, 0.5], budget=9)
    assert recommender.ask(2) == [2, 4] and recommender.ask(1) == [0]
    assert sorted(recommender.ask(9)) == [1, 3] and recommender.ask(1) == []


def test_scores_may_change_between_picks_and_no_pick_comes_twice():
    recommender = started([3.0, 2.0, 1.0, 0.0])
    assert recommender.ask() == [0]
    recommender.values = np.array([9.0, 0.0, 1.0, 2.0])
    assert recommender.ask(2) == [3, 2]


def test_ties_are_broken_at_random_by_the_seed():
    firsts = {started([1.0, 1.0, 1.0, 0.0], seed=seed).ask(1)[0] for seed in range(40)}
    assert firsts == {0, 1, 2}
    assert started([1.0] * 9, seed=3).ask(4) == started([1.0] * 9, seed=3).ask(4)


@pytest.mark.parametrize(("budget", "n", "picks"), [(4, 9, 4), (0, 3, 0), (3, 0, 0), (3, -1, 0)])
def test_picks_are_within_the_budget(budget, n, picks):
    assert len(started([1.0] * 9, budget).ask(n)) == picks


def test_results_are_taken_once_and_of_what_was_asked_for_alone():
    recommender = started([3.0, 2.0, 1.0])
    first, second = recommender.ask(2)
    recommender.tell(first, np.nan)
    for index in (first, 2):
        with pytest.raises(ValueError, match=rf"{index} is not waiting for a result; those that are: \[{second}\]"):
            recommender.tell(index, 1.0)
    recommender.tell(second, 0.5)
    assert recommender.results == {second: 0.5}
    recommender.start_task(Task(), recommender.candidates)
    assert recommender.results == {} and recommender.asked == []


def test_only_what_is_finite_is_learned_from():
    recommender = started([3.0, 2.0, 1.0])
    recommender.end_task({2: 0.5, 0: np.nan, 1: 0.7})
    recommender.end_task({0: np.nan})
    assert recommender.learned == [([1, 2], [0.7, 0.5])]


def test_own_data_sets_are_tasks_whose_results_are_revealed_unless_a_recommender_says_otherwise():
    recommender = started([3.0, 2.0, 1.0])
    own = [
        MeasuredDataset(Task(0, np.ones(2)), recommender.candidates, np.array(values))
        for values in ([0.0, 2, 1], [5.0, 6, 7])
    ]
    recommender.know(own)
    assert recommender.learned == [([0, 1, 2], [0, 2, 1]), ([0, 1, 2], [5, 6, 7])]
    assert recommender.task is own[1].task
