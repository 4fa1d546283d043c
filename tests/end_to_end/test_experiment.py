"""Two data sets, one experiment each, on one state: all goes well."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from nni_hyperfd import Platform
from nni_hyperfd.method import weights
from nni_hyperfd.task import Phase
from nni_hyperfd.wire import Description, ExtractorUpdate, answer_in, job_in
from support.harness import Experiment, before

pytestmark = pytest.mark.nni
BUDGET = 3


@pytest.fixture(params=[0, 1], ids=["first", "second"])
def ended(request: pytest.FixtureRequest, two_data_sets: list[Experiment]) -> Experiment:
    return two_data_sets[request.param]


def test_the_phases_come_in_order_and_the_experiment_ends_by_itself(ended: Experiment) -> None:
    jobs = ended.trial_jobs()
    phases = [job["record"]["parameters"].get("phase", "pick") for job in jobs]
    assert phases == ["extract", *["pick"] * BUDGET, "learn"]
    assert {job["status"] for job in jobs} == {"SUCCEEDED"}
    extract, *picks, learn = jobs
    # A phase begins with the last report of the one before, while that trial may still be on its way out.
    reported = {m["trialJobId"]: m["timestamp"] for m in ended.rest("/metric-data") if m["type"] == "PERIODICAL"}
    assert reported[extract["trialJobId"]] <= min(job["startTime"] for job in picks)
    assert max(reported[job["trialJobId"]] for job in picks) <= learn["startTime"]
    assert ended.status() == "DONE" and ended.errors() == []


def test_picks_run_at_the_same_time(ended: Experiment) -> None:
    times = {(entry["number"], entry["event"]): entry["time"] for entry in ended.ran()}
    assert max(times[1, "begin"], times[2, "begin"]) < min(times[1, "end"], times[2, "end"])


def test_what_nni_shows_is_what_ran_and_what_is_kept(ended: Experiment) -> None:
    ended.check_same_everywhere()
    task = ended.task()
    assert task.closed is not None
    assert (task.num_images, task.num_boxes, task.baseline, len(task.meta_feature)) == (20, 31, 0.25, 64)
    finals = {job["record"]["parameter_id"]: job["final"] for job in ended.trial_jobs()}
    assert {t.parameter_id: t.performance for t in ended.picks()} == {
        t.parameter_id: finals[t.parameter_id]["default"] for t in ended.picks()
    }
    configurations = [json.dumps(t.configuration) for t in ended.picks()]
    assert len(set(configurations)) == BUDGET


def test_the_web_ui_is_sent_only_numbers_and_short_strings(ended: Experiment) -> None:
    for job in ended.trial_jobs():
        for values in (job["record"]["parameters"], job["final"] or {}):
            for name, value in values.items():
                assert isinstance(value, (int, float)) or isinstance(value, str) and len(value) < 32, (name, value)


def test_only_the_learn_trial_has_no_final_result(ended: Experiment) -> None:
    finals = [job["final"] for job in ended.trial_jobs()]
    assert finals[-1] is None and None not in finals[:-1]
    # What only one kind of trial reports is an axis of NNI's plot on which the lines of the others break off.
    assert set(finals[0]) == {"default", "phase", "seconds"} <= set(finals[1])
    assert finals[0]["default"] == 0.25 and finals[0]["phase"] == "extract"


def test_the_dispatcher_has_nothing_to_complain_of(ended: Experiment) -> None:
    log = ended.log("dispatcher")
    assert "Dispatcher started" in log and "WARNING" not in log and "ERROR" not in log, log


def test_the_second_experiment_starts_from_the_first_ones_extractor(two_data_sets: list[Experiment]) -> None:
    first, second = two_data_sets
    assert Platform(first.state).counts()["extractor versions"] == 3  # the initial one, and one for each task
    jobs = [job_in(experiment.trial_jobs()[0]["record"]) for experiment in two_data_sets]
    (learned,) = [answer for answer in answers(first) if answer["phase"] == Phase.LEARN]
    assert jobs[0].extractor == {}
    assert weights.dumps(jobs[1].extractor) == weights.dumps(ExtractorUpdate.unpack(learned).extractor)


def test_the_second_experiment_is_ranked_by_what_the_first_has_taught(two_data_sets: list[Experiment]) -> None:
    """What the second was told, told again to a copy of the state from before it, gives the same first picks."""
    first, second = two_data_sets
    assert Platform(first.state).counts()["encoder versions"] == 2
    learned, untaught = Platform(before(second)), Platform(second.folder / "empty.sqlite")
    assert learned.counts()["encoder versions"] == 1
    scores = first_picks(second, learned)
    shown = {json.dumps(t.configuration): t.score for t in second.picks()}
    assert scores.items() <= {name: pytest.approx(score, rel=1e-4) for name, score in shown.items()}.items()
    assert list(first_picks(second, untaught).values()) != pytest.approx(list(scores.values()), rel=1e-2)


def first_picks(told: Experiment, platform: Platform) -> dict[str, float]:
    """Configuration (as JSON) -> score of what the platform plans when it is told what this experiment was told."""
    (described,) = [answer for answer in answers(told) if answer["phase"] == Phase.EXTRACT]
    task = told.task()
    replayed = platform.open_task("replayed", task.space, task.settings)
    platform.start(platform.next_trial(replayed).id, 0)
    # By whichever extractor the platform has: one of them has not learned what made the description.
    platform.describe(replayed, 0, replace(Description.unpack(described), extractor=None))
    platform.next_trial(replayed)
    planned = [trial for trial in platform.task(replayed).trials if trial.phase is Phase.FINE_TUNE]
    assert planned
    return {json.dumps(trial.configuration): trial.score for trial in planned}


def answers(experiment: Experiment) -> list[dict]:
    """What its service trials answered, as NNI keeps it."""
    reports = [json.loads(json.loads(metric["data"])) for metric in experiment.rest("/metric-data")]
    return [answer for report in reports if (answer := answer_in(report)) is not None]
