from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics.pairwise import rbf_kernel

from nni_hyperfd.belief.distances import distances
from nni_hyperfd.belief.targets import normal_scores, relative_rank
from nni_hyperfd.recommenders.base import Task
from nni_hyperfd.recommenders.hyperfd import HyperFD
from nni_hyperfd.recommenders.hyperstar import HyperSTAR, average_precision
from nni_hyperfd.recommenders.paper import PaperHyperFD
from nni_hyperfd.recommenders.scot import _embedded, _RankingSVM
from nni_hyperfd.recommenders.simple import BestOnSource, MeanRank, NearestTasks
from nni_hyperfd.recommenders.tr_automl import TrAutoML
from nni_hyperfd.space.encoded import EncodedConfigurations

SAME = EncodedConfigurations(np.arange(12, dtype=np.float32).reshape(6, 2))
FIRST = [0.0, 1, 2, 3, 4, 5]
SECOND = [5.0, 3, 4, 0, 2, 1]


def lead(recommender, performance, meta_feature=None, candidates=SAME):
    recommender.start_task(Task(2, meta_feature), candidates)
    recommender.end_task(dict(enumerate(performance)))


def picks(recommender, n=2, meta_feature=None, candidates=SAME):
    recommender.start_task(Task(n, meta_feature), candidates)
    return recommender.ask(n)


