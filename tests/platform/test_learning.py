"""Learning runs outside of any transaction, beside other experiments, and survives sudden ends."""

from __future__ import annotations

import json
import multiprocessing
import signal
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing

import pytest
from sqlalchemy import delete, select

from nni_hyperfd import wire
from nni_hyperfd.belief.model import BeliefModel
from nni_hyperfd.method import MetaFeatureExtractor, recipe, weights
from nni_hyperfd.platform import Platform, moving
from nni_hyperfd.space import SearchSpace
from nni_hyperfd.state.store import Store
from nni_hyperfd.state.tables import EncoderRow
from nni_hyperfd.task import Phase, Preset, Status, TaskSettings
from nni_hyperfd.wire import ExtractorUpdate
from support.own_datasets import begin_warm
from support.rows import add_task

SPACE = SearchSpace.from_nni({"x": {"_type": "choice", "_value": [1, 2, 3, 4]}})
RESULTS = [0.1, 0.4, 0.2]


def score(configuration):
    return 0.1 * configuration["x"]


@pytest.fixture
def platform(lab):
    return Platform(lab.state)


def newest(platform, space=SPACE):
    """The newest networks, as bytes."""
    extractor, importance = platform.versions.tensors(platform.versions.head_id())
    return [weights.dumps(t) for t in (extractor, importance, platform.versions.encoder(space).encoder.state_dict())]


def learned_from(platform):
    """The tasks that encoders were made from, in order."""
    with platform.store.read() as session:
        return list(session.scalars(select(EncoderRow.task_id).order_by(EncoderRow.id)))


def update(seed):
    extractor = MetaFeatureExtractor.initial(12, seed).state_dict()
    return ExtractorUpdate(extractor, {name: tensor * 0 for name, tensor in extractor.items()}, [0.5] * 64)


@pytest.fixture
def at_learning(monkeypatch):
    """Lets something happen at every call of what takes time: `happen.append`."""
    happen = []

    def watched(function):
        def watch(*arguments, **named):
            for what in happen:
                what()
            return function(*arguments, **named)

        return watch

    monkeypatch.setattr(recipe, "learned_encoder", watched(recipe.learned_encoder))
    monkeypatch.setattr(BeliefModel, "learned", watched(BeliefModel.learned))
    return happen


# -- beside others ----------------------------------------------------------------------------------------------------


def closes(platform):
    platform.close_task(add_task(platform, SPACE, "open", RESULTS, closed=False), update(1))


def picks(preset):
    def pick(platform):
        with platform.store.write() as session:
            session.execute(delete(EncoderRow))  # as after an upgrade
        task_id = platform.open_task("new", SPACE, TaskSettings(candidates=4, service=False, preset=preset))
        assert platform.next_trial(task_id) is not None

    return pick


def ranks(platform):
    platform.rank(SPACE, None, TaskSettings(candidates=4))


def imports(platform):
    other = Platform(platform.store.path.with_name("other.sqlite"))
    add_task(other, SPACE, "theirs", RESULTS)
    assert moving.import_(platform, moving.export(other)) == 1


def learns_anew(platform):
    platform.learning.learn_anew(SPACE)


