"""A task that its owner wants deleted."""

from __future__ import annotations

import json

from nni_hyperfd.platform import Platform, forgetting


def test_a_forgotten_task_is_gone_from_the_file_and_the_rest_is_learned_anew(lab):
    for number, name in enumerate(("first", "second")):
        lab.run(lab.tuner(name, budget=2, preset="paper"), lab.dataset(number + 1))
    platform = Platform(lab.state)
    first, second = platform.tasks()
    gone = json.dumps(list(first.meta_feature)).encode()
    assert gone in lab.content() and platform.counts()["encoder versions"] == 2

    assert forgetting.forget(platform, ["first", "elsewhere"]) == {"first"}
    assert platform.tasks() == [second] and gone not in lab.content()
    assert platform.counts()["encoder versions"] == 0
    assert forgetting.forget(platform, ["first"]) == set()

    lab.run(lab.tuner("third", budget=2, preset="paper"), lab.dataset(3))
    assert [task.experiment for task in platform.tasks()] == ["second", "third"]
    assert platform.counts()["encoder versions"] >= 1
