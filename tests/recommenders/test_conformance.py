"""Every recommender of the package against the suite that others subclass."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from nni_hyperfd.method import RankerSettings
from nni_hyperfd.recommenders import NAMES, ScoringRecommender, make
from nni_hyperfd.recommenders.conformance import RecommenderConformance
from nni_hyperfd.recommenders.described import ResNetHyperFD, StatisticsHyperFD
from nni_hyperfd.recommenders.paper import PaperHyperFD

# How many past tasks a few seconds allow. Those with thousands look at one past task at most; those with hundreds
# interpolate every past task for each new one; the others train after each task, which takes as long for each.
MANY = {
    "random": 3000,
    "best_on_source": 3000,
    "mean_rank": 300,
    "knn": 300,
    "tr_automl": 100,
    "hyperstar": 20,
    "scot": 40,
    "hyperfd": 36,
    "hyperfd_paper": 40,
    "hyperfd_mse": 40,
    "hyperfd_resnet": 40,
    "hyperfd_statistics": 40,
}
# The paper's networks learn in fewer batches here, which changes nothing but the time.
QUICK = {
    "hyperfd_paper": lambda seed: PaperHyperFD(seed, RankerSettings(batches=4)),
    "hyperfd_mse": lambda seed: PaperHyperFD(seed, RankerSettings(batches=4, loss="mse")),
    "hyperfd_resnet": lambda seed: ResNetHyperFD(seed, RankerSettings(batches=4)),
    "hyperfd_statistics": lambda seed: StatisticsHyperFD(seed, RankerSettings(batches=4)),
}


def conformance(name: str) -> type[RecommenderConformance]:
    class Conformance(RecommenderConformance):
        many_tasks = MANY[name]

        def make(self, seed):
            return QUICK[name](seed) if name in QUICK else make(name, seed)

    return Conformance


for _name in NAMES:
    globals()[f"Test_{_name}"] = conformance(_name)


@pytest.mark.parametrize("name", NAMES)
def test_names_make_what_they_say(name):
    assert type(make(name, 1)) is type(make(name, 2))


def test_the_names_to_write_ones_own_are_public_and_do_not_cost_torch():
    code = "import sys; from nni_hyperfd.recommenders import *; print(sorted(globals()), 'torch' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed.endswith("False\n")
    for name in ("NAMES", "EncodedConfigurations", "Recommender", "ScoringRecommender", "Task", "make"):
        assert f"'{name}'" in printed


class Widest(ScoringRecommender):
    """The smallest complete recommender: it likes large vectors."""

    def scores(self):
        return np.linalg.norm(self.candidates.vectors, axis=1)


class TestSmallest(RecommenderConformance):
    many_tasks = 100

    def make(self, seed):
        return Widest(seed)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="no recommender 'oracle'"):
        make("oracle")


class Hoarder(Widest):
    """Keeps of each task what it knew of all earlier ones."""

    def __init__(self, seed=0):
        super().__init__(seed)
        self.seen = []

    def learn(self, indices, performance):
        self.seen.append([0] * 100 * (len(self.seen) + 1))


def test_the_suite_finds_memory_that_grows_with_the_square():
    suite = TestSmallest()
    suite.make = Hoarder
    with pytest.raises(AssertionError, match="50 tasks take"):
        suite.test_many_past_tasks()


class Forgetful(Widest):
    """Breaks the rules: its random numbers do not follow the seed, and it repeats itself."""

    def ask(self, n=1):
        picks = [int(np.random.randint(len(self.candidates)))] * n
        self.asked += picks
        return picks


@pytest.mark.parametrize("test", ["test_same_seed_same_picks", "test_picks_are_new_candidates_and_within_the_budget"])
def test_the_suite_finds_who_breaks_the_rules(test):
    suite = TestSmallest()
    suite.make = Forgetful
    with pytest.raises(AssertionError):
        getattr(suite, test)()
