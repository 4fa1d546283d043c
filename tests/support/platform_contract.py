"""What every `PlatformClient` does, wherever its platform is: a class of tests that each of them inherits.

A subclass has a fixture `client`: a new client of an empty platform.
"""

from __future__ import annotations

import pytest
import torch

from nni_hyperfd.method.meta_feature import MetaFeatureExtractor
from nni_hyperfd.platform import PlatformClient, RefusedError, UnknownTaskError
from nni_hyperfd.space import SearchSpace, SpaceError
from nni_hyperfd.task import Phase, Preset, Replay, Status, TaskSettings
from nni_hyperfd.wire import Description, ExtractJob, ExtractorUpdate, LearnJob

SPACE = SearchSpace.from_nni({"x": {"_type": "choice", "_value": list(range(12))}})
DESCRIPTION = Description([0.5] * 64, 20, 30, 0.25, initial=False, among=1)


def opened(client: PlatformClient, experiment: str = "e", **settings) -> int:
    return client.open_task(experiment, SPACE, TaskSettings(**{"candidates": 12, "budget": 2, **settings}))


def run_next(client: PlatformClient, task_id: int, parameter_id: int):
    """Start the next trial."""
    trial = client.next_trial(task_id)
    assert trial is not None
    client.start(trial.id, parameter_id)
    return trial


def described(client: PlatformClient, **settings) -> int:
    task_id = opened(client, **settings)
    run_next(client, task_id, 0)
    client.describe(task_id, 0, DESCRIPTION)
    return task_id


