from __future__ import annotations

from nni_hyperfd.datasets import coco, synthetic
from support.command import one_line_error


def test_synthetic_draws_a_data_set_and_names_a_wrong_domain(hyperfd, tmp_path):
    folder = tmp_path / "drawn"
    code, out, _ = hyperfd("synthetic", folder, "--domain", synthetic.DOMAINS[0], "--images", 2, 1, 0, "--size", 64)
    assert code == 0 and str(folder) in out
    assert len(list((folder / "images").iterdir())) == 3
    assert len(coco.load(folder, "train").images) == 2
    one_line_error(hyperfd("synthetic", tmp_path / "x", "--domain", "nonsense"), "no synthetic domain 'nonsense'")


def test_help_and_unknown_commands(hyperfd):
    code, out, _ = hyperfd("--help")
    assert code == 0
    for name in ("status", "tasks", "recommend", "export", "import", "offline", "synthetic", "register", "warmup"):
        assert name in out
    code, _, err = hyperfd("nonsense")
    assert code == 2 and "nonsense" in err
