"""The page of a whole state."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from nni_hyperfd import Platform
from nni_hyperfd.files import FolderError
from nni_hyperfd.report import state as of_state
from nni_hyperfd.report.of_trials import explained
from support.lab import Lab


@pytest.fixture(scope="module")
def three_tasks(make_lab: type[Lab], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with pytest.MonkeyPatch.context() as patch:
        lab = make_lab(tmp_path_factory.mktemp("three"), patch)
        for number in range(3):
            lab.run(lab.tuner(f"experiment{number}", budget=4, preset="paper"), lab.dataset(number))
        yield lab


def test_the_page_has_every_panel(three_tasks: Lab, tmp_path) -> None:
    page = of_state.write(three_tasks.state, tmp_path / "state.html").read_text()
    for title in ("Tasks over time", "Gain against mean rank", "Forgetting", "Drift of the extractor", "Versions"):
        assert f"<h2>{title}</h2>" in page
    assert "Tasks: 3, with 12 results. Data sets of the platform" in page
    assert "On average the first pick brought" in page and "asked again now" in page
    assert "There are no two versions of the extractor" in page, "no data set of its own has moved"


def test_mean_rank_takes_what_was_best_on_the_earlier_tasks(three_tasks: Lab) -> None:
    first, second, _ = Platform(three_tasks.state).tasks()
    assert of_state.mean_ranks_favourite(first, []) is None
    favourite = of_state.mean_ranks_favourite(second, [first])
    assert favourite is not None and 0 <= favourite < len(second.results.performance)


def test_movement_is_relative_to_the_distance_between_data_sets() -> None:
    first = {"a": np.array([0.0, 0.0]), "b": np.array([2.0, 0.0])}
    second = {name: vector + [0.0, 1.0] for name, vector in first.items()}
    moved = of_state.movement({1: {}, 2: first, 3: second, 4: {"c": first["a"]}}, [1, 2, 3, 4])
    assert moved == {2: 0.0, 3: 0.5}


def test_a_parameter_explains_what_it_decides(three_tasks: Lab) -> None:
    shares, results, tasks = explained(Platform(three_tasks.state).tasks())
    assert (results, tasks) == (12, 3) and set(shares) <= {"kind", "x", "y"}
    assert all(0 <= share <= 1 for share in shares.values())


def test_before_a_task_has_a_result_the_page_is_refused(lab: Lab, tmp_path) -> None:
    with pytest.raises(FolderError, match="there is none yet"):
        of_state.write(lab.state, tmp_path / "state.html")
    lab.step(lab.tuner("experiment", budget=2))
    with pytest.raises(FolderError, match="no task has a result yet"):
        of_state.write(lab.state, tmp_path / "state.html")
    assert not (tmp_path / "state.html").exists()
