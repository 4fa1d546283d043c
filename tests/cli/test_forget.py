"""`hyperfd forget` and `hyperfd worker`, as an operator sees them."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from nni_hyperfd.experiment.class_args import WARM_STATE
from nni_hyperfd.platform import EmbeddedPlatform
from nni_hyperfd.space import SearchSpace
from nni_hyperfd.state.tables import TenantRow
from support.rows import add_task

SPACE = SearchSpace.from_nni({"x": {"_type": "choice", "_value": [1, 2, 3, 4]}})


@pytest.fixture
def platform(tmp_path):
    platform = EmbeddedPlatform(tmp_path / "platform.sqlite", WARM_STATE)
    yield platform
    platform.close()


def test_tasks_and_whole_tenants_are_deleted_and_what_is_left_is_said(hyperfd, platform):
    platform.tenants.add("clinic")
    with platform.store.read() as session:
        clinic = session.scalar(select(TenantRow.id))
    own, *theirs = (
        add_task(platform, SPACE, name, [0.1, 0.2], tenant_id=tenant)
        for name, tenant in (("mine", None), ("one", clinic), ("two", clinic))
    )
    place = ("--database", platform.store.path)
    assert hyperfd("forget", *place, "--yes")[::2] == (1, "hyperfd: name tasks, --tenant or --extractor\n")
    code, _, err = hyperfd("tenant", "remove", "clinic", *place)
    assert code == 1 and "hyperfd forget --tenant clinic" in err
    code, out, _ = hyperfd("forget", own, *place, "--yes")
    assert code == 0 and f"with descriptions, trials and results: task {own}." in out
    assert "Left in what was learned: nothing." in out and "backups have them" in out
    _, out, _ = hyperfd("forget", "--tenant", "clinic", *place, "--yes")
    assert f"tasks {theirs[0]}, {theirs[1]}." in out
    assert all(task.dataset is not None for task in platform.tasks()), "the platform's own stay"
    assert hyperfd("tenant", "remove", "clinic", *place)[0] == 0
    before = platform.versions.head_id()
    code, out, _ = hyperfd("forget", "--extractor", *place, "--yes")
    assert code == 0 and f"as version {platform.versions.head_id()}." in out and platform.versions.head_id() > before
    code, _, err = hyperfd("forget", 1, "--database", platform.store.path.with_name("none.sqlite"), "--yes")
    assert code == 1 and "there is none" in err


def test_a_worker_is_for_postgresql_and_patient_with_the_others(hyperfd, tmp_path):
    code, _, err = hyperfd("worker", "--database", tmp_path / "state.sqlite")
    assert code == 1 and "has its worker within 'hyperfd serve'" in err
    code, _, err = hyperfd("worker", "--database", "postgresql+psycopg:///x", "--heartbeat", 5, "--stalled", 5)
    assert code == 1 and "longer than --heartbeat" in err
