"""The extended space: what each value changes, that it trains, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcv.ops import batched_nms
from mmdet.models.dense_heads import SSDHead
from mmdet.models.losses import DIoULoss, IoULoss
from mmdet.registry import METRICS, MODELS
from mmengine.evaluator import BaseMetric
from mmengine.runner import Runner
from nni.algorithms.hpo.random_tuner import RandomTuner
from nni.algorithms.hpo.tpe_tuner import TpeTuner
from retinaface.extended import DIMENSIONS, RESHAPING, SCALES, ParameterError, choose
from retinaface.losses import AdditiveMarginLoss, SoftmaxFocalLoss
from retinaface.parameters import NAMES, apply_parameters
from retinaface.pipelines import find_transform, find_transforms, use_split
from retinaface.runs import _too_large
from retinaface.training import evaluate, train, validate

from nni_hyperfd.space import SearchSpace
from nni_hyperfd.space.architecture import PARAMETERS

SPACES = Path(__file__).resolve().parents[2] / "search_spaces"
USUAL = {name: next(iter(edits)) for name, edits in DIMENSIONS.items()}
OTHERS = [(name, value) for name, edits in DIMENSIONS.items() for value in list(edits)[1:]]
# Each value at least once, with others beside it.
TOGETHER = [
    {name: list(edits)[1:][place % (len(edits) - 1)] for name, edits in DIMENSIONS.items()} for place in range(3)
]


def test_the_space_is_the_six_hyper_parameters_and_these() -> None:
    space = json.loads((SPACES / "extended.json").read_text())
    assert {name: space.pop(name) for name in NAMES} == json.loads((SPACES / "hpo.json").read_text())
    assert {name: dimension["_value"] for name, dimension in space.items()} == {
        name: list(edits) for name, edits in DIMENSIONS.items()
    }
    assert all(dimension["_type"] == "choice" for dimension in space.values())


def test_it_is_a_search_space_of_the_platform(options) -> None:
    space = SearchSpace.from_nni(json.loads((SPACES / "extended.json").read_text()))
    assert space.kind == "hpo"
    points = space.sample(200, np.random.default_rng(0))
    assert all(set(choose(point)) == set(DIMENSIONS) for point in points)
    assert {(name, point[name]) for point in points for name, _ in OTHERS} >= set(OTHERS)
    for point in points[:5]:
        through_nni = json.loads(json.dumps({k: float(v) if isinstance(v, int) else v for k, v in point.items()}))
        assert choose(through_nni) == choose(point)
        apply_parameters(options.load_config(), through_nni)


@pytest.mark.parametrize("tuner", [RandomTuner, TpeTuner])
def test_what_nnis_own_tuners_propose_is_of_the_space(tuner: type) -> None:
    definition = json.loads((SPACES / "extended.json").read_text())
    space = SearchSpace.from_nni(definition)
    proposing = tuner(seed=0)
    proposing.update_search_space(definition)
    for number in range(40):  # TPE begins with 20 at random
        proposed = proposing.generate_parameters(number)
        assert space.canonical(proposed) == proposed and set(choose(proposed)) == set(DIMENSIONS)
        proposing.receive_trial_result(number, proposed, {"default": float(proposed["neck"] == "bifpn")})


@pytest.mark.parametrize("config", ["retinaface_mobilenetv2", "retinaface_mobilenet025", "retinaface_proxylessnas"])
def test_the_first_values_change_nothing(options, config: str) -> None:
    options = dataclasses.replace(options, config=options.config.with_name(f"{config}.py"))
    with_them, without = (apply_parameters(options.load_config(), parameters) for parameters in (USUAL, {}))
    assert with_them.to_dict() == without.to_dict()


@pytest.mark.parametrize(("name", "value"), OTHERS)
def test_every_other_value_changes_the_config(options, name: str, value: str | int) -> None:
    """And not the one it was made from; a detector of another shape inherits from the usual one."""
    before = options.load_config()
    usual, changed = (apply_parameters(before, parameters).to_dict() for parameters in ({}, {name: value}))
    assert changed != usual and before.to_dict() == options.load_config().to_dict()
    inherits = changed["model"].pop("inherits", None)
    assert inherits == (usual["model"] if name in RESHAPING else None)
    assert (changed["model"] != usual["model"]) == (name not in ("crop", "augmentation", "test_scales"))


def test_the_usual_head_is_ssds_to_the_last_bit(options) -> None:
    head = MODELS.build(options.load_config().model).bbox_head
    generator = torch.Generator().manual_seed(0)
    scores, offsets = torch.randn(300, 2, generator=generator), torch.randn(300, 4, generator=generator)
    labels = (torch.rand(300, generator=generator) > 0.05).long()
    weights = (torch.rand(300, generator=generator) > 0.1).float()
    wanted, box_weights = torch.randn(300, 4, generator=generator), (1.0 - labels.float())[:, None].expand(-1, 4)
    given = (scores, offsets, torch.zeros(300, 4), labels, weights, wanted, box_weights, 13)
    for ours, theirs in zip(head.loss_by_feat_single(*given), SSDHead.loss_by_feat_single(head, *given), strict=True):
        assert torch.equal(ours, theirs)


# -- losses ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def losses_of(options, splits, tmp_path):
    """Losses of the trial's detector on the same real batch."""
    config = apply_parameters(options.load_config(), {})
    for loader, split in zip((config.train_dataloader, config.val_dataloader), splits, strict=True):
        use_split(loader, split, tmp_path)
    np.random.seed(0)
    torch.manual_seed(0)
    batch = next(iter(Runner.build_dataloader(config.train_dataloader, seed=0)))

    def losses(**parameters) -> dict[str, torch.Tensor]:
        detector = MODELS.build(apply_parameters(options.load_config(), parameters).model)
        detector.init_weights()
        data = detector.data_preprocessor(batch, training=True)
        found = detector.eval().loss(data["inputs"], data["data_samples"])
        return {name: torch.stack(x).sum() if isinstance(x, list) else x for name, x in found.items()}

    return losses


