"""Who is compared: what the arms see, what they share, and which of them a table can show."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from nni_hyperfd.benchmark import tables
from nni_hyperfd.benchmark.protocol import Protocol, course
from nni_hyperfd.benchmark.regime import Regime
from nni_hyperfd.benchmark.reproduce import paper, plan
from nni_hyperfd.benchmark.reproduce.arms import (
    ARMS,
    BASELINES,
    DEFAULT,
    FULL,
    OVER_BUDGETS,
    OVER_ORDERS,
    Simple,
    Variant,
    unavailable,
)
from nni_hyperfd.method.meta_feature import PARTS
from nni_hyperfd.recommenders import NAMES

LIKE_FULL = {
    FULL,
    "Latest data only",
    "Freeze meta-extractor",
    "Freeze whole ranker",
    "No transformation",
    "Oracle",
    "ranking and triplet",
}
"""Their differences begin after the warm-up."""


def test_the_printed_tables_and_the_arms_name_the_same() -> None:
    printed = set().union(*paper.TABLES.values())
    assert printed <= set(ARMS)
    assert set(ARMS) - printed == {"mean rank", "nearest tasks", DEFAULT}, "ours alone"
    assert BASELINES == (*list(paper.TABLES["Table 1"]), "mean rank", "nearest tasks", DEFAULT)
    assert set(OVER_BUDGETS) | set(OVER_ORDERS) <= set(BASELINES)
    assert {arm.name for arm in ARMS.values() if isinstance(arm, Simple)} <= set(NAMES)
    without = [arm.without for arm in ARMS.values() if isinstance(arm, Variant) and arm.without]
    assert sorted(without) == sorted((part,) for part in PARTS), "one arm for each part of the extractor"


def test_what_differs_after_the_warm_up_alone_shares_it(tmp_path: Path) -> None:
    variants = {name: arm for name, arm in ARMS.items() if isinstance(arm, Variant)}
    for one, other in itertools.combinations(variants, 2):
        assert variants[one].warms_up_like(variants[other]) == ({one, other} <= LIKE_FULL), (one, other)
    setting = plan.Setting(tmp_path / "t", Protocol(offline=3))
    starts = {name: plan.warm_up_of(plan.ArmRun(setting, name, 4, 5), tmp_path) for name in ARMS}
    assert all((starts[name] is None) == isinstance(arm, Simple) for name, arm in ARMS.items())
    assert {starts[name] for name in LIKE_FULL} == {starts[FULL]}
    assert len({start.file for start in starts.values() if start}) == len(variants) - len(LIKE_FULL) + 1
    assert starts[FULL].seed == 5 % plan.WARM_UPS
    cold = plan.ArmRun(plan.Setting(tmp_path / "t", Protocol(Regime.COLD, offline=0)), FULL, 4, 5)
    assert plan.warm_up_of(cold, tmp_path) is None, "there is nothing to warm up on"


def test_without_augmentation_the_whole_data_sets_are_all_that_is_known(folder: Path) -> None:
    own = course(plan.table_of(folder), Protocol(), 0).offline
    assert len(own) == 3
    known = ARMS["w/o augmentation"].recommender(0, own, None).offline
    assert [images.features.shape for images in known] == [own[0].task.images.shape] * 2
    for found, wanted in zip(known, own, strict=False):
        assert np.array_equal(np.asarray(found.features), wanted.task.images, equal_nan=True)
        assert found.performance.tolist() == pytest.approx(wanted.performance)
    assert len(ARMS[FULL].recommender(0, own, None).offline) == 3


@pytest.mark.parametrize(("arm", "part"), [("Image-level: w/o GWAP", "gwap"), (FULL, None)])
def test_the_extractor_goes_without_what_the_arm_says(folder: Path, arm: str, part: str | None) -> None:
    own = course(plan.table_of(folder), Protocol(), 0).offline
    assert ARMS[arm].recommender(0, own, None).new_extractor(6, 0).without == ({part} if part else set())


def test_what_a_table_cannot_show_and_why(folder: Path, make, tmp_path: Path) -> None:
    assert not any(unavailable(arm, tables.load(folder), Protocol(offline=3)) for arm in ARMS.values())
    bare = make(tmp_path / "bare", features=False, server=("general", "pets"))
    why = {name: unavailable(arm, tables.load(bare), Protocol(offline=2)) for name, arm in ARMS.items()}
    of_images = {"HyperFD (ResNet)", *(name for name in paper.TABLES["Table 5"] if name != FULL)}
    assert {name for name, reason in why.items() if reason == "the table has no image features"} == of_images
    assert why["w/o augmentation"] == "the server's sub-data-sets are not all known, or there are none"
    assert {name for name, reason in why.items() if reason} == of_images | {"w/o augmentation"}
    (setting,) = plan.settings([bare], Regime.REVEALED)
    planned = {one.arm for one in plan.planned(setting, 2, 3)}
    assert planned == set(ARMS) - of_images - {"w/o augmentation"}


def test_what_cannot_be_shown_without_or_with_few_offline_data_sets(folder: Path) -> None:
    (cold,) = plan.settings([folder], Regime.COLD)
    missing = set(ARMS) - {one.arm for one in plan.planned(cold, 2, 3)}
    assert missing == {"w/o warm-up", "w/o augmentation"} and cold.protocol.offline == 0
    (few,) = plan.settings([folder], Regime.REAL, offline=2)
    assert set(ARMS) - {one.arm for one in plan.planned(few, 2, 3)} == {"w/o augmentation"}
