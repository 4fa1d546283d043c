from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def write_source():
    return _write_source


def _write_source(folder: Path, counts: tuple[int, int, int] = (36, 6, 18), seed: int = 0) -> Path:
    """A data set of two kinds of images: dark ones with one large face, bright ones with several small faces."""
    random = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    for split, count in zip(("train", "val", "test"), counts, strict=True):
        images, annotations = [], []
        for number in range(1, count + 1):
            bright = number % 2
            coarse = random.integers(110 * bright, 110 * bright + 140, (9, 9, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / "images" / f"{split}{number}.png"), cv2.resize(coarse, (80, 64)))
            images.append({"id": number, "file_name": f"{split}{number}.png", "width": 80, "height": 64})
            for _ in range(random.integers(3, 6) if bright else 1):
                side = float(random.uniform(4, 9) if bright else random.uniform(25, 40))
                box = [*random.uniform(0, 20, 2).tolist(), side, side]
                ids = {"id": len(annotations) + 1, "image_id": number, "category_id": 1}
                annotations.append({**ids, "bbox": box, "area": side**2, "iscrowd": 0, "ignore": 0})
        content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "face"}]}
        (folder / f"{split}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def source(tmp_path) -> Path:
    return _write_source(tmp_path / "source")


@pytest.fixture(scope="session")
def write_onnx(tmp_path_factory):
    """Write a network of one kind; its path.

    ``detector``: conv (tensor `deep`, 4 channels) -> two heads; ``classifier``: conv -> mean (`hidden`) -> Gemm ->
    softmax, for 32 x 32 px; ``channels_last``, ``grey`` and ``flat``: what it is given, of 24 x 16 x 3, 1 x 24 x 16
    and 100 numbers.
    """

    def write(kind: str) -> Path:
        random = np.random.default_rng(0)
        shape = {
            "detector": [1, 3, "h", "w"],
            "classifier": [1, 3, 32, 32],
            "channels_last": [1, 24, 16, 3],
            "grey": [1, 1, 24, 16],
            "flat": [1, 100],
        }[kind]
        weights = {"w": (4, 3, 3, 3), "head_w": (1, 4, 1, 1), "box_w": (4, 4, 1, 1), "last_w": (4, 10)}
        conv = helper.make_node("Conv", ["picture", "w"], ["deep"], "backbone", strides=[2, 2])
        if kind == "detector":
            nodes = [conv, helper.make_node("Conv", ["deep", "head_w"], ["score"])]
            nodes += [helper.make_node("Conv", ["deep", "box_w"], ["box"])]
            outputs = ["score", "box"]
        elif kind == "classifier":
            nodes = [conv, helper.make_node("GlobalAveragePool", ["deep"], ["mean"])]
            nodes += [helper.make_node("Flatten", ["mean"], ["hidden"])]
            nodes += [helper.make_node("Gemm", ["hidden", "last_w"], ["logits"])]
            nodes += [helper.make_node("Softmax", ["logits"], ["probabilities"])]
            outputs = ["probabilities"]
        else:
            nodes = [helper.make_node("Relu", ["picture"], ["same"])]
            nodes += [helper.make_node("Identity", ["same"], ["again"])]
            outputs = ["again"]
        used = {name for node in nodes for name in node.input}
        graph = helper.make_graph(
            nodes,
            kind,
            [helper.make_tensor_value_info("picture", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            [
                numpy_helper.from_array(random.normal(size=size).astype(np.float32), name)
                for name, size in weights.items()
                if name in used
            ],
        )
        path = tmp_path_factory.mktemp("onnx") / f"{kind}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
        return path

    return write