@pytest.mark.parametrize(("value", "kind"), [("iou", IoULoss), ("diou", DIoULoss)])
def test_regression_losses(options, value: str, kind: type) -> None:
    """-log IoU, and 1 - IoU + the squared distance of the centres over the squared diagonal around both boxes; over the
    boxes that the offsets stand for."""
    head = MODELS.build(apply_parameters(options.load_config(), {"regression_loss": value}).model).bbox_head
    assert type(head.loss_bbox) is kind
    anchors = torch.tensor([[0.0, 0, 16, 16], [8, 8, 40, 40], [0, 0, 64, 64]])
    offsets = torch.tensor([[0.5, -0.5, 0.4, 0.2], [0.0, 0.3, -0.5, 0.1], [9.0, 9, 9, 9]])
    faces = torch.tensor([[1.0, 0, 17, 19], [10, 5, 35, 36], [0, 0, 0, 0]])
    labels, weights = torch.tensor([0, 0, 1]), torch.tensor([[1.0] * 4, [1.0] * 4, [0.0] * 4])
    scores = torch.zeros(3, 2)
    _, loss = head.loss_by_feat_single(scores, offsets, anchors, labels, torch.ones(3), faces, weights, 2)

    expected = 0.0
    for anchor, (dx, dy, dw, dh), face in zip(anchors.tolist()[:2], offsets.tolist(), faces.tolist(), strict=False):
        side = anchor[2] - anchor[0]
        x, y = (anchor[0] + anchor[2]) / 2 + 0.1 * dx * side, (anchor[1] + anchor[3]) / 2 + 0.1 * dy * side
        w, h = side * np.exp(0.2 * dw), side * np.exp(0.2 * dh)
        box = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
        low, high = np.minimum(box, face), np.maximum(box, face)
        shared = (low[2] - high[0]) * (low[3] - high[1])
        iou = shared / (w * h + (face[2] - face[0]) * (face[3] - face[1]) - shared)
        distance = (x - (face[0] + face[2]) / 2) ** 2 + (y - (face[1] + face[3]) / 2) ** 2
        diagonal = (high[2] - low[0]) ** 2 + (high[3] - low[1]) ** 2
        expected += -np.log(iou) if value == "iou" else 1 - iou + distance / diagonal
    assert loss.item() == pytest.approx(expected / 2, rel=1e-4)


def test_a_regression_loss_leaves_the_other_losses_alone(losses_of) -> None:
    usual = losses_of()
    for value in ("iou", "diou"):
        other = losses_of(regression_loss=value)
        assert other["loss_bbox"] > 0 and other["loss_bbox"] != usual["loss_bbox"]
        assert other["loss_cls"] == usual["loss_cls"] and other["loss_landmark"] == usual["loss_landmark"]


@pytest.mark.parametrize("value", ["iou", "diou"])
def test_without_a_face_there_is_nothing_to_regress(options, value: str) -> None:
    head = MODELS.build(apply_parameters(options.load_config(), {"regression_loss": value}).model).bbox_head
    offsets, nothing = torch.ones(2, 4, requires_grad=True), torch.zeros(2, 4)
    given = (torch.zeros(2, 2), offsets, torch.ones(2, 4), torch.ones(2).long(), torch.ones(2), nothing, nothing, 1)
    _, loss = head.loss_by_feat_single(*given)
    loss.backward()
    assert loss == 0 and not offsets.grad.any()


