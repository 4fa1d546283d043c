"""The default recommender: its bookkeeping. The mathematics behind it is tested in tests/belief."""

from __future__ import annotations

import numpy as np
import pytest

from nni_hyperfd.belief.evidence import PastTask as Past
from nni_hyperfd.belief.model import BeliefModel
from nni_hyperfd.method import drawing
from nni_hyperfd.recommenders import hyperfd
from nni_hyperfd.recommenders.base import MeasuredDataset, Task
from nni_hyperfd.recommenders.hyperfd import HyperFD
from nni_hyperfd.space.encoded import EncodedConfigurations
from support.encoded import configurations

WIDTH = 3


def candidates(seed, n=30, width=WIDTH):
    return EncodedConfigurations(np.random.default_rng(seed).random((n, width), dtype=np.float32))


def performance(offered):
    return -((offered.vectors[:, 0] - 0.7) ** 2)


def task(seed, budget=4):
    return Task(budget, np.random.default_rng([seed, 1]).random(2, dtype=np.float32))


def lead(recommender, seed, n=30, width=WIDTH):
    """Through a task whose four picks are revealed."""
    offered = candidates(seed, n, width)
    recommender.start_task(task(seed), offered)
    results = {}
    while asked := recommender.ask(1):
        results[asked[0]] = float(performance(offered)[asked[0]])
        recommender.tell(asked[0], results[asked[0]])
    recommender.end_task(results)
    return list(results)


@pytest.fixture
def learned(monkeypatch):
    """The past tasks and the width of everything that was learned."""
    calls = []
    original = BeliefModel.learned

    class Spied(BeliefModel):
        @classmethod
        def learned(cls, tasks, pool, seed, before=None):
            calls.append((list(tasks), pool.shape[1]))
            return original(tasks, pool, seed, before)

    monkeypatch.setattr(hyperfd, "BeliefModel", Spied)
    return calls


# -- what it learns from -----------------------------------------------------------------------------------------------


def test_it_learns_from_the_results_in_the_order_in_which_they_were_asked_for(learned):
    recommender = HyperFD(5)
    offered = candidates(0)
    recommender.start_task(task(0), offered)
    asked = recommender.ask(4)
    revealed = {index: float(performance(offered)[index]) for index in sorted(range(30), key=lambda i: (i * 7) % 30)}
    recommender.end_task(revealed | {asked[2]: np.nan})
    order = [asked[0], asked[1], asked[3], *(index for index in range(30) if index not in asked)]
    recommender.start_task(task(1), candidates(1))
    tasks, width = learned[-1]
    assert width == WIDTH and len(tasks) == 1
    np.testing.assert_array_equal(tasks[0].inputs, offered.vectors[order])
    np.testing.assert_array_equal(tasks[0].performance, performance(offered)[order].astype(float))
    np.testing.assert_array_equal(tasks[0].meta_feature, task(0).meta_feature)


def test_equal_results_no_results_and_failures_teach_nothing(learned):
    recommender = HyperFD(0)
    for revealed in ({0: 0.5, 4: 0.5}, {}, {3: np.nan}, {3: np.nan, 4: 1.0}):
        recommender.start_task(task(0), candidates(0))
        recommender.end_task(revealed)
    assert recommender.past(WIDTH) == []
    recommender.start_task(task(1), candidates(1))
    assert [tasks for tasks, _ in learned] == [[]], "without a past task once, and never again"


def test_own_data_sets_are_the_first_past_tasks(learned):
    own = [
        MeasuredDataset(task(seed), candidates(seed, 8), performance(candidates(seed, 8)).astype(float))
        for seed in (100, 101)
    ]
    flat = MeasuredDataset(task(102), candidates(102, 8), np.zeros(8))
    recommender = HyperFD(0)
    recommender.know([own[0], flat, own[1]])
    picks = lead(recommender, 0)
    tasks, _ = learned[0]
    assert [past.performance.tolist() for past in tasks] == [data_set.performance.tolist() for data_set in own]
    assert len(picks) == 4 and len(recommender.past(WIDTH)) == 3
    offered = candidates(7)
    recommender.start_task(task(7), offered)
    expected, _ = recommender.search.expected()
    assert np.corrcoef(expected, performance(offered))[0, 1] > 0.5


