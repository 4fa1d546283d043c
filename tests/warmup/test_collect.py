"""What the command checks before anything runs, and what it says; tests/end_to_end/test_warmup.py runs it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from nni_hyperfd.warmup import collect
from nni_hyperfd.warmup.advisor import PairTuner
from nni_hyperfd.warmup.pairs import PairFile, Progress

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def experiment(tmp_path: Path) -> Callable[..., Path]:
    """Writes the example's experiment file with other entries."""

    def write(**changes: Any) -> Path:
        content = yaml.safe_load((EXAMPLES / "warmup.yml").read_text())
        content |= {"searchSpaceFile": str(EXAMPLES.parent / "search_spaces" / "hpo.json"), "trialCodeDirectory": "."}
        content = {name: value for name, value in (content | changes).items() if value is not None}
        (tmp_path / "experiment.yml").write_text(yaml.safe_dump(content))
        return tmp_path / "experiment.yml"

    return write


def test_the_example_is_taken_as_it_is() -> None:
    _, space = collect.load_experiment(EXAMPLES / "warmup.yml")
    assert space.size == 216


def test_the_users_tuner_and_trial_number_give_way_to_the_pairs(
    experiment: Callable[..., Path], tmp_path: Path
) -> None:
    tuner = {"name": "TPE", "classArgs": {"optimize_mode": "maximize"}}
    config, _ = collect.load_experiment(experiment(tuner=tuner, maxTrialNumber=3, trialConcurrency=4))
    collect._use_pairs(config, tmp_path / "pairs.sqlite")
    ready = config.canonical_copy()
    assert ready.tuner.class_name == "nni_hyperfd.warmup.advisor.PairAdvisor" and ready.tuner.name is None
    assert ready.tuner.class_args == {"pairs": str(tmp_path / "pairs.sqlite")}
    assert (ready.max_trial_number, ready.trial_concurrency) == (None, 4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trialCommand": None}, "trial_command"),
        ({"trialConcurrency": 0}, "does not accept it: assert self.trial_concurrency > 0"),
        ({"nonsense": 1}, "nonsense"),
        ({"searchSpaceFile": None}, "search_space"),
        (
            {"searchSpaceFile": None, "searchSpace": {"x": {"_type": "normal", "_value": [0, 1]}}},
            "'x' of type 'normal'",
        ),
        ({"searchSpaceFile": None, "searchSpace": {"data": {"_type": "choice", "_value": [0, 1]}}}, "'data'"),
    ],
)
def test_an_experiment_that_cannot_run_is_refused(experiment: Callable[..., Path], changes: dict, words: str) -> None:
    with pytest.raises(collect.CollectError, match=words):
        collect.load_experiment(experiment(**changes))


def test_a_file_that_is_no_experiment_is_refused(tmp_path: Path) -> None:
    for content, words in {"[": "NNI does not accept it", "[1]": "not a dict"}.items():
        (tmp_path / "bad.yml").write_text(content)
        with pytest.raises(collect.CollectError, match=words):
            collect.load_experiment(tmp_path / "bad.yml")
    with pytest.raises(collect.CollectError, match="none.yml: No such file"):
        collect.load_experiment(tmp_path / "none.yml")


def test_data_sets_are_the_folders_with_annotations(tmp_path: Path) -> None:
    with pytest.raises(collect.CollectError, match="no folder in it is a data set"):
        collect.find_data_sets(tmp_path)
    for name in ("b", "a", "empty"):
        (tmp_path / name).mkdir()
    for name in ("b", "a"):
        (tmp_path / name / "train.json").write_text("{}")
    assert collect.find_data_sets(tmp_path) == ["a", "b"]


def test_the_line_says_how_far_it_is_and_how_long_it_takes() -> None:
    progress = Progress(planned=60, running=2, succeeded=35, failed=3, failures=8, seconds=3661.4)
    line = collect.describe(progress, ended_before=18, seconds=100)
    assert line == "38 of 100 pairs, 3 of them failed, 2 running; 5.0 s a pair, 0:05:10 left; 1:01:01 of trials so far"
    assert "time left unknown" in collect.describe(progress, ended_before=38, seconds=100)


