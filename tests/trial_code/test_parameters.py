"""Each parameter changes what is built, or what happens on a real batch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.runner import Runner
from retinaface.build import build_runner
from retinaface.parameters import NAMES, apply_parameters, check
from retinaface.pipelines import use_split

from nni_hyperfd.space import SearchSpace
from nni_hyperfd.space.architecture import PARAMETERS, Architecture

SPACES = Path(__file__).resolve().parents[2] / "search_spaces"


@pytest.fixture
def runner_with(options, splits, tmp_path):
    """Builds the trial's Runner for parameters."""

    def build(**parameters) -> Runner:
        config = apply_parameters(options.load_config(), parameters)
        use_split(config.train_dataloader, splits[0], tmp_path)
        use_split(config.val_dataloader, splits[1], tmp_path)
        return build_runner(config, tmp_path)

    return build


def batch_of(runner: Runner) -> dict:
    """The first training batch; the seed makes it the same for equal crops."""
    np.random.seed(0)
    torch.manual_seed(0)
    loader = Runner.build_dataloader(runner._train_dataloader, seed=0)
    return runner.model.data_preprocessor(next(iter(loader)), training=True)


def losses_of(runner: Runner) -> dict[str, torch.Tensor]:
    """Losses on that batch with equal weights."""
    batch = batch_of(runner)
    torch.manual_seed(0)
    runner.model.init_weights()
    losses = runner.model.eval().loss(batch["inputs"], batch["data_samples"])
    return {name: torch.stack(value).sum() if isinstance(value, list) else value for name, value in losses.items()}


def test_the_search_space_has_exactly_these_parameters() -> None:
    space = json.loads((SPACES / "hpo.json").read_text())
    assert tuple(space) == NAMES
    for name, dimension in space.items():
        for value in dimension["_value"]:
            check({name: value})


@pytest.mark.parametrize("name", ["SGD", "Adam"])
@pytest.mark.parametrize("rate", [3e-4, 3e-3])
def test_optimizer_and_learning_rate(runner_with, name: str, rate: float) -> None:
    runner = runner_with(optimizer=name, learning_rate=rate)
    optimizer = runner.build_optim_wrapper(runner.optim_wrapper).optimizer
    assert type(optimizer) is getattr(torch.optim, name)
    group = optimizer.param_groups[0]
    assert group["lr"] == rate
    if name == "SGD":
        assert group["momentum"] == 0.9 and group["weight_decay"] == 5e-4


def test_min_crop_ratio(runner_with) -> None:
    """Faces are larger, on average, in tighter crops; the smallest crop is as wide as asked for."""
    sides = {}
    for ratio in (0.3, 0.55):
        runner = runner_with(min_crop_ratio=ratio)
        dataset = Runner.build_dataloader(runner._train_dataloader, seed=0).dataset
        (crop,) = [step for step in dataset.pipeline.transforms if type(step).__name__ == "RandomSquareCrop"]
        np.random.seed(0)
        sides[ratio] = [crop._choose(100, 100, np.array([[50.0, 50.0]]))[2] for _ in range(300)]
        assert min(sides[ratio]) == pytest.approx(100 * ratio, abs=4) and max(sides[ratio]) > 96
    assert np.mean(sides[0.3]) < np.mean(sides[0.55]) - 5


def test_positive_iou(runner_with) -> None:
    """Fewer anchors are positive at a higher threshold, on the same batch."""
    counts = {}
    for threshold in (0.35, 0.6):
        runner = runner_with(positive_iou=threshold)
        losses_of(runner)
        sampled = runner.model.bbox_head._raw_positive_infos["sampling_results"]
        counts[threshold] = sum(len(result.pos_inds) for result in sampled)
    assert counts[0.35] > counts[0.6] > 0


def test_location_weight(runner_with) -> None:
    low, high = losses_of(runner_with(location_weight=2.0)), losses_of(runner_with(location_weight=8.0))
    assert low["loss_bbox"] > 0
    assert high["loss_bbox"].item() == pytest.approx(4 * low["loss_bbox"].item(), rel=1e-5)
    assert high["loss_cls"].item() == pytest.approx(low["loss_cls"].item(), rel=1e-5)


@pytest.mark.parametrize("ratio", [2, 7])
def test_negative_positive_ratio(runner_with, ratio: int) -> None:
    """As many anchors as positives and `ratio` times as many negatives get a gradient from the class loss."""
    runner = runner_with(negative_positive_ratio=ratio)
    head = runner.model.bbox_head
    batch = batch_of(runner)
    truths = [sample.gt_instances for sample in batch["data_samples"]]
    sides = (8, 4, 2)
    generator = torch.Generator().manual_seed(0)
    outputs = [[torch.randn(len(truths), 2 * k, s, s, generator=generator) for s in sides] for k in (2, 4, 10)]
    for scores in outputs[0]:
        scores.requires_grad_(True)
    losses = head.loss_by_feat(*outputs, truths, [sample.metainfo for sample in batch["data_samples"]])
    sum(losses["loss_cls"]).backward()
    flat = torch.cat([x.grad.permute(0, 2, 3, 1).reshape(len(truths), -1, 2) for x in outputs[0]], dim=1)
    learned = (flat.abs().sum(dim=2) > 0).sum(dim=1).tolist()
    positives = [len(result.pos_inds) for result in head._raw_positive_infos["sampling_results"]]
    negatives = [len(result.neg_inds) for result in head._raw_positive_infos["sampling_results"]]
    assert learned == [p + min(ratio * p, n) for p, n in zip(positives, negatives, strict=True)]
    assert sum(learned) == sum(positives) * (1 + ratio)