def test_classification_losses(options, losses_of) -> None:
    """Margins are mined as cross entropy is; focal loss learns from all anchors, whatever the ratio."""
    for value, kind in {"margin": AdditiveMarginLoss, "focal": SoftmaxFocalLoss}.items():
        config = apply_parameters(options.load_config(), {"classification_loss": value})
        assert type(MODELS.build(config.model).bbox_head.loss_cls) is kind
    usual = losses_of()
    margin, fewer = (losses_of(classification_loss="margin", negative_positive_ratio=ratio) for ratio in (7, 2))
    assert margin["loss_cls"] > usual["loss_cls"] and margin["loss_bbox"] == usual["loss_bbox"]
    assert margin["loss_cls"] > fewer["loss_cls"] > 0
    focal, same = (losses_of(classification_loss="focal", negative_positive_ratio=ratio) for ratio in (7, 2))
    assert same["loss_cls"] == focal["loss_cls"] != usual["loss_cls"]


def test_background_of_the_finest_level_is_the_highest_of_three(options) -> None:
    head = MODELS.build(apply_parameters(options.load_config(), {"maxout_background": 3}).model).bbox_head
    maps = [torch.randn(2, 80, s, s, generator=torch.Generator().manual_seed(s)) for s in (4, 2, 1)]
    classes, *_ = head(maps)
    usual, more = head.cls_convs[0](maps[0]), head.background_conv(maps[0])
    raised = 0
    for anchor in range(2):
        face, background = usual[:, 2 * anchor], usual[:, 2 * anchor + 1]
        highest = torch.maximum(background, torch.maximum(more[:, 2 * anchor], more[:, 2 * anchor + 1]))
        assert torch.equal(classes[0][:, 2 * anchor], face)
        assert torch.equal(classes[0][:, 2 * anchor + 1], highest)
        raised += (highest > background).sum()
    assert raised > 0
    assert all(torch.equal(classes[level], head.cls_convs[level](maps[level])) for level in (1, 2))


# -- images ------------------------------------------------------------------------------------------------------------


def test_anchors_are_sampled_for_half_of_the_images(options) -> None:
    config = apply_parameters(options.load_config(), {"crop": "anchor_sampling", "min_crop_ratio": 0.55})
    kinds = [step["type"] for step in config.train_dataloader.dataset.pipeline]
    assert kinds.index("RandomChoice") == 2
    (choice,) = find_transforms(config.train_dataloader, "RandomChoice")
    assert "prob" not in choice and len(choice["transforms"]) == 2
    sampling = find_transform(config.train_dataloader, "DataAnchorSampling")
    assert sampling["size"] == 64 and sorted(sampling["anchors"]) == [16, 32, 64, 128, 256, 512]
    assert find_transform(config.train_dataloader, "RandomSquareCrop")["min_ratio"] == 0.55