def test_results_that_only_nni_has_are_taken_in(tmp_path: Path) -> None:
    file = PairFile(tmp_path / "pairs.sqlite")
    file.plan([("a", {"x": number}) for number in range(6)])
    file.begin("one", 8080, tmp_path / "one")
    for number in range(5):
        file.claim("one", number)
    file.succeed("one", 0, 0.5)
    assert collect.settle(PairFile(file.path)).running == 0  # no record was written: NNI did not get that far
    file.begin("two", 8080, tmp_path / "two")
    for number in range(5):
        file.claim("two", number)
    (tmp_path / "two" / "db").mkdir(parents=True)
    with closing(sqlite3.connect(tmp_path / "two" / "db" / "nni.sqlite")) as connection:
        # NNI 3.0's own table; tests/end_to_end/test_warmup.py has NNI write it.
        connection.execute("create table MetricData (timestamp, trialJobId, parameterId, type, sequence, data)")
        for number, kind, value in [
            ("1", "PERIODICAL", {"default": 0.1}),
            ("1", "FINAL", {"default": 0.7}),
            ("1", "FINAL", {"default": 0.9}),
            ("2", "FINAL", 0.6),
            ("3", "FINAL", {"default": "high"}),
            ("", "FINAL", 0.2),
            ("77", "FINAL", 0.2),
        ]:
            data = json.dumps(json.dumps(value))
            connection.execute("insert into MetricData values (0, 't', ?, ?, 0, ?)", (number, kind, data))
        connection.commit()
    progress = collect.settle(file)
    assert (progress.succeeded, progress.running, progress.planned) == (3, 0, 3)
    assert [pair.performance for pair in file.pairs()] == [0.5, None, 0.7, 0.6, None, None]


# -- what runs inside the experiment ----------------------------------------------------------------------------------


@pytest.fixture
def tuner(tmp_path: Path, lab: Any) -> PairTuner:
    file = PairFile(tmp_path / "pairs.sqlite")
    file.plan([("a", {"x": 1.0}), ("b", {"x": 2.0})])
    file.begin("mine", 8080, tmp_path)
    lab.experiment("mine")
    return PairTuner(str(file.path))


def test_a_trial_is_given_its_data_set_and_its_configuration(tuner: PairTuner) -> None:
    assert tuner.next_parameter_id() == 0
    job = tuner.ask(0)
    assert (job.configuration, job.job) == ({"data": "a", "x": 1.0}, None)
    assert tuner.next_parameter_id() == 1 and not tuner.done
    tuner.ask(1)
    assert tuner.ask(2) is None
    tuner.receive_trial_result(0, None, {"default": 0.5})
    tuner.trial_end(0, "AbC", "SUCCEEDED")
    for value in (float("nan"), "high", None, {"default": True}):
        tuner.receive_trial_result(1, None, value)
        tuner.ask(1)
    assert tuner.done
    done, failed = tuner._file.pairs()
    assert (done.status, done.performance, failed.status) == ("succeeded", 0.5, "failed")
    assert "'high' instead of a finite number" in failed.reason


def test_a_trial_that_ends_without_a_result_has_failed(tuner: PairTuner) -> None:
    tuner.ask(0)
    tuner.trial_end(0, "AbC", "SUCCEEDED")
    assert tuner._file.pairs()[0].reason == "trial AbC of experiment mine: ended without reporting a result"
    tuner.ask(1)
    tuner.trial_end(1, "DeF", "USER_CANCELED")
    assert tuner._file.pairs()[1].reason == "trial DeF of experiment mine: USER_CANCELED"


def test_a_resume_brings_results_once(tuner: PairTuner) -> None:
    tuner.ask(0)
    tuner.ask(1)
    again = PairTuner(str(tuner._file.path))
    results = [{"parameter": {"data": "a", "x": 1}, "value": {"default": 0.5}}, {"parameter": {"x": 9}, "value": 0.1}]
    again.import_data(results + results)
    again.release({1})
    assert [pair.status for pair in again._file.pairs()] == ["succeeded", "running"]
    again.import_data([{"parameter": {"data": "b", "x": 2}, "value": 0.25}])
    assert again.done and [pair.performance for pair in again._file.pairs()] == [0.5, 0.25]
