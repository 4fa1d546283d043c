"""What service trials are given."""

from __future__ import annotations

import pytest
import torch

from nni_hyperfd.method import weights
from nni_hyperfd.method.settings import MOST_TASKS
from nni_hyperfd.platform import Platform, own_datasets
from nni_hyperfd.platform.jobs import extract_job, job_of, learn_job
from nni_hyperfd.space import SearchSpace
from nni_hyperfd.task import Phase, TaskSettings
from nni_hyperfd.wire import Description, ExtractJob, LearnJob
from support.own_datasets import begin_warm, packed
from support.rows import add_task


def finished(lab, tuner, dataset=None):
    """The task of a tuner after its extract trial and two picks."""
    for _ in range(3):
        lab.step(tuner, dataset)
    return tuner.task_id


def test_only_service_trials_have_a_job(lab):
    tuner = lab.tuner("e", budget=2)
    assert job_of(tuner.platform, tuner.task_id, Phase.FINE_TUNE) is None
    assert isinstance(job_of(tuner.platform, tuner.task_id, Phase.EXTRACT), ExtractJob)
    assert isinstance(job_of(tuner.platform, tuner.task_id, Phase.LEARN), LearnJob)


def test_an_extract_job_holds_the_extractor_that_the_task_began_with(lab):
    slow = lab.tuner("slow", budget=2)
    assert extract_job(slow.platform, slow.task_id).extractor == {}, "the initial one"
    lab.run(lab.tuner("fast", budget=2, preset="paper"))
    assert extract_job(slow.platform, slow.task_id).extractor == {}
    newest = lab.tuner("newest", budget=2)
    job = extract_job(newest.platform, newest.task_id)
    head, _ = newest.platform.versions.tensors(newest.platform.versions.head_id())
    assert weights.dumps(job.extractor) == weights.dumps(head)


def test_a_client_may_start_anew_only_while_the_warm_up_is_all_that_would_be_given_up(lab):
    cold = lab.tuner("cold", state=str(lab.folder / "cold.sqlite"))
    assert not extract_job(cold.platform, cold.task_id).may_start_anew, "there is nothing that could not fit"
    space = SearchSpace.from_nni(lab.space)
    begin_warm(lab.state, space, lab.score, 2)
    tuner = lab.tuner("mine")
    assert extract_job(tuner.platform, tuner.task_id).may_start_anew
    tuner.platform.start(tuner.platform.next_trial(tuner.task_id).id, 0)
    tuner.platform.describe(tuner.task_id, 0, Description([0.5] * 64, 1, 1, 0.5))
    assert not extract_job(tuner.platform, tuner.task_id).may_start_anew


def test_a_learn_job_holds_the_tasks_own_results_and_a_sample_of_the_platforms_own_data_sets(lab):
    platform = Platform(lab.state)
    for number in range(10):
        own_datasets.add(platform, f"set {number}", packed(count=40, seed=number))
    tuner = lab.tuner("e", budget=2)
    finished(lab, tuner)
    job = learn_job(platform, tuner.task_id)
    assert job.performance.tolist() == pytest.approx(platform.task(tuner.task_id).results.performance)
    assert job.embeddings.shape == (2, 64)
    configurations = platform.task(tuner.task_id).results.configurations
    encoder = platform.versions.encoder(SearchSpace.from_nni(lab.space)).encoder
    with torch.no_grad():
        assert torch.equal(job.embeddings, encoder(SearchSpace.from_nni(lab.space).encode(configurations)))
    assert len(job.offline) == 8 and {tuple(images.shape) for images in job.offline} == {(16, 3, 3, 12)}
    # Nothing of other clients: no other tensors, in particular no meta-features.
    assert job.replay is None and job.extractor == job.importance == {}
    again = learn_job(platform, tuner.task_id)
    assert again.pack() == job.pack(), "also after a resume"


def test_the_seed_of_the_task_makes_the_draws(lab):
    platform, space = Platform(lab.state), SearchSpace.from_nni(lab.space)
    for number in range(10):
        own_datasets.add(platform, f"set {number}", packed(seed=number))
    jobs = []
    for seed in (3, 4):
        task_id = platform.open_task(f"e{seed}", space, TaskSettings(seed=seed))
        jobs.append(learn_job(platform, task_id))
    assert [job.seed for job in jobs] == [4, 6], "the seed and the number of the task"
    first, second = (job.offline for job in jobs)
    assert any(not torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_with_replay_a_learn_job_also_holds_past_meta_features_and_nothing_that_names_them(lab):
    platform = Platform(lab.state)
    for number in range(3):
        own_datasets.add(platform, f"set {number}", packed(seed=number))
    for number in range(2):
        lab.run(lab.tuner(f"e{number}", budget=2, preset="paper"), lab.dataset(number))
    tuner = lab.tuner("e", budget=2, preset="paper", replay="meta-features")
    finished(lab, tuner, lab.dataset(2))
    job = learn_job(platform, tuner.task_id)
    assert job.extractor and job.importance and len(job.offline) == 3
    task = platform.task(tuner.task_id)
    carried = platform.versions.carried(platform.tasks()[:2], task.extractor_id)
    rows = {tuple(row) for row in job.replay.tolist()}
    assert len(rows) == 2 and rows == {tuple(h.tolist()) for h in carried.values()}
    lab.run(tuner, lab.dataset(2))
    assert platform.task(tuner.task_id).extractor_id == 4


def test_replay_holds_clients_meta_features_only_and_no_more_than_are_learned_from(lab):
    space = SearchSpace.from_nni(lab.space)
    begin_warm(lab.state, space, lab.score, 2)
    platform = Platform(lab.state)
    settings = TaskSettings(budget=2, candidates=2, replay="meta-features")
    first = platform.open_task("first", space, settings)
    assert learn_job(platform, first).replay is None, "the warm-up is no client's"
    for number in range(MOST_TASKS + 2):
        add_task(
            platform, space, f"e{number}", [0.1, 0.2], meta_feature=[float(number)] * 64, extractor_id=2, share=True
        )
    last = platform.open_task("last", space, settings)
    replay = learn_job(platform, last).replay
    numbers = [int(row[0]) for row in replay.tolist()]
    assert len(set(numbers)) == len(numbers) == MOST_TASKS and numbers != sorted(numbers)
