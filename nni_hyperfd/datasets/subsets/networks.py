"""Image features from networks that others trained: ONNX and TorchScript files, which hold graphs of known operations.

Other torch files are not opened: they contain pickled Python objects, which `torch.export.load` unpickles, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from nni_hyperfd.datasets.images import Image
from nni_hyperfd.datasets.subsets.errors import SubsetsError

PIXELS: dict[str, tuple[float | NDArray[np.float64], float | NDArray[np.float64]]] = {
    "255": (0.0, 1.0),
    "1": (0.0, 255.0),
    "-1": (127.5, 127.5),
    "imagenet": (np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])),
}
"""Mean and scale of a network's input, by what it takes: 0 to 255, 0 to 1, -1 to 1, or ImageNet's mean and standard
deviation; RGB or grey."""

_SIDE = 320  # px, for networks that take any size
_RESERVED = ("labels", "looks")  # names of the other features
_WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}

FeatureFunction = Callable[[Image], NDArray[np.float32]]
"""From an image (height, width, 3) to its features (d,)."""


@dataclass(frozen=True)
class FeatureNetwork:
    """A network of the user that turns images into features.

    Attributes:
        name: letters, digits and `_`.
        path: an ONNX (.onnx) or TorchScript (.pt) file.
        layer: the tensor or node of an ONNX file whose output is used; None for `default_layer`.
        size: width and height of the input in px, for a network that takes any size; None for 320.
        pixels: one of `PIXELS`.
    """

    name: str
    path: Path
    layer: str | None = None
    size: int | None = None
    pixels: str = "255"


def parse(text: str) -> FeatureNetwork:
    """Read ``NAME=FILE[,layer=TENSOR][,size=PX][,pixels=255|1|-1|imagenet]``.

    Raises:
        SubsetsError: the text is something else, or there is no such file.
    """
    where = f"the model '{text}'"
    name, equal, rest = text.partition("=")
    file, *options = rest.split(",")
    if not equal or not file or not re.fullmatch(r"[A-Za-z0-9_]+", name) or name in _RESERVED:
        raise SubsetsError(
            f"{where} is not NAME=FILE with a name of letters, digits and '_' (but not {' or '.join(_RESERVED)}); write"
            " it like that."
        )
    given = dict(option.partition("=")[::2] for option in options)
    if unknown := set(given) - {"layer", "size", "pixels"}:
        raise SubsetsError(f"{where} has the option '{min(unknown)}'; there are layer=, size= and pixels=.")
    if given.get("pixels", "255") not in PIXELS:
        raise SubsetsError(f"{where} has pixels={given['pixels']}; use one of {', '.join(PIXELS)}.")
    size = given.get("size", "0")
    if not size.isdecimal() or ("size" in given and not 16 <= int(size) <= 4096):
        raise SubsetsError(f"{where} has size={size}; give pixels, 16 to 4096.")
    path = Path(file)
    if not path.is_file():
        raise SubsetsError(f"{where}: there is no file {path}; name the ONNX or torch file.")
    if path.suffix not in (".onnx", ".pt"):
        raise SubsetsError(
            f"{where}: {path.name} is neither .onnx nor .pt (TorchScript); export it as one of these, as weights"
            " without a network cannot be run and pickled networks are not loaded."
        )
    if "layer" in given and path.suffix != ".onnx":
        raise SubsetsError(f"{where}: TorchScript has no named layers; export the network up to that layer.")
    return FeatureNetwork(name, path, given.get("layer"), int(size) or None, given.get("pixels", "255"))


@dataclass(frozen=True)
class _Opened:
    """A network that is ready to run.

    Attributes:
        run: from a batch of one image (1, c, h, w), or (1, h, w, c) with `channels_last`, to its outputs.
        size: width and height of the input in px.
        channels_last: order of the input's axes.
        grey: the input has one channel.
    """

    run: Callable[[NDArray[np.float32]], list[NDArray[Any]]]
    size: tuple[int, int]
    channels_last: bool = False
    grey: bool = False


def load(network: FeatureNetwork) -> FeatureFunction:
    """Open a network.

    Returns:
        The function from images to features, which several threads may call at once. Maps are pooled, see `pooled`. It
        raises `SubsetsError` if the network cannot be run on images.

    Raises:
        SubsetsError: the file is no such network, or it does not have the layer.
    """
    opened = _open_onnx(network) if network.path.suffix == ".onnx" else _open_torch(network)
    mean, scale = PIXELS[network.pixels]
    size = opened.size

    def describe(image: Image) -> NDArray[np.float32]:
        pixels = cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)
        if opened.grey:
            pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None]
        values = ((pixels - mean) / scale).astype(np.float32)
        batch = values[None] if opened.channels_last else np.ascontiguousarray(values.transpose(2, 0, 1)[None])
        try:
            outputs = opened.run(batch)
        except Exception as error:  # onnxruntime and torch raise errors of many kinds
            raise SubsetsError(
                f"{network.path}: fails on a picture of {size[0]} x {size[1]} px ({_first_line(error)}); try another"
                " size= or layer=."
            ) from error
        return np.concatenate([pooled(output, opened.channels_last) for output in outputs])

    return describe


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def pooled(output: NDArray[Any], channels_last: bool = False) -> NDArray[np.float32]:
    """Pool a network's output.

    Args:
        output: of one image.
        channels_last: order of the axes of a map.

    Returns:
        Mean and standard deviation of every channel (2c,) of a map (1, c, h, w), or (1, h, w, c) with `channels_last`,
        or of tokens (1, n, c). Any other array unchanged, but flat.
    """
    output = np.asarray(output, np.float32)
    if output.ndim == 4 and not channels_last:
        output = output.transpose(0, 2, 3, 1)
    if output.ndim < 3 or output.size == output.shape[-1]:
        return output.ravel()
    rows = output.reshape(-1, output.shape[-1])
    return np.concatenate([rows.mean(0), rows.std(0)])


def _open_onnx(network: FeatureNetwork) -> _Opened:
    import onnx
    import onnxruntime

    try:
        proto = onnx.load(network.path)
        layer = _layer(network, proto.graph)
        # With this output alone, what comes after the layer is not run.
        del proto.graph.output[:]
        proto.graph.output.append(onnx.helper.make_empty_tensor_value_info(layer))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # images run in parallel instead
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except SubsetsError:
        raise
    except Exception as error:  # protobuf and onnxruntime raise errors of many kinds
        raise SubsetsError(
            f"{network.path}: cannot be opened as ONNX ({_first_line(error)}); it may be damaged or cut off."
        ) from error
    inputs = session.get_inputs()
    if [(len(one.shape), one.type) for one in inputs] != [(4, "tensor(float)")]:
        takes = ", ".join(f"{one.name} {one.shape} {one.type}" for one in inputs) or "nothing"
        raise SubsetsError(
            f"{network.path}: takes {takes}, not one batch of pictures of floats; export it so that it does."
        )
    name, shape = inputs[0].name, inputs[0].shape
    channels_last = shape[3] in (1, 3)
    height, width = shape[1:3] if channels_last else shape[2:]
    side = network.size or _SIDE
    return _Opened(
        run=lambda batch: session.run([layer], {name: batch}),
        size=(width if isinstance(width, int) else side, height if isinstance(height, int) else side),
        channels_last=channels_last,
        grey=shape[3 if channels_last else 1] == 1,
    )


def _layer(network: FeatureNetwork, graph: Any) -> str:
    """The name of the tensor whose values are used."""
    if network.layer is None:
        return default_layer(network, graph)
    if network.layer in {name for node in graph.node for name in node.output}:
        return network.layer
    by_node: dict[str, str] = {node.name: node.output[0] for node in graph.node}
    if network.layer not in by_node:
        last = ", ".join(node.output[0] for node in graph.node[-8:])
        raise SubsetsError(
            f"{network.path}: has no tensor or node '{network.layer}' (its last tensors: {last}); name one."
        )
    return by_node[network.layer]


def default_layer(network: FeatureNetwork, graph: Any) -> str:
    """Choose the tensor of an ONNX graph whose values are used as features.

    With several outputs, as a detector has, it is the last tensor that all of them depend on, before the heads. With
    one, as a classifier has, it is the input of the last layer with weights, its last hidden layer.

    Raises:
        SubsetsError: there is no such tensor.
    """
    outputs = {one.name for one in graph.output}
    tensors, nodes = _dependent(graph)
    needed_by = _needed_by(nodes, outputs)
    inner = [node for node in nodes if needed_by.get(node.output[0]) == outputs]
    if len(outputs) > 1:
        inner = [node for node in inner if node.output[0] not in outputs]
    # Attention multiplies two tensors that both depend on the image; a layer has weights as one of its inputs.
    elif weighted := [node for node in inner if node.op_type in _WEIGHTED and not tensors.issuperset(node.input)]:
        return next(str(name) for name in weighted[-1].input if name in tensors)
    if not inner:
        raise SubsetsError(f"{network.path}: shows no layer that all its outputs depend on; name one with layer=.")
    return str(inner[-1].output[0])


def _dependent(graph: Any) -> tuple[set[str], list[Any]]:
    """Tensors that depend on the image's values (a shape does not), and the nodes that compute them, in order."""
    tensors = {one.name for one in graph.input} - {one.name for one in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.op_type != "Shape" and tensors.intersection(node.input):
            tensors.update(node.output)
            nodes.append(node)
    return tensors, nodes


def _needed_by(nodes: list[Any], outputs: set[str]) -> dict[str, set[str]]:
    """For each tensor the outputs that depend on it."""
    needed_by = {name: {name} for name in outputs}
    for node in reversed(nodes):
        uses = set[str]().union(*(needed_by.get(name, set()) for name in node.output))
        for name in node.input:
            needed_by.setdefault(name, set()).update(uses)
    return needed_by


def _open_torch(network: FeatureNetwork) -> _Opened:
    import torch
    from torch.utils import _pytree

    torch.set_num_threads(1)  # images run in parallel instead
    try:
        module = torch.jit.load(network.path, map_location="cpu").eval()
    except (RuntimeError, ValueError) as error:
        raise SubsetsError(
            f"{network.path}: cannot be opened as TorchScript ({_first_line(error)}); save it as such."
        ) from error

    def run(batch: NDArray[np.float32]) -> list[NDArray[Any]]:
        with torch.inference_mode():
            return [tensor.numpy() for tensor in _pytree.tree_leaves(module(torch.from_numpy(batch)))]

    side = network.size or _SIDE
    return _Opened(run, (side, side))