def test_targets_by_hand():
    assert relative_rank(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [0.75, 0.125, 0.75, 0.375]
    assert normal_scores(np.ones(4)).tolist() == [0, 0, 0, 0]
    assert normal_scores(np.array([1.0, 2.0]))[1] == pytest.approx(0.6744898)


def test_mean_rank_and_best_on_source_on_the_same_configurations():
    # ranks 1..6: the first task's rise, the second's are 6 4 5 1 3 2, so their sums are 7 6 8 5 8 8
    for kind, order in ((MeanRank, [{2, 4, 5}, {0}, {1}, {3}]), (BestOnSource, [{5}, {4}, {3}, {2}, {1}, {0}])):
        recommender = kind()
        for performance in (FIRST, SECOND):
            lead(recommender, performance)
        scores = recommender.start_task(Task(6), SAME) or recommender.scores()
        found = np.argsort(-scores).tolist()
        for group in order:
            assert {found.pop(0) for _ in group} == group, kind


def test_nearest_tasks_follow_the_meta_feature():
    recommender = NearestTasks()
    for place in range(3):
        lead(recommender, FIRST, np.array([0.0, place / 10]))
        lead(recommender, FIRST[::-1], np.array([9.0, place / 10]))
    assert picks(recommender, meta_feature=np.array([0.1, 0.1])) == [5, 4]
    assert picks(recommender, meta_feature=np.array([8.9, 0.1])) == [0, 1]


def test_distances_by_hand():
    rows = [np.array([0.0, 5.0]), np.array([2.0, np.nan]), None, np.array([1.0, 5.0])]
    apart = distances(rows)
    sd = np.std([0.0, 2.0, 1.0])
    assert apart[0, 1] == pytest.approx(np.sqrt(((2 / sd) ** 2 + 2) / 2))
    assert apart[0, 3] == pytest.approx(np.sqrt(((1 / sd) ** 2 + 0) / 2))
    assert apart[0, 2] == pytest.approx(np.sqrt(2)) and np.diag(apart).tolist() == [0, 0, 0, 0]
    assert np.allclose(apart, apart.T)
    assert distances([None]).tolist() == [[0]]


def test_average_precision_by_hand():
    assert average_precision(np.array([0, 1, 2]), [2, 0, 1]) == 1
    # of 12 items the best 10 are 0..9; two strangers lead
    assert average_precision(np.array([10, 11, *range(8)]), list(range(12))) == pytest.approx(
        sum(hit / (hit + 2) for hit in range(1, 9)) / 10
    )


def test_ranking_svm_orders_its_pairs_and_its_values_are_the_expansion():
    rng = np.random.default_rng(0)
    x, z = rng.random((40, 2)), rng.random((40, 2))
    swap = (x[:, 0] > z[:, 0])[:, None]
    better, worse = np.where(swap, x, z), np.where(swap, z, x)
    machine = _RankingSVM(better, worse)
    assert np.mean(machine.values(better) > machine.values(worse)) > 0.9
    points = rng.random((5, 2))
    expanded = sum(
        w * (rbf_kernel(points, b[None], 0.5) - rbf_kernel(points, c[None], 0.5))[:, 0]
        for w, b, c in zip(machine._weights, better, worse, strict=True)
    )
    assert np.allclose(machine.values(points), expanded)


def test_classical_scaling_keeps_euclidean_distances():
    places = np.random.default_rng(0).random((6, 3))
    apart = np.linalg.norm(places[:, None] - places, axis=-1)
    found = _embedded(apart)
    assert np.allclose(np.linalg.norm(found[:, None] - found, axis=-1), apart, atol=1e-6)


def test_tr_automl_charges_its_probe_and_takes_over_the_nearest_tasks_best():
    rng = np.random.default_rng(0)
    candidates = EncodedConfigurations(rng.random((60, 2), dtype=np.float32))
    rising, falling = candidates.vectors[:, 0], -candidates.vectors[:, 0]
    recommender = TrAutoML()
    for performance in (rising, falling, rising, falling):
        lead(recommender, performance.tolist(), candidates=candidates)
    assert recommender.clusters == [0, 1, 0, 1]
    for performance, best in ((rising, rising.argmax()), (falling, falling.argmax())):
        recommender.start_task(Task(4), candidates)
        asked = []
        for _ in range(4):
            asked += recommender.ask(1)
            recommender.tell(asked[-1], float(performance[asked[-1]]))
        assert best in asked[2:] and best not in asked[:2]


def test_hyperstar_learns_and_its_adversary_runs_on_images():
    rng = np.random.default_rng(0)
    candidates = EncodedConfigurations(rng.random((60, 2), dtype=np.float32))
    recommender = HyperSTAR(0)
    for seed in range(6):
        images = np.random.default_rng(seed).random((8, 3, 3, 2), dtype=np.float32)
        recommender.start_task(Task(4, images=images), candidates)
        recommender.end_task(dict(enumerate(candidates.vectors[:, 0].tolist())))
    recommender.start_task(Task(4, images=images), candidates)
    assert np.corrcoef(recommender.scores(), candidates.vectors[:, 0])[0, 1] > 0.8


def test_the_papers_picks_are_half_greedy_and_half_drawn():
    recommender = PaperHyperFD(0)
    rng = np.random.default_rng(0)
    candidates = EncodedConfigurations(rng.random((60, 2), dtype=np.float32))
    lead(recommender, candidates.vectors[:, 0].tolist(), np.ones(3), candidates)
    recommender.start_task(Task(4, np.ones(3)), candidates)
    scores = recommender.scores()
    assert recommender.ask(4)[:2] == np.argsort(-scores)[:2].tolist()
    assert len(recommender.past) == 1 and recommender.past[0].meta_feature.shape == (64,)


def test_the_default_learns_what_tasks_share_and_says_how_sure_it_is():
    rng = np.random.default_rng(0)
    recommender = HyperFD(0)
    for seed in range(4):
        candidates = EncodedConfigurations(np.random.default_rng(seed).random((60, 3), dtype=np.float32))
        lead(recommender, (-((candidates.vectors[:, 0] - 0.7) ** 2)).tolist(), rng.random(2), candidates)
    candidates = EncodedConfigurations(rng.random((50, 3), dtype=np.float32))
    recommender.start_task(Task(4, rng.random(2)), candidates)
    truth = -((candidates.vectors[:, 0] - 0.7) ** 2)
    expected, deviation = recommender.search.expected()
    assert np.corrcoef(expected, truth)[0, 1] > 0.8 and (deviation > 0).all()
    asked = recommender.ask(1)
    recommender.tell(asked[0], float(truth[asked[0]]))
    asked += recommender.ask(2)  # the second of these is conditioned on the first, which is still running
    for index in asked[1:]:
        recommender.tell(index, float(truth[index]))
    assert truth[asked].max() >= np.sort(truth)[-3]