@pytest.mark.parametrize(
    "act",
    [closes, picks(Preset.DEFAULT), picks(Preset.PAPER), ranks, imports, learns_anew],
    ids=["close", "pick", "pick of the paper's", "rank", "import", "relearn"],
)
def test_who_learns_holds_up_nobody(platform, at_learning, act):
    add_task(platform, SPACE, "past", RESULTS)
    written = []

    def write():
        with closing(sqlite3.connect(platform.store.path, timeout=0, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        written.append(True)

    at_learning.append(write)
    act(platform)
    assert written, "nothing was learned, so this test proves nothing"


def in_order(lab, content, order):
    """The networks after the tasks have been closed one after another."""
    state = lab.folder / f"{'-'.join(map(str, order))}.sqlite"
    state.write_bytes(content)
    alone = Platform(state)
    for task_id in order:
        alone.learning.close(task_id)
    return newest(alone)


def test_of_two_experiments_that_close_at_once_the_slower_one_learns_from_what_the_faster_has_left(
    lab, platform, at_learning
):
    platform.learning.close(add_task(platform, SPACE, "past", RESULTS, closed=False))
    slow, fast = (add_task(platform, SPACE, name, RESULTS, closed=False) for name in ("slow", "fast"))
    content, calls = lab.content(), []

    def overtake():
        calls.append(True)
        if len(calls) == 1:
            Platform(lab.state).learning.close(fast)

    at_learning.append(overtake)
    platform.learning.close(slow)
    assert len(calls) == 3, "the slower one learned twice"
    assert learned_from(platform) == [1, fast, slow]
    assert all(task.closed for task in platform.tasks())
    got = newest(platform)
    assert got == in_order(lab, content, [fast, slow]) != in_order(lab, content, [slow, fast])


def test_who_is_overtaken_by_a_new_extractor_learns_again_towards_that(lab, platform, at_learning):
    task_id = add_task(platform, SPACE, "slow", RESULTS, closed=False)
    other = add_task(
        platform, SearchSpace.from_nni({"y": {"_type": "choice", "_value": [1, 2]}}), "other", closed=False
    )

    def overtake():
        at_learning.clear()
        Platform(lab.state).close_task(other, update(3))

    at_learning.append(overtake)
    platform.learning.close(task_id)
    assert platform.versions.encoder(SPACE).extractor_id == platform.versions.head_id() == 2
    assert learned_from(platform) == [task_id]


def test_a_task_is_closed_once_whoever_closes_it(lab, platform, at_learning):
    task_id = add_task(platform, SPACE, "open", RESULTS, closed=False)

    def overtake():
        at_learning.clear()
        Platform(lab.state).learning.close(task_id)

    at_learning.append(overtake)
    platform.learning.close(task_id)
    closed = platform.task(task_id).closed
    platform.learning.close(task_id)
    platform.close_task(task_id, update(1))
    assert platform.task(task_id).closed == closed and learned_from(platform) == [task_id]
    assert platform.counts()["extractor versions"] == 1, "an update of a closed task comes too late"


def close_all(path, task_ids, others):
    platform = Platform(path)
    others.wait()
    for task_id in task_ids:
        platform.learning.close(task_id)


@pytest.mark.slow
def test_two_processes_that_close_at_once_lose_nothing(lab, platform):
    platform.learning.close(add_task(platform, SPACE, "past", RESULTS, closed=False))
    ids = [add_task(platform, SPACE, f"e{number}", RESULTS, closed=False) for number in range(6)]
    content, context = lab.content(), multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    processes = [context.Process(target=close_all, args=(lab.state, ids[part::2], barrier)) for part in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert all(task.closed for task in platform.tasks())
    _, *order = learned_from(platform)
    assert sorted(order) == ids and newest(platform) == in_order(lab, content, order)


# -- what is learned --------------------------------------------------------------------------------------------------


def test_a_task_without_results_closes_and_teaches_nothing(platform):
    task_id = add_task(platform, SPACE, "failed", [None, None], closed=False)
    platform.learning.close(task_id)
    assert platform.task(task_id).closed is not None and learned_from(platform) == []


def test_where_an_upgrade_has_dropped_the_encoder_it_is_learned_from_all_results(lab):
    begin_warm(lab.state, SPACE, score, 3)
    platform = Platform(lab.state)
    for name in ("one", "two"):
        platform.learning.close(add_task(platform, SPACE, name, RESULTS, closed=False))
    with platform.store.write() as session:
        session.execute(delete(EncoderRow))
    version = platform.learning.encoder(SPACE)
    assert version.id is not None and learned_from(platform) == [5]
    state = version.encoder.state_dict()
    assert weights.dumps(platform.learning.encoder(SPACE).encoder.state_dict()) == weights.dumps(state)
    other = Platform(lab.folder / "other.sqlite")
    assert other.learning.encoder(SPACE).id is None and other.learning.learn_anew(SPACE) == []


def test_learning_anew_begins_with_the_platforms_own_data_sets(lab):
    begin_warm(lab.state, SPACE, score, 3)
    platform = Platform(lab.state)
    before = newest(platform)
    ndcg = platform.learning.learn_anew(SPACE)
    assert len(ndcg) > 1, "before it and after every check"
    after = newest(platform)
    assert after[:2] == before[:2], "the extractor stays as it is"
    assert after[2] != before[2]
    platform.learning.learn_anew(SPACE)
    assert newest(platform) == after, "the same results, the same encoder"


# -- sudden ends ------------------------------------------------------------------------------------------------------

KILLED = textwrap.dedent("""
    import json, os, signal, sys
    from pathlib import Path
    from nni_hyperfd.method import recipe
    from nni_hyperfd.platform import Platform
    from nni_hyperfd.wire import ExtractorUpdate

    def die(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    state, answer, task_id, moment = sys.argv[1:]
    platform = Platform(state)
    owner, name = {
        "before learning": (platform.learning, "close"),
        "while learning": (recipe, "learned_encoder"),
        "in the last transaction": (platform.versions, "drop_unneeded"),
    }[moment]
    setattr(owner, name, die)
    platform.close_task(int(task_id), ExtractorUpdate.unpack(json.loads(Path(answer).read_text())))
""")


@pytest.fixture(scope="module")
def about_to_learn(make_lab, tmp_path_factory):
    """A state whose second task waits for the answer of its learn trial, and the answer."""
    with pytest.MonkeyPatch.context() as patch:
        lab = make_lab(tmp_path_factory.mktemp("learn"), patch)
        lab.run(lab.tuner("first", budget=2, preset="paper"))
        tuner = lab.tuner("second", budget=2, preset="paper")
        while not any(trial.phase is Phase.LEARN for trial in tuner.platform.task(tuner.task_id).trials):
            lab.step(tuner, lab.dataset(2))
        (answer,), _ = lab.serve(tuner.ask(tuner.next_parameter_id()), lab.dataset(2))
        return lab.content(), json.dumps(wire.answer_in(answer)), tuner.task_id


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before learning", "while learning", "in the last transaction"])
def test_a_platform_that_is_killed_after_it_has_taken_in_an_update_goes_on(lab, about_to_learn, moment):
    content, answer, task_id = about_to_learn
    lab.state.write_bytes(content)
    (lab.folder / "answer.json").write_text(answer)
    command = [sys.executable, "-c", KILLED, lab.state, lab.folder / "answer.json", str(task_id), moment]
    assert subprocess.run(command).returncode == -signal.SIGKILL

    platform, given = Platform(lab.state), ExtractorUpdate.unpack(json.loads(answer))
    task = platform.task(task_id)
    assert task.closed is None and task.meta_feature == given.meta_feature
    assert (task.trials[-1].phase, task.trials[-1].status) == (Phase.LEARN, Status.SUCCEEDED)
    assert weights.dumps(platform.versions.tensors(task.extractor_id)[0]) == weights.dumps(given.extractor)
    assert learned_from(platform) == [1], "the encoder has not learned yet"
    platform.settle(task_id)
    assert platform.task(task_id).closed is not None and learned_from(platform) == [1, 2]

    whole = lab.folder / "whole.sqlite"
    whole.write_bytes(content)
    undisturbed = Platform(whole)
    undisturbed.close_task(task_id, given)
    assert newest(platform, task.space) == newest(undisturbed, task.space)
    assert platform.counts() == undisturbed.counts()


def test_an_experiment_that_is_resumed_after_such_an_end_closes_by_itself(lab, about_to_learn):
    content, answer, task_id = about_to_learn
    lab.state.write_bytes(content)
    Store(lab.state).close()
    platform = Platform(lab.state)
    platform._take_in(task_id, ExtractorUpdate.unpack(json.loads(answer)))
    tuner = lab.tuner("second", budget=2, preset="paper")
    tuner.release(set())
    assert not tuner.done and tuner.ask(tuner.next_parameter_id()) is None
    assert tuner.done
