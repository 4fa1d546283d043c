"""Which pairs are measured, and what the file keeps of them."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from nni_hyperfd.space import SearchSpace
from nni_hyperfd.task import Status
from nni_hyperfd.warmup.pairs import ATTEMPTS, PairError, PairFile, Progress, draw

SPACE = SearchSpace.from_nni({"x": {"_type": "choice", "_value": list(range(20))}})
NAMES = [f"set-{index}" for index in range(9)]


@pytest.fixture
def file(tmp_path: Path) -> PairFile:
    file = PairFile(tmp_path / "pairs.sqlite")
    file.plan([("a", {"x": 1}), ("a", {"x": 2.5}), ("b", {"x": 1})])
    file.begin("first", 8080, tmp_path)
    return file


def states(file: PairFile) -> list[tuple[str, int]]:
    return [(pair.status, pair.failures) for pair in file.pairs()]


# -- the plan ---------------------------------------------------------------------------------------------------------


def test_every_data_set_gets_distinct_configurations_one_data_set_after_the_other() -> None:
    plan = draw(NAMES, SPACE, pairs=100, each=4, seed=1)
    assert Counter(name for name, _ in plan) == dict.fromkeys(NAMES, 4)
    assert len({(name, json.dumps(configuration)) for name, configuration in plan}) == 36
    order = list(dict.fromkeys(name for name, _ in plan))
    assert [name for name, _ in plan] == [name for name in order for _ in range(4)]
    assert order != NAMES


def test_a_longer_plan_begins_with_the_shorter_one_whatever_the_order_of_the_names() -> None:
    plan = draw(NAMES, SPACE, pairs=36, each=4, seed=1)
    assert draw(NAMES[::-1], SPACE, pairs=10, each=4, seed=1) == plan[:10]
    assert draw(NAMES, SPACE, pairs=36, each=4, seed=2) != plan
    assert [len(draw(NAMES, SPACE, pairs, 99, 0)) for pairs in (1, 20, 21, 999)] == [1, 20, 21, 180]


def test_planning_again_adds_what_is_new_and_refuses_another_plan(tmp_path: Path) -> None:
    file, plan = PairFile(tmp_path / "pairs.sqlite"), draw(NAMES, SPACE, pairs=36, each=4, seed=1)
    file.plan(plan[:10])
    file.begin("one", 8080, tmp_path)
    file.claim("one", 0)
    file.succeed("one", 0, 0.5)
    file.plan(plan)
    file.plan(plan[:5])  # a smaller number takes nothing away
    assert [(pair.data, pair.configuration) for pair in file.pairs()] == plan
    assert states(file) == [("succeeded", 0), *[("planned", 0)] * 35]
    with pytest.raises(PairError, match="begun with other sub-data-sets, another search space, --each or --seed"):
        file.plan(draw(NAMES, SPACE, pairs=36, each=4, seed=2))
    assert [(pair.data, pair.configuration) for pair in file.pairs()] == plan


# -- results ----------------------------------------------------------------------------------------------------------


def test_pairs_are_handed_out_in_order_and_results_are_on_disk_at_once(file: PairFile) -> None:
    assert [file.claim("first", number).id for number in range(3)] == [1, 2, 3]
    assert file.claim("first", 3) is None
    file.succeed("first", 1, 0.25)
    pair = PairFile(file.path).pairs()[1]
    assert (pair.status, pair.performance, pair.configuration) == ("succeeded", 0.25, {"x": 2.5})
    assert 0 <= pair.seconds < 60
    file.succeed("first", 1, 0.75)  # the first result stands
    file.fail("first", 1, "late")
    assert file.pairs()[1].performance == 0.25 and states(file)[1] == ("succeeded", 0)
    assert file.progress() == Progress(0, 2, 1, 0, 0, file.pairs()[1].seconds)


def test_a_failed_pair_is_tried_once_more_after_the_others(file: PairFile) -> None:
    file.claim("first", 0)
    file.fail("first", 0, "out of memory")
    assert states(file)[0] == ("planned", 1)
    assert [file.claim("first", number).id for number in (1, 2, 3)] == [2, 3, 1]
    file.fail("first", 0, "a number that means nothing any more")
    assert states(file)[0] == ("running", 1)
    file.fail("first", 3, "again")
    assert ATTEMPTS == 2 and states(file)[0] == ("failed", 2) and file.pairs()[0].reason == "again"
    file.succeed("first", 2, 0.5)
    assert (file.progress().ended, file.progress().total, file.progress().failures) == (2, 3, 2)
    file.forget_failures()
    assert states(file) == [("planned", 0), ("running", 0), ("succeeded", 0)] and file.pairs()[0].reason is None


def test_a_new_experiment_takes_over_what_the_last_one_had_running(file: PairFile, tmp_path: Path) -> None:
    assert [file.claim("first", number).id for number in range(2)] == [1, 2]
    file.fail("first", 1, "once")
    file.claim("first", 2)
    file.begin("second", 8081, tmp_path)
    assert states(file) == [("planned", 0), ("planned", 1), ("planned", 0)]
    with pytest.raises(PairError, match="experiment first does not measure these pairs"):
        file.claim("first", 3)
    file.succeed("first", 0, 0.5)  # nor does it bring results any more
    assert file.claim("second", 0).id == 1
    file.succeed("first", 0, 0.5)
    assert states(file)[0] == ("running", 0)
    assert (file.experiment().experiment, file.experiment().port) == ("second", 8081)


def test_after_a_resume_only_what_nni_runs_again_stays_running(file: PairFile) -> None:
    for number in range(3):
        file.claim("first", number)
    file.succeed("first", 0, 0.5)
    file.release("first", {2})
    assert [status for status, _ in states(file)] == ["succeeded", "planned", "running"]
    assert sorted(file.parameter_ids("first")) == [0, 1, 2] and file.parameter_ids("other") == {}


def test_a_file_that_cannot_be_used_is_refused_with_its_name(tmp_path: Path) -> None:
    damaged = tmp_path / "pairs.sqlite"
    damaged.write_bytes(999 * b"garbage")
    with pytest.raises(PairError, match="pairs.sqlite: cannot read or write it .file is not a database"):
        PairFile(damaged)
    assert damaged.read_bytes() == 999 * b"garbage"
    with pytest.raises(PairError, match="unable to open"):
        PairFile(tmp_path / "none" / "pairs.sqlite")


def test_statuses_are_stored_as_the_words_that_earlier_versions_wrote(file: PairFile) -> None:
    for number in range(2):
        file.claim("first", number)
    file.succeed("first", 0, 0.5)
    with closing(sqlite3.connect(file.path)) as connection:
        stored = connection.execute("SELECT status FROM pairs ORDER BY id").fetchall()
        assert stored == [("succeeded",), ("running",), ("planned",)]
        connection.execute("UPDATE pairs SET status = 'failed', failures = 2 WHERE id = 2")
        connection.commit()
    assert file.pairs()[1].status is Status.FAILED
