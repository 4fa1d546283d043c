"""What the benchmark measures is what ships: both presets through the platform and through their recommender.

Four tasks follow a warm-up; with the paper's preset the platform refuses the third one's update of the extractor. Picks
and weights are the same to the last bit.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from nni_hyperfd.method import weights
from nni_hyperfd.platform import Platform, own_datasets, planning
from nni_hyperfd.platform.own_datasets import OfflineResults
from nni_hyperfd.recommenders.base import MeasuredDataset, Task
from nni_hyperfd.recommenders.hyperfd import HyperFD
from nni_hyperfd.recommenders.paper import PaperHyperFD
from nni_hyperfd.space import SearchSpace
from nni_hyperfd.warmup.train import train

SPACES = Path(__file__).resolve().parents[2] / "search_spaces"
OWN, TASKS, REFUSED, CANDIDATES, BUDGET = 3, 4, 2, 20, 4


@pytest.fixture(params=["hpo", "proxylessnas", "joint"])
def space(request):
    return SearchSpace.from_nni(json.loads((SPACES / f"{request.param}.json").read_text()))


def score(space, configuration):
    """A performance that depends on the configuration and on nothing random."""
    vector = space.encode([configuration]).vectors[0]
    return 0.5 + 0.01 * float(vector @ np.sin(np.arange(len(vector)) + 1.0))


class Shrunk:
    """A client whose update has other shapes than the extractor."""

    def __init__(self, message):
        tensors = weights.loads(weights.from_text(message["tensors"]))
        tensors["extractor.image.weight"] = tensors["extractor.image.weight"][:, :-1]
        data = weights.dumps(tensors)
        self.message = message | {"tensors": weights.to_text(data), "sha256": weights.sha256(data)}


def own_results(space, lab):
    results = []
    for number in range(OWN):
        configurations = space.sample(8, np.random.default_rng(number))
        images, counts = lab.dataset(100 + number).image_features(20, 0), torch.tensor([20.0, 31.0])
        performance = [score(space, configuration) for configuration in configurations]
        results.append(OfflineResults(f"own-{number}", images, counts, configurations, performance))
    return results


def through_the_platform(lab, space, preset, own):
    """The picks of each task, and the platform."""
    platform = Platform(lab.state)
    own_datasets.begin_with(platform, space, own, train(own, space, 3), 3)
    picks = []
    for number in range(TASKS):
        tuner = lab.tuner(f"task-{number}", dict(space.definition), preset=preset, seed=3, candidates=CANDIDATES)
        own_picks = []
        while not tuner.done:
            parameter_id = tuner.next_parameter_id()
            request = tuner.ask(parameter_id)
            if request.job is None:
                own_picks.append(request.configuration)
                tuner.receive_trial_result(parameter_id, None, score(space, request.configuration))
                continue
            (answer,), _ = lab.serve(request, lab.dataset(number))
            if number == REFUSED and str(request.job.phase) == "learn":
                answer = {"hyperfd": Shrunk(answer["hyperfd"]).message}
            tuner.receive_intermediate(parameter_id, answer)
            tuner.trial_end(parameter_id, True)
        failed = [trial.reason for trial in platform.task(tuner.task_id).trials if trial.reason]
        refused = number == REFUSED and preset == "paper"
        assert len(failed) == refused and all("extractor update" in reason for reason in failed)
        picks.append(own_picks)
    return platform, picks


def views(lab, space, own):
    """The same data sets and tasks as a recommender is told of them."""

    def task(images):
        return Task(BUDGET, None, images, np.array([20.0, 31.0], dtype=np.float32))

    measured = [
        MeasuredDataset(task(one.images.numpy()), space.encode(one.configurations), np.array(one.performance))
        for one in own
    ]
    return measured, [task(lab.dataset(number).image_features(256, 0).numpy()) for number in range(TASKS)]


def lead(recommender, space, tasks, task_id):
    """The recommender's picks of one task."""
    settings = planning.TaskSettings(seed=3, candidates=CANDIDATES)
    candidates = planning.candidates(space, settings, task_id, CANDIDATES)
    recommender.start_task(tasks, space.encode(candidates))
    picks = []
    while asked := recommender.ask(1):
        picks += asked
        recommender.tell(asked[0], score(space, candidates[asked[0]]))
    recommender.end_task({index: score(space, candidates[index]) for index in picks})
    return [candidates[index] for index in picks]


class RefusedOnce(PaperHyperFD):
    """The paper's recipe, where the platform refuses the update of one task."""

    def learn_extractor(self, images, configurations, performance):
        if self._number != OWN + REFUSED + 1:
            super().learn_extractor(images, configurations, performance)


def test_the_papers_preset_is_its_recommender(lab, space):
    own = own_results(space, lab)
    platform, picks = through_the_platform(lab, space, "paper", own)
    measured, tasks = views(lab, space, own)
    recommender = RefusedOnce(3, offline=measured)
    assert [lead(recommender, space, task, OWN + n + 1) for n, task in enumerate(tasks)] == picks

    extractor, importance = platform.versions.tensors(platform.versions.head_id())
    assert weights.dumps(recommender.extractor.state_dict()) == weights.dumps(extractor)
    assert weights.dumps(recommender.importance) == weights.dumps(importance)
    encoder = platform.versions.encoder(space).encoder
    assert weights.dumps(recommender.encoder.state_dict()) == weights.dumps(encoder.state_dict())
    stored = [task.meta_feature for task in platform.tasks() if task.dataset is None]
    kept = [past.meta_feature.tolist() for past in recommender.past if not past.offline]
    assert [list(h) for h in stored] == kept


class Told(HyperFD):
    """The default recommender, told its past tasks' meta-features as the platform has them."""

    def __init__(self, seed, offline, platform):
        super().__init__(seed)
        self.know(offline)
        self._platform = platform

    def past(self, width):
        known = self._platform.tasks()[: len(super().past(width))]
        return [
            dataclasses.replace(past, meta_feature=np.array(task.meta_feature, dtype=np.float32))
            for past, task in zip(super().past(width), known, strict=True)
        ]


def test_the_default_preset_is_its_recommender(lab, space):
    own = own_results(space, lab)
    platform, picks = through_the_platform(lab, space, "default", own)
    measured, tasks = views(lab, space, own)
    recommender, paper = Told(3, measured, platform), PaperHyperFD(3, offline=measured)
    for number, (task, known) in enumerate(zip(tasks, platform.tasks()[OWN:], strict=True)):
        # The paper's recommender plays the client, which describes its data set by the extractor of the warm-up.
        paper.start_task(task, space.encode([first(space, known.id)]))
        described = dataclasses.replace(task, images=None, counts=None, meta_feature=paper.meta_feature.numpy())
        assert lead(recommender, space, described, known.id) == picks[number]
    assert weights.dumps(paper.extractor.state_dict()) == weights.dumps(
        platform.versions.tensors(platform.versions.head_id())[0]
    )


def first(space, task_id):
    return planning.candidates(space, planning.TaskSettings(seed=3), task_id, 1)[0]
