"""Two experiments at the same time on one state."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nni_hyperfd import Platform
from support.harness import Experiment

pytestmark = pytest.mark.nni


def test_two_experiments_share_a_state(experiment: Callable[..., Experiment]) -> None:
    one = experiment({"budget": 2}, "--data 1 --hold {hold}").create()
    other = experiment({"budget": 2}, "--data 2 --hold {hold}", state=one.state).create()
    for each in (one, other):
        each.wait_event("begin", 1, 2)  # both are in their middle now
    for each in (one, other):
        each.go("all")
    for each in (one, other):
        each.wait_done()
        each.check_same_everywhere()
        task = each.task()
        assert task.closed is not None and len(task.meta_feature) == 64
        assert [(t.phase, t.status) for t in task.trials] == [
            ("extract", "succeeded"),
            ("fine-tune", "succeeded"),
            ("fine-tune", "succeeded"),
        ]
    platform = Platform(one.state)
    assert len(platform.tasks()) == 2
    # Both have taught the encoder.
    assert platform.counts() == {
        "extractor versions": 1,
        "encoder versions": 2,
        "offline data sets": 0,
    }