class Contract:
    def test_a_whole_task(self, client):
        task_id = described(client)
        client.prepare(task_id)
        for parameter_id in (1, 2):
            trial = run_next(client, task_id, parameter_id)
            assert trial.phase is Phase.FINE_TUNE and client.job(task_id, trial.phase) is None
            client.observe(task_id, parameter_id, trial.configuration["x"] / 20)
            client.settle(task_id)
        assert client.next_trial(task_id) is None
        task = client.task(task_id)
        assert task.closed is not None and task.meta_feature == (0.5,) * 64
        assert (task.num_images, task.num_boxes, task.baseline) == (20, 30, 0.25)
        assert task.experiment == "e" and task.space == SPACE and task.settings.budget == 2
        assert [trial.status for trial in task.trials] == [Status.SUCCEEDED] * 3
        assert task.best == max(t.configuration["x"] / 20 for t in task.trials if t.tries)
        assert all(trial.started.tzinfo == task.created.tzinfo for trial in task.trials)

    def test_settings_arrive_as_they_were_sent(self, client):
        settings = TaskSettings(3, 11, 0.125, 2**32 - 1, False, True, Preset.PAPER, Replay.META_FEATURES)
        assert client.task(client.open_task("e", SPACE, settings)).settings == settings

    def test_every_call_may_be_repeated(self, client):
        """As after a lost answer."""
        task_id = opened(client)
        assert opened(client) == task_id
        trial = client.next_trial(task_id)
        assert client.next_trial(task_id) == trial
        client.start(trial.id, 0)
        before = client.task(task_id)
        client.start(trial.id, 0)
        assert client.task(task_id) == before
        for _ in range(2):
            client.describe(task_id, 0, DESCRIPTION)
        run_next(client, task_id, 1)
        for performance in (0.5, 0.5, 0.75, None):
            client.observe(task_id, 1, performance)
        before = client.task(task_id)
        client.start(before.trials[1].id, 1)  # one that comes late
        for _ in range(2):
            client.add_experience(task_id, {"x": 11}, 0.125)
        task = client.task(task_id)
        assert task.trials[:2] == before.trials
        assert [t.performance for t in task.trials if t.is_result] == [0.5, 0.125]
        for _ in range(2):
            client.close_task(task_id)
        assert client.task(task_id).closed is not None

    def test_an_update_of_the_extractor_is_taken_in_once(self, client):
        task_id = described(client, preset=Preset.PAPER)
        for parameter_id in (1, 2):
            run_next(client, task_id, parameter_id)
            client.observe(task_id, parameter_id, parameter_id / 4)
        client.settle(task_id)
        assert run_next(client, task_id, 3).phase is Phase.LEARN
        job = client.job(task_id, Phase.LEARN)
        assert isinstance(job, LearnJob) and job.embeddings.shape == (2, 64)
        assert torch.equal(job.performance, torch.tensor([0.25, 0.5]))
        network = MetaFeatureExtractor.initial(8, seed=3).state_dict()
        importance = {name: torch.ones_like(tensor) for name, tensor in network.items()}
        for _ in range(2):
            client.close_task(task_id, ExtractorUpdate(network, importance, [0.125] * 64))
        task = client.task(task_id)
        assert task.closed is not None and task.meta_feature == (0.125,) * 64
        assert task.extractor_id == 2, "the initial version and this one"
        given = client.job(opened(client, "next"), Phase.EXTRACT)
        assert isinstance(given, ExtractJob) and len(given.versions) == 1 and not given.may_start_anew
        assert given.extractor.keys() == network.keys()
        assert all(torch.equal(given.extractor[name], network[name]) for name in network)

    def test_what_does_not_fit_is_refused_and_changes_nothing(self, client):
        task_id = described(client)
        before = client.task(task_id)
        other = SearchSpace.from_nni({"y": {"_type": "choice", "_value": [1, 2]}})
        with pytest.raises(SpaceError, match="experiment e was begun with another search space"):
            client.open_task("e", other, TaskSettings())
        with pytest.raises(SpaceError, match="the name 'phase' is taken"):
            client.open_task("f", SearchSpace.from_nni({"phase": {"_type": "choice", "_value": [1]}}), TaskSettings())
        with pytest.raises(SpaceError, match="x: 12 is none of"):
            client.add_experience(task_id, {"x": 12}, 0.5)
        update = ExtractorUpdate({"a": torch.zeros(2)}, {}, [0.5] * 64)
        with pytest.raises(RefusedError, match="extractor"):
            client.close_task(task_id, update)
        assert client.task(task_id) == before

    def test_a_pick_of_the_clients_own_takes_the_place_of_a_planned_one(self, client):
        """As when the server was away, and had planned another one just before."""
        task_id = described(client)
        best = client.ranking(task_id)
        assert [one.rank for one in best] == [1, 2] and len({one.configuration["x"] for one in best}) == 2
        planned = client.next_trial(task_id)
        own = next(one for one in best if one.configuration != planned.configuration)
        for _ in range(2):
            client.take(task_id, 1, own.configuration, own.rank)
        (trial,) = [trial for trial in client.task(task_id).trials if trial.tries]
        assert (trial.id, trial.configuration, trial.rank) == (planned.id, own.configuration, own.rank)
        client.observe(task_id, 1, 0.5)
        client.take(task_id, 1, own.configuration, own.rank)
        client.take(task_id, 2, planned.configuration)
        tried = [trial for trial in client.task(task_id).trials if trial.tries]
        assert [(trial.parameter_id, trial.performance) for trial in tried] == [(1, 0.5), (2, None)]
        assert client.next_trial(task_id) is None, "the budget is spent"
        with pytest.raises(SpaceError, match="x: 12 is none of"):
            client.take(task_id, 3, {"x": 12})
        client.observe(task_id, 2, 0.25)
        client.close_task(task_id)
        with pytest.raises(RefusedError, match=f"task {task_id} is closed"):
            client.take(task_id, 3, {"x": 11})

    def test_what_is_not_there_is_said(self, client):
        opened(client)
        for call in (
            lambda: client.task(77),
            lambda: client.next_trial(77),
            lambda: client.start(77, 0),
            lambda: client.release(77, {(1, 0)}),
            lambda: client.add_experience(77, {"x": 1}, 0.5),
            lambda: client.settle(77),
            lambda: client.take(77, 0, {"x": 1}),
            lambda: client.ranking(77),
            lambda: client.prepare(77),
            lambda: client.close_task(77),
            lambda: client.job(77, Phase.EXTRACT),
        ):
            with pytest.raises(UnknownTaskError, match="there is no t(ask|rial) 77"):
                call()
        assert client.forget(77) is False

    def test_failed_released_and_forgotten(self, client):
        task_id = opened(client)
        trial = run_next(client, task_id, 0)
        client.release(task_id, {(trial.id, 1), (trial.id + 1, 0)})
        assert client.task(task_id).running(0) is not None
        client.release(task_id, {(trial.id, 0)})
        assert client.task(task_id).running(0) is None and client.next_trial(task_id).phase is Phase.EXTRACT
        run_next(client, task_id, 4)
        client.release(task_id, {(trial.id, 0)})
        assert client.task(task_id).running(4) is not None, "a copy that comes late changes nothing"
        client.observe(task_id, 4, None, "no memory")
        assert [(t.status, t.reason) for t in client.task(task_id).trials] == [(Status.FAILED, "no memory")]
        assert client.forget(task_id) is True
        with pytest.raises(UnknownTaskError):
            client.task(task_id)