@pytest.mark.parametrize(("steps", "side", "scale"), [(1, 736, 828), (2, 832, 952)])
def test_images_are_larger_with_the_compound_scale(options, steps: int, side: int, scale: int) -> None:
    """640 x 1.15 and 640 x 1.15^2 to the next multiple of 32; 720 likewise, without rounding."""
    whole = dataclasses.replace(options, size=None, eval_size=None).load_config()
    config = apply_parameters(whole, {"compound_scale": steps, "crop": "anchor_sampling", "test_scales": 3})
    assert find_transform(config.train_dataloader, "ResizeFaces").scale == (side, side)
    assert find_transform(config.train_dataloader, "DataAnchorSampling")["size"] == side
    sizes = [resize["scale"] for resize in find_transforms(config.val_dataloader, "ResizeShortestEdge")]
    assert sizes == [scale // 2, scale, scale * 3 // 2]


@METRICS.register_module()
class Recorded(BaseMetric):
    """Keeps what it is given."""

    default_prefix = "recorded"
    samples: list[dict]

    def process(self, data_batch: dict, data_samples: list[dict]) -> None:
        Recorded.samples.extend(data_samples)
        self.results.extend(data_samples)

    def compute_metrics(self, results: list) -> dict[str, float]:
        return {"images": len(results)}


def test_several_scales_are_merged(options, splits) -> None:
    """The detections at each scale, each as a validation at that scale alone has them, suppressed together."""

    def detections(config) -> list:
        Recorded.samples = []
        evaluate(config, splits[1], {"type": "Recorded"})
        return [sample["pred_instances"] for sample in sorted(Recorded.samples, key=lambda sample: sample["img_id"])]

    merged = detections(apply_parameters(options.load_config(), {"test_scales": 3}))
    alone = []
    for scale in SCALES:
        single = options.load_config()
        resize = find_transform(single.val_dataloader, "ResizeShortestEdge")
        resize.update(scale=round(resize.scale * scale), max_size=round(resize.max_size * scale))
        alone.append(detections(single))
    assert len(merged) == 4
    for ours, *parts in zip(merged, *alone, strict=True):
        boxes, scores = torch.cat([p["bboxes"] for p in parts]), torch.cat([p["scores"] for p in parts])
        expected, _ = batched_nms(boxes, scores, torch.zeros(len(boxes)), {"type": "nms", "iou_threshold": 0.4})
        assert len(expected) > len(parts[1]["scores"]) / 2
        assert torch.allclose(torch.cat([ours["bboxes"], ours["scores"][:, None]], dim=1), expected[:750], atol=1e-3)


def test_the_largest_scale_is_what_a_gpu_is_too_small_for(options) -> None:
    config = apply_parameters(options.load_config(), {"test_scales": 3})
    assert "validating at batch size 8 and 144 pixels" in _too_large(config, training=False)


# -- whole trials ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parameters", TOGETHER, ids=lambda values: "-".join(map(str, values.values())))
def test_a_trial(options, splits, tmp_path, parameters: dict) -> None:
    """Every value trains, validates, and is saved, in the company of others; the same seed gives the same answer."""
    assert {value for trial in TOGETHER for value in trial.items()} == set(OTHERS)
    outcomes = []
    for number in range(1 + (parameters is TOGETHER[0])):
        reported: list[float] = []
        config = apply_parameters(options.load_config(), parameters)
        outcomes.append(train(config, *splits, tmp_path / str(number), reported.append).best)
        assert reported == [outcomes[-1]] and 0 <= outcomes[-1] <= 1
        assert (tmp_path / str(number) / "detector.safetensors").is_file()
    assert len(set(outcomes)) == 1
    # mmengine has written the config down, with which the detector can be built again.
    (written,) = (tmp_path / "0").glob("*.py")
    weights = str(tmp_path / "0" / "detector.safetensors")
    again = dataclasses.replace(options, config=written, weights=weights, size=None, eval_size=None)
    assert validate(again.load_config(), splits[1]) == outcomes[0]


# -- refused -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("neck", "rfp", "neck is 'rfp'; it must be one of fpn, pafpn, bifpn, nasfpn."),
        ("neck", None, "neck is None"),
        ("neck", ["fpn"], r"neck is \['fpn'\]"),
        ("maxout_background", 2, "maxout_background is 2; it must be one of 1, 3."),
        ("maxout_background", True, "maxout_background is True"),
        ("maxout_background", "3", "maxout_background is '3'"),
        ("compound_scale", 0.5, "compound_scale is 0.5; it must be one of 0, 1, 2."),
        ("compound_scale", float("nan"), "compound_scale is nan"),
        ("test_scales", 0, "test_scales is 0"),
        ("augmentation", "", "augmentation is ''"),
    ],
)
def test_values_outside_the_space_are_refused(options, name: str, value: object, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        apply_parameters(options.load_config(), {name: value})


def test_unknown_names_are_told_the_known_ones(options) -> None:
    with pytest.raises(ParameterError, match="unknown parameters necks; this trial knows .*, neck, "):
        apply_parameters(options.load_config(), {"necks": "fpn"})


def test_what_a_config_does_not_have_is_refused(searchable_options) -> None:
    smallest = {name: parameter.values[0] for name, parameter in PARAMETERS.items()}
    with pytest.raises(ParameterError, match="compound_scale changes a FaceMobileNetV1 or FaceMobileNetV2, the config"):
        apply_parameters(searchable_options.load_config(), {**smallest, "compound_scale": 1})
    config = searchable_options.load_config()
    config.model.neck.type = "FPN"
    with pytest.raises(ParameterError, match="neck changes a RetinaFaceNeck, the config has a FPN; take neck out"):
        apply_parameters(config, {"neck": "bifpn"})
    config.model.bbox_head.type = "SSDHead"
    for name, value in {"maxout_background": 3, "regression_loss": "iou", "classification_loss": "focal"}.items():
        with pytest.raises(ParameterError, match=f"{name} changes a RetinaFaceHead, the config has a SSDHead"):
            apply_parameters(config, {name: value})