def test_it_learns_anew_only_when_there_is_more_to_learn_from(learned):
    recommender = HyperFD(0)
    lead(recommender, 0)
    for _ in range(2):
        recommender.start_task(task(1), candidates(1))
    assert len(learned) == 2
    lead(recommender, 1)
    lead(recommender, 2)
    assert [len(tasks) for tasks, _ in learned] == [0, 1, 2]


def test_spaces_are_told_apart_by_their_width(learned):
    recommender = HyperFD(0)
    for seed, width in enumerate((3, 5, 3, 5)):
        lead(recommender, seed, width=width)
    assert [(len(tasks), width) for tasks, width in learned] == [(0, 3), (0, 5), (1, 3), (1, 5)]
    assert len(recommender.past(3)) == len(recommender.past(5)) == 2 and recommender.past(4) == []


def test_what_was_measured_on_more_than_half_of_the_candidates_represents_the_space(learned):
    for revealed, sampled in ((14, False), (15, True)):
        recommender = HyperFD(0)
        recommender.start_task(task(0), candidates(0))
        recommender.end_task(dict(enumerate(range(revealed))))
        recommender.start_task(task(1), candidates(1))
        assert [past.sampled for past in learned[-1][0]] == [sampled]


def test_it_draws_from_many_tasks_as_the_platform_does(monkeypatch, learned):
    monkeypatch.setattr(drawing, "MOST_TASKS", 2)
    monkeypatch.setattr(drawing, "MOST_PICKED", 3)
    recommender = HyperFD(6)
    offered = [candidates(seed, 20) for seed in range(4)]
    recommender.know([MeasuredDataset(task(s), offered[s], np.arange(20.0) + 100 * s) for s in range(4)])
    for seed in range(10, 15):
        recommender.start_task(task(seed), candidates(seed))
        recommender.end_task({0: 100.0 * seed, 1: 1.0})
    recommender.start_task(task(0), candidates(0))
    numbers = [int(past.performance.max() // 100) for past in learned[-1][0]]
    drawn = np.random.default_rng([6, 4]).permutation(4)[:2].tolist()
    assert numbers == [*sorted(drawn), 12, 13, 14]


# -- what a past may look like -----------------------------------------------------------------------------------------


def own(seed, sign=1.0, n=60):
    """One of the platform's own data sets."""
    offered = candidates(seed, n)
    return MeasuredDataset(task(seed), offered, sign * performance(offered).astype(float))


def reveal(recommender, seed, factor=1.0, n=4):
    """A client's task of which n random results become known."""
    offered = candidates(seed)
    recommender.start_task(task(seed), offered)
    recommender.end_task({index: factor * float(performance(offered)[index]) for index in range(n)})


def foresight(recommender, seeds=range(900, 905)):
    """Correlation of what is expected of new tasks' candidates with the truth."""
    found = []
    for seed in seeds:
        offered = candidates(seed, 60)
        recommender.start_task(task(seed), offered)
        expected, _ = recommender.search.expected()
        found.append(np.corrcoef(expected, performance(offered))[0, 1])
    return float(np.mean(found))


def test_thousands_of_tasks_with_four_results_and_none_that_is_known_whole():
    recommender = HyperFD(0)
    recommender._past[WIDTH] = [
        Past(candidates(seed).vectors[:4], performance(candidates(seed)[:4]).astype(float), sampled=False)
        for seed in range(3000)
    ]
    assert foresight(recommender) > 0.9


def test_tasks_in_percent_change_little():
    for own_percent, clients_percent in ((False, True), (True, False)):
        usual, mixed = HyperFD(0), HyperFD(0)
        for recommender, factor in ((usual, 1.0), (mixed, 100.0)):
            first = own(1)
            scaled = factor if own_percent else 1.0
            recommender.know(
                [MeasuredDataset(first.task, first.candidates, scaled * first.performance), own(2), own(3)]
            )
            for seed in range(10, 16):
                reveal(recommender, seed, factor if clients_percent and seed % 2 else 1.0)
        assert foresight(mixed) > foresight(usual) - 0.1 > 0.7


def test_tasks_with_one_result_are_as_good_as_none():
    alone, beside = HyperFD(0), HyperFD(0)
    for recommender in (alone, beside):
        recommender.know([own(1)])
    for seed in range(10, 13):
        reveal(beside, seed, n=1)
    assert beside.past(WIDTH) == beside.past(WIDTH)[:1]
    np.testing.assert_array_equal(lead(alone, 50), lead(beside, 50))


def test_a_data_set_that_contradicts_the_others_is_no_worse_than_none():
    told, untold = HyperFD(0), HyperFD(0)
    told.know([own(1, sign=-1.0), own(2), own(3)])
    untold.know([own(2), own(3)])
    assert foresight(told) > foresight(untold) - 0.05


# -- what it asks for --------------------------------------------------------------------------------------------------


def test_a_model_that_was_learned_elsewhere_is_used_as_it_is(learned):
    past = [
        Past(candidates(seed, 8).vectors, performance(candidates(seed, 8)), task(seed).meta_feature) for seed in (1, 2)
    ]
    model = BeliefModel.learned(past, candidates(0).vectors, 0)
    recommender = HyperFD(0, model)
    recommender.start_task(task(3), candidates(3))
    assert learned == []
    expected = model.search(candidates(3).vectors, task(3).meta_feature)
    np.testing.assert_array_equal(recommender.search.expected(), expected.expected())
    first = int(expected.scores([]).argmax())
    assert recommender.ask(1) == [first]
    recommender.start_task(task(4), candidates(4, width=5))
    assert [(tasks, width) for tasks, width in learned] == [([], 5)]


def test_every_pick_has_the_highest_score_given_results_and_what_still_runs():
    recommender = HyperFD(0)
    for seed in range(3):
        lead(recommender, seed)
    offered = candidates(9)
    recommender.start_task(task(9, budget=6), offered)
    by_hand = recommender._model(offered.vectors).search(offered.vectors, task(9).meta_feature)
    asked, running = [], []
    for n in (2, 1, 3):
        for index in recommender.ask(n):
            scores = by_hand.scores(running)
            scores[asked] = -np.inf
            assert scores[index] == scores.max()
            asked.append(index)
            running.append(index)
        index = running.pop(0)  # one result, while the others still run
        recommender.tell(index, float(performance(offered)[index]))
        by_hand.observe(index, float(performance(offered)[index]))
    assert len(set(asked)) == 6 and recommender.ask(1) == []


def test_a_failed_trial_says_nothing_and_is_not_asked_for_again():
    recommender = HyperFD(0)
    recommender.start_task(task(0, budget=9), candidates(0, 9))
    before, _ = recommender.search.expected()
    (first,) = recommender.ask(1)
    recommender.tell(first, np.nan)
    np.testing.assert_array_equal(recommender.search.expected()[0], before)
    assert sorted([first, *recommender.ask(9)]) == list(range(9))


def test_a_candidate_may_be_taken_that_was_decided_on_before():
    recommender = HyperFD(0)
    recommender.start_task(task(0, budget=3), candidates(0))
    recommender.take(17)
    asked = recommender.ask(3)
    assert len(asked) == 2 and 17 not in asked
    recommender.tell(17, 0.5)
    with pytest.raises(ValueError, match=rf"Candidate 17 is not waiting.*: \[{asked[0]}, {asked[1]}\]"):
        recommender.tell(17, 0.5)
    with pytest.raises(ValueError, match="Candidate 3 is not waiting"):
        recommender.tell(3, 0.5)


@pytest.mark.parametrize("n", [-1, 0])
def test_nothing_is_asked_for_where_none_are_wanted(n):
    recommender = HyperFD(0)
    recommender.start_task(task(0), candidates(0))
    assert recommender.ask(n) == []


def test_equal_candidates_are_ordered_at_random_by_the_seed():
    equal = EncodedConfigurations(np.ones((12, WIDTH), dtype=np.float32))

    def firsts(seed):
        recommender = HyperFD(seed)
        picks = []
        for _ in range(3):
            recommender.start_task(task(0), equal)
            picks += recommender.ask(1)
        return picks

    assert firsts(4) == firsts(4)
    assert len({index for seed in range(12) for index in firsts(seed)}) > 5
    assert len({tuple(firsts(seed)) for seed in range(6)}) == 6


def test_architectures_are_seen_by_their_vectors():
    """The default preset keeps the flat encoding."""
    offered = configurations("joint", 20)
    with_graphs, flat = HyperFD(0), HyperFD(0)
    for recommender, given in ((with_graphs, offered), (flat, EncodedConfigurations(offered.vectors))):
        for _ in range(2):
            recommender.start_task(task(0), given)
            recommender.end_task(dict(enumerate(offered.vectors[:, 1].tolist())))
        recommender.start_task(task(1), given)
    np.testing.assert_array_equal(with_graphs.search.expected(), flat.search.expected())
    assert with_graphs.ask(4) == flat.ask(4)
