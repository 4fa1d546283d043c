"""Every alternative whose library is there, against the suite that all recommenders pass."""

from __future__ import annotations

import numpy as np
import pytest

from nni_hyperfd.benchmark import alternatives
from nni_hyperfd.benchmark.alternatives import NAMES, Unavailable
from nni_hyperfd.benchmark.alternatives.base import Alternative, TableSpace
from nni_hyperfd.benchmark.protocol import Protocol, pick_all, run
from nni_hyperfd.benchmark.tables import Table
from nni_hyperfd.recommenders.base import Task
from nni_hyperfd.recommenders.conformance import RecommenderConformance
from nni_hyperfd.space.encoded import EncodedConfigurations

# What a few seconds allow: those that learn rebuild what they know of all past tasks for each new one.
MANY = {"nni_random": 200, "nni_tpe": 200, "nni_evolution": 200, "optuna_tpe": 40}


def make(name, seed, columns=()):
    try:
        return alternatives.make(name, seed, columns)
    except Unavailable as error:
        pytest.skip(str(error))


# Several seconds per task, which the suite has hundreds of.
SLOW = ("optuna_gp", "smac", "syne_zero_shot", "syne_bounding_box", "syne_quantile", "optuna_meta_tpe")


def conformance(name):
    class Conformance(RecommenderConformance):
        many_tasks = MANY.get(name, 4)

        def make(self, seed):
            return make(name, seed)

    return pytest.mark.long(Conformance) if name in SLOW else Conformance


for _name in NAMES:
    globals()[f"Test_{_name}"] = conformance(_name)


EACH = [pytest.param(name, marks=pytest.mark.long if name in ("optuna_gp", "smac") else ()) for name in NAMES]


def mixed(tasks=4, configurations=30):
    """A category of three values, a number, and a number that every third configuration does not have."""
    rng = np.random.default_rng(0)
    numbers = rng.random((configurations, 2))
    numbers[::3, 1] = -0.5
    vectors = np.concatenate([np.eye(3)[rng.integers(3, size=configurations)], numbers], axis=1).astype(np.float32)
    performance = rng.random((tasks, configurations))
    performance[0, :5] = np.nan
    meta = rng.random((tasks, 2)).astype(np.float32)
    return Table(
        "mixed", [f"t{i}" for i in range(tasks)], performance, EncodedConfigurations(vectors), meta, columns=(3, 1, 1)
    )


@pytest.mark.parametrize("name", EACH)
def test_categories_inactive_numbers_and_gaps_and_the_same_seed_gives_the_same_picks(name):
    table = mixed()

    def picks(seed):
        return [o.picks for o in run(table, Protocol(), lambda seed: make(name, seed, table.columns), seed)]

    np.random.seed(1)
    first = picks(3)
    np.random.seed(2)
    assert first == picks(3) != picks(4)
    assert all(len(set(chosen)) == 4 for chosen in first)


@pytest.mark.parametrize("name", EACH)
def test_failures_and_a_budget_beyond_the_candidates(name):
    recommender = make(name, 0, (1, 1))
    candidates = EncodedConfigurations(np.random.default_rng(0).random((6, 2), dtype=np.float32))
    for _ in range(2):
        recommender.start_task(Task(20), candidates)
        picks = pick_all(recommender, np.array([0.1, np.nan, 0.3, 0.2, np.nan, 0.5]), 20, 2)
        recommender.end_task({i: 0.1 * i for i in range(6)})
        assert sorted(picks) == list(range(6))


def test_a_space_and_back():
    vectors = mixed().configurations.vectors
    space = TableSpace.covering(vectors, (3, 1, 1))
    assert space.numbers == {"x1": (0, 1), "x2": (-0.5, 1)} and space.categories == {"x0": ["v0", "v1", "v2"]}
    assert np.array([space.vector(space.point(vector)) for vector in vectors]) == pytest.approx(vectors)
    assert TableSpace.covering(vectors, (3, 1)).categories == {}  # columns of another table


class Fixed(Alternative):
    """Proposes the same point always and notes what it hears."""

    def begin(self, seed):
        self.heard = []
        return self

    def propose(self):
        return {"x0": 0.3}

    def observe(self, index, performance):
        self.heard.append((index, performance))


def test_the_nearest_candidate_that_was_not_asked_and_results_in_the_order_of_asking():
    fixed = Fixed(0)
    fixed.start_task(Task(9), EncodedConfigurations(np.array([[0.0], [0.25], [0.5], [1.0]], dtype=np.float32)))
    assert fixed.ask(3) == [1, 2, 0]
    for index in (0, 2, 1):
        fixed.tell(index, np.nan if index == 2 else float(index))
    assert fixed.ask(3) == [3]
    assert [index for index, _ in fixed.heard] == [1, 2, 0] and np.isnan(fixed.heard[1][1])


def test_equally_near_candidates_are_drawn_by_the_seed():
    candidates = EncodedConfigurations(np.array([[0.2], [0.4]] * 4, dtype=np.float32))

    def first(seed):
        fixed = Fixed(seed)
        fixed.start_task(Task(1), candidates)
        return fixed.ask(1)[0]

    chosen = [first(seed) for seed in range(40)]
    assert chosen == [first(seed) for seed in range(40)] and len(set(chosen)) > 1


def test_tpe_is_told_of_the_candidate_that_ran():
    recommender = make("nni_tpe", 0, (1,))
    recommender.start_task(Task(3), EncodedConfigurations(np.array([[0.25], [0.75]], dtype=np.float32)))
    (pick,) = recommender.ask(1)
    recommender.tell(pick, 2.0)
    recommender.ask(1)
    ((record,),) = recommender.search._history.values()
    assert record == ((0.25, 0.75)[pick], -2.0) and len(recommender.search._running_params) == 1


def test_a_library_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(alternatives, "_HOME", {"other": "no_such_module:Other"})
    with pytest.raises(Unavailable, match=r"other needs a library.*nni-hyperfd\[alternatives\]"):
        alternatives.make("other")
    with pytest.raises(ValueError, match="no alternative 'oracle'"):
        alternatives.make("oracle")


def test_the_meta_learning_sampler_comes_from_optunahubs_cache_and_is_given_the_past(tmp_path, monkeypatch):
    """optunahub itself, with a package of ours in its cache: the registry's needs a network."""
    pytest.importorskip("optunahub", reason="optunahub is not installed")
    package = tmp_path / "github.com/optuna/optunahub-registry/main/package/samplers/meta_learn_tpe"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "from optuna.samplers import RandomSampler\n\n\n"
        "class MetaLearnTPESampler(RandomSampler):\n"
        "    def __init__(self, source_studies, seed, n_startup_trials):\n"
        "        super().__init__(seed)\n"
        "        self.studies = source_studies\n"
    )
    monkeypatch.setenv("OPTUNAHUB_CACHE_HOME", str(tmp_path))
    table = mixed()
    recommender = make("optuna_meta_tpe", 0, table.columns)
    for task, results in ((0, {}), (1, {0: 0.5, 3: np.nan, 4: 0.25}), (2, {0: 0.1, 1: 0.1})):  # nothing to rank in two
        recommender.start_task(table.task(task, 4), table.configurations)
        recommender.end_task(results)
    recommender.start_task(table.task(3, 4), table.configurations)
    (pick,) = recommender.ask(1)
    recommender.tell(pick, 1.0)
    recommender.ask(1)
    (study,) = recommender.search.sampler.studies
    assert [trial.value for trial in study.trials] == [0.5, 0.25] and study.best_value == 0.5
    assert recommender.search.best_params == recommender.point(pick)