def test_the_configs_begin_with_the_original_retinafaces_values(options) -> None:
    config = options.load_config()
    assert config.optim_wrapper.optimizer == {"type": "SGD", "lr": 1e-3, "momentum": 0.9, "weight_decay": 5e-4}
    train = config.model.train_cfg
    assert (train.assigner.pos_iou_thr, train.assigner.neg_iou_thr, train.neg_pos_ratio) == (0.35, 0.3, 7)
    assert config.model.bbox_head.location_weight == 2.0
    (crop,) = [step for step in config.train_dataloader.dataset.pipeline if step["type"] == "RandomSquareCrop"]
    assert crop["min_ratio"] == 0.3


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_a_users_config_keeps_what_the_parameters_do_not_set(options, name: str) -> None:
    before = options.load_config()
    before.optim_wrapper.optimizer = {"type": "AdamW", "lr": 0.02, "betas": (0.8, 0.9)}
    before.model.train_cfg.neg_pos_ratio = 5
    assert apply_parameters(before, {}).to_dict() == apply_parameters(before, None).to_dict() == before.to_dict()
    after = apply_parameters(before, {"learning_rate": 1})
    assert after.optim_wrapper.optimizer == {"type": "AdamW", "lr": 1.0, "betas": (0.8, 0.9)}
    assert after.model.train_cfg.neg_pos_ratio == 5
    after = apply_parameters(before, {"optimizer": name})
    assert after.optim_wrapper.optimizer["type"] == name and after.optim_wrapper.optimizer["lr"] == 0.02
    assert "betas" not in after.optim_wrapper.optimizer
    assert before.optim_wrapper.optimizer.lr == 0.02, "the config that was given is not changed"


@pytest.mark.parametrize("names", [["optimizer", "learning_rate"], ["learning_rate", "optimizer"]])
def test_the_order_of_parameters_does_not_matter(options, names: list[str]) -> None:
    given = {"optimizer": "Adam", "learning_rate": 1}
    config = apply_parameters(options.load_config(), {name: given[name] for name in names})
    assert config.optim_wrapper.optimizer == {"type": "Adam", "lr": 1.0}


def test_unknown_names_are_named() -> None:
    with pytest.raises(ValueError, match="unknown parameters depth, lr; this trial knows optimizer, learning_rate"):
        check({"lr": 1, "depth": 2, "optimizer": "SGD"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("optimizer", "LBFGS"),
        ("optimizer", None),
        ("learning_rate", 0),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("learning_rate", "1e-3"),
        ("min_crop_ratio", 1.01),
        ("positive_iou", -0.1),
        ("location_weight", True),
        ("negative_positive_ratio", 2.5),
        ("negative_positive_ratio", 0),
    ],
)
def test_values_out_of_range_are_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name} is"):
        check({name: value})


def test_a_pipeline_without_the_crop_is_named(options) -> None:
    config = options.load_config()
    del config.train_dataloader.dataset.pipeline[2]
    with pytest.raises(ValueError, match=r"LoadFaceAnnotations, ResizeFaces.* must have RandomSquareCrop once"):
        apply_parameters(config, {"min_crop_ratio": 0.3})


# -- the architecture --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["proxylessnas", "joint"])
def test_a_point_of_each_space_with_architectures_becomes_a_detector(searchable_options, name: str) -> None:
    space = SearchSpace.from_nni(json.loads((SPACES / f"{name}.json").read_text()))
    (point,) = space.sample(1, np.random.default_rng(1))
    config = apply_parameters(searchable_options.load_config(), point)
    assert MODELS.build(config.model).backbone.architecture == Architecture.of(point)
    assert config.optim_wrapper.optimizer.lr == point.get("learning_rate", 1e-3)
    assert config.model.bbox_head.location_weight == point.get("location_weight", 2.0)
    json.dumps(config.model.backbone)


def test_without_an_architecture_the_config_keeps_its_own(searchable_options) -> None:
    assert "architecture" not in apply_parameters(searchable_options.load_config(), {}).model.backbone


def test_an_architecture_needs_a_backbone_that_can_be_searched(options) -> None:
    smallest = {name: parameter.values[0] for name, parameter in PARAMETERS.items()}
    with pytest.raises(ValueError, match="backbone is FaceMobileNetV2, .* name configs/retinaface_proxylessnas.py"):
        apply_parameters(options.load_config(), smallest)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"stage2_depth": 1}, "the architecture lacks stage2_block1_expand"),
        ({name: p.values[-1] for name, p in PARAMETERS.items()}, "needs 1358.5 M FLOPs .* below 730 M"),
        ({name: p.values[0] for name, p in PARAMETERS.items()} | {"stage3_depth": 9}, "stage3_depth is 9"),
        ({name: p.values[0] for name, p in PARAMETERS.items()} | {"width": 9}, "unknown parameters width"),
    ],
)
def test_an_architecture_outside_the_space_is_refused(searchable_options, parameters, message) -> None:
    with pytest.raises(ValueError, match=message):
        apply_parameters(searchable_options.load_config(), parameters)
