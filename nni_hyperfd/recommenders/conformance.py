"""The contract of recommenders as tests to inherit.

    class TestMine(RecommenderConformance):
        def make(self, seed):
            return Mine(seed)

pytest collects the inherited tests. None of them measures how good a recommender is; `hyperfd benchmark` does.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np

from nni_hyperfd.recommenders.base import Recommender, Task
from nni_hyperfd.space import EncodedConfigurations, Graphs

_WIDTH, _DESCRIBED = 3, 2


class RecommenderConformance:
    """Tests of one class of recommenders; subclasses write `make`.

    Attributes:
        many_tasks: number of past tasks that it must cope with, at least 2; fewer where learning takes long.
        bytes_per_task: maximum number of bytes that it keeps of each task, as pickle writes it.
    """

    many_tasks = 1000
    bytes_per_task = 50_000

    def make(self, seed: int) -> Recommender:
        """Make a new recommender."""
        raise NotImplementedError("Write make(seed) in the subclass.")

    def test_same_seed_same_picks(self) -> None:
        """The same seed gives the same picks, whatever numpy's global generator does."""
        np.random.seed(1)
        first = self._picks(3)
        np.random.seed(2)
        assert self._picks(3) == first, "the same seed gave other picks: draw all random numbers from the seed"

    def test_picks_are_new_candidates_and_within_the_budget(self) -> None:
        """`ask` returns as many new candidates as it is asked for, until the budget is spent."""
        recommender = self._experienced()
        recommender.start_task(_task(5, budget=6), _candidates(9, 5))
        picks: list[int] = []
        for n in (1, 0, 2, 5, 1):
            asked = recommender.ask(n)
            assert len(asked) == min(n, 6 - len(picks)), f"ask({n}) after {len(picks)} of 6 picks gave {len(asked)}"
            picks += asked
            for index in asked:
                recommender.tell(index, float(index))
        assert len(set(picks)) == 6 and all(isinstance(i, int) and 0 <= i < 9 for i in picks), f"picks were {picks}"
        recommender.end_task({index: float(index) for index in picks})

    def test_candidates_may_run_out(self) -> None:
        """`ask` returns fewer candidates when there are no more."""
        recommender = self._experienced()
        recommender.start_task(_task(5, budget=6), _candidates(2, 5))
        assert sorted(recommender.ask(6)) == [0, 1]
        assert recommender.ask(1) == []

    def test_results_may_come_in_any_order(self) -> None:
        """The order in which results come changes no pick."""

        def told(order: Callable[[list[int]], list[int]]) -> list[list[int]]:
            recommender = self._experienced()
            recommender.start_task(_task(5, budget=6), _candidates(20, 5))
            pending = recommender.ask(3)
            for index in order(pending):
                recommender.tell(index, float(np.sin(index)))
            later = recommender.ask(3)
            revealed = {index: float(np.sin(index)) for index in order(pending + later)}
            recommender.end_task(revealed)
            recommender.start_task(_task(6), _candidates(20, 6))
            return [pending, later, recommender.ask(4)]

        assert told(list) == told(lambda indices: indices[::-1]), "the order of the results changed the picks"

    def test_failed_trials(self) -> None:
        """Trials may fail, some of a task or all of them."""
        recommender = self._experienced()
        for performance in (lambda i: np.nan if i % 2 else float(i), lambda i: np.nan):
            _lead(recommender, _task(5), _candidates(20, 5), performance)
        _lead(recommender, _task(6), _candidates(20, 6), float)

    def test_a_task_that_is_given_up(self) -> None:
        """A task may be left without its end."""
        recommender = self._experienced()
        recommender.start_task(_task(5), _candidates(20, 5))
        recommender.ask(2)
        _lead(recommender, _task(6), _candidates(20, 6), float)

    def test_nothing_but_the_own_picks_is_revealed(self) -> None:
        """The results of the own picks may be all that is ever revealed."""
        recommender = self.make(0)
        for seed in range(4):
            recommender.start_task(_task(seed), _candidates(20, seed))
            picks = [recommender.ask(1)[0] for _ in range(4)]
            results = {index: float(np.sin(index)) for index in picks}
            for index, performance in results.items():
                recommender.tell(index, performance)
            recommender.end_task(results)

    def test_constant_performance(self) -> None:
        """All results of a task may be equal."""
        recommender = self.make(0)
        for seed in range(4):
            _lead(recommender, _task(seed), _candidates(20, seed), lambda i: 0.5)
        _lead(recommender, _task(9), _candidates(20, 9), float)

    def test_extreme_performances(self) -> None:
        """Performances may have any scale, offset and sign."""
        recommender = self._experienced()
        for performance in (lambda i: 1e12 * i, lambda i: 1e-12 * i, lambda i: 1e6 + i, lambda i: -float(i)):
            _lead(recommender, _task(5), _candidates(20, 5), performance)

    def test_no_past_task(self) -> None:
        """The first task works."""
        _lead(self.make(0), _task(0), _candidates(20, 0), float)

    def test_one_past_task(self) -> None:
        """The second task works."""
        recommender = self.make(0)
        for seed in range(2):
            _lead(recommender, _task(seed), _candidates(20, seed), float)

    def test_a_task_of_which_nothing_is_revealed(self) -> None:
        """A task may end without any result."""
        recommender = self._experienced()
        recommender.start_task(_task(5), _candidates(20, 5))
        recommender.end_task({})
        _lead(recommender, _task(6), _candidates(20, 6), float)

    def test_meta_features_that_say_little(self) -> None:
        """A later meta-feature may be missing, unknown, empty or of another length."""
        recommender = self._experienced()
        others = (None, np.full(_DESCRIBED, np.nan), np.array([np.inf, 1.0]), np.zeros(0), np.ones(_DESCRIBED + 3))
        for seed, meta_feature in enumerate(others):
            task = Task(4, None if meta_feature is None else meta_feature.astype(np.float32))
            _lead(recommender, task, _candidates(20, seed), float)
        _lead(recommender, _task(6), _candidates(20, 6), float)

    def test_first_meta_features_that_say_little(self) -> None:
        """The first meta-feature may be missing, unknown, empty or of another length."""
        for meta_feature in (None, np.full(_DESCRIBED, np.nan), np.zeros(0), np.ones(_DESCRIBED + 3)):
            recommender = self.make(0)
            task = Task(4, None if meta_feature is None else meta_feature.astype(np.float32))
            _lead(recommender, task, _candidates(20, 0), float)
            for seed in range(1, 3):
                _lead(recommender, _task(seed), _candidates(20, seed), float)

    def test_large_meta_features(self) -> None:
        """Meta-features may be large."""
        recommender = self.make(0)
        for seed in range(3):
            _lead(recommender, Task(4, _task(seed).meta_feature * np.float32(1e12)), _candidates(20, seed), float)

    def test_image_features_now_and_then(self) -> None:
        """Image features and counts may come with some tasks only."""
        recommender = self.make(0)
        for seed in range(5):
            images = np.random.default_rng(seed).random((3, 3, 3, 5), dtype=np.float32)
            images[0, :, 0] = np.nan  # an image without a positive anchor
            counts = np.array([3, 9 + seed], dtype=np.float32)
            task = (Task(4, images=images, counts=counts), Task(4, images=images), Task(4, counts=counts))[seed % 3]
            _lead(recommender, task, _candidates(20, seed), float)

    def test_never_any_meta_feature(self) -> None:
        """Tasks may never have a meta-feature."""
        recommender = self.make(0)
        for seed in range(5):
            _lead(recommender, Task(4), _candidates(20, seed), float)

    def test_one_candidate(self) -> None:
        """A task may have one candidate only."""
        recommender = self._experienced()
        _lead(recommender, _task(5), _candidates(1, 5), float)
        recommender = self.make(0)
        for seed in range(4):
            _lead(recommender, _task(seed), _candidates(1, seed), float)

    def test_equal_candidates(self) -> None:
        """Candidates may be equal: all of them, or groups of four with different results."""
        equal = EncodedConfigurations(np.ones((20, _WIDTH), dtype=np.float32))
        repeated = EncodedConfigurations(np.repeat(_candidates(5, 5).vectors, 4, axis=0))
        for candidates in (equal, repeated):
            recommender = self._experienced()
            for seed in range(2):
                _lead(recommender, _task(seed), candidates, lambda i: float(np.sin(7 * i)))

    def test_candidates_that_are_networks(self) -> None:
        """Candidates may have graphs, of one space or of another."""
        recommender = self.make(0)
        for seed in range(4):
            rng = np.random.default_rng(seed)
            edges = np.triu(rng.random((20, 4, 4)) < 0.5, 1)
            graphs = Graphs(
                rng.integers(-1, 3, (20, 4)), edges, num_ops=3 + seed // 3
            )  # the last ones of another space
            _lead(recommender, _task(seed), EncodedConfigurations(_candidates(20, seed).vectors, graphs), float)
        _lead(recommender, _task(5), _candidates(20, 5), float)

    def test_candidates_far_from_all_seen(self) -> None:
        """Candidates may be far from all past ones."""
        recommender = self._experienced()
        far = EncodedConfigurations(_candidates(20, 5).vectors + np.float32(50.0))
        _lead(recommender, _task(5), far, float)

    def test_another_search_space(self) -> None:
        """The width of the encoded configurations may change from task to task."""
        recommender = self._experienced()
        wide = EncodedConfigurations(np.random.default_rng(0).random((20, _WIDTH + 2), dtype=np.float32))
        for candidates in (wide, _candidates(20, 6), wide):
            _lead(recommender, _task(5), candidates, float)

    def test_a_result_nobody_asked_for_is_refused(self) -> None:
        """`tell` raises ValueError for a candidate that was not asked for."""
        recommender = self._experienced()
        recommender.start_task(_task(5), _candidates(20, 5))
        (pick,) = recommender.ask(1)
        try:
            recommender.tell((pick + 1) % 20, 1.0)
        except ValueError:
            return
        raise AssertionError("tell took the result of a candidate that was not asked for; raise ValueError")

    def test_a_revealed_result_of_no_candidate_is_refused(self) -> None:
        """`end_task` raises ValueError for an index of no candidate."""
        for stray in (-1, 20):
            recommender = self.make(0)
            recommender.start_task(_task(0), _candidates(20, 0))
            try:
                recommender.end_task({0: 1.0, 1: 2.0, stray: 3.0})
            except ValueError:
                continue
            raise AssertionError("end_task took a result of no candidate; raise ValueError")

    def test_a_second_result_is_refused(self) -> None:
        """`tell` raises ValueError for a second result of a candidate."""
        recommender = self._experienced()
        recommender.start_task(_task(5), _candidates(20, 5))
        (pick,) = recommender.ask(1)
        recommender.tell(pick, np.nan)
        try:
            recommender.tell(pick, 1.0)
        except ValueError:
            return
        raise AssertionError("tell took a second result of the same candidate; raise ValueError")

    def test_many_past_tasks(self) -> None:
        """What is kept of a task does not grow with the number of tasks.

        How the time per task grows is left to a benchmark: a timed assertion fails on a busy machine.
        """
        recommender = self.make(0)
        half = self.many_tasks // 2
        kept = []
        for seeds in (range(half), range(half, 2 * half)):
            for seed in seeds:
                _lead(recommender, _task(seed), _candidates(6, seed), float)
            kept.append(len(pickle.dumps(recommender)))
        per_task = (kept[1] - kept[0]) / half
        assert per_task <= self.bytes_per_task, f"{per_task:.0f} bytes are kept of each task"
        assert kept[1] <= 2.5 * kept[0], f"{half} tasks take {kept[0]} bytes, twice as many {kept[1]}"

    def _experienced(self) -> Recommender:
        """A recommender with three past tasks."""
        recommender = self.make(0)
        for seed in range(3):
            _lead(recommender, _task(seed), _candidates(20, seed), float)
        return recommender

    def _picks(self, seed: int) -> list[list[int]]:
        """The picks of four tasks."""
        recommender = self.make(seed)
        return [_lead(recommender, _task(s), _candidates(20, s), lambda i: float(np.cos(i))) for s in range(4)]


def _task(seed: int, budget: int = 4) -> Task:
    return Task(budget, np.random.default_rng([seed, 1]).random(_DESCRIBED, dtype=np.float32))


def _candidates(n: int, seed: int) -> EncodedConfigurations:
    return EncodedConfigurations(np.random.default_rng([seed, 2]).random((n, _WIDTH), dtype=np.float32))


def _lead(
    recommender: Recommender, task: Task, candidates: EncodedConfigurations, performance: Callable[[int], float]
) -> list[int]:
    """Lead a recommender through one task, pick by pick, reveal all results at its end, and return the picks."""
    recommender.start_task(task, candidates)
    picks: list[int] = []
    for _ in range(min(task.budget, len(candidates))):
        asked = recommender.ask(1)
        assert len(asked) == 1 and asked[0] not in picks and 0 <= asked[0] < len(candidates), f"{asked} after {picks}"
        picks += asked
        recommender.tell(asked[0], performance(asked[0]))
    recommender.end_task({index: performance(index) for index in range(len(candidates))})
    return picks
