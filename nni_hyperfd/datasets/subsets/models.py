"""Image features from networks that others trained: ONNX and TorchScript files, which hold graphs of known operations.

Other torch files are not opened: what they hold is pickled Python, and `torch.export.load` unpickles, too.
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

from nni_hyperfd.datasets.subsets.errors import SubsetsError

PIXELS = {
    "255": (0.0, 1.0),
    "1": (0.0, 255.0),
    "-1": (127.5, 127.5),
    "imagenet": (np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])),
}
"""Mean and scale of what a network takes: 0 to 255, 0 to 1, -1 to 1, or with the means of ImageNet; RGB or grey."""

_SIDE = 320  # px; of networks that take any size
_TAKEN = ("labels", "looks")
_WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}

Network = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
Run = Callable[[NDArray[np.float32]], list[NDArray[Any]]]


@dataclass(frozen=True)
class Model:
    """A network of the user's: ``layer`` is the tensor or node of an ONNX file that is taken, None for the default."""

    name: str
    path: Path
    layer: str | None = None
    size: int | None = None
    pixels: str = "255"


def parse(text: str) -> Model:
    """``NAME=FILE[,layer=TENSOR][,size=PX][,pixels=255|1|-1|imagenet]``."""
    where = f"the model '{text}'"
    name, equal, rest = text.partition("=")
    file, *options = rest.split(",")
    if not equal or not file or not re.fullmatch(r"[A-Za-z0-9_]+", name) or name in _TAKEN:
        raise SubsetsError(
            f"{where} is not NAME=FILE with a name of letters, digits and '_' (but not {' or '.join(_TAKEN)}); write it"
            " like that."
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
    return Model(name, path, given.get("layer"), int(size) or None, given.get("pixels", "255"))


def load(model: Model) -> Network:
    """A function from a BGR picture to a vector, which may be called by several threads at once.

    Maps are pooled to mean and standard deviation of every channel. Raises SubsetsError for a file that is no such
    network or a layer that is not in it; the function does for a network that cannot be run on the picture.
    """
    run, size, channels_last, grey = (_load_onnx if model.path.suffix == ".onnx" else _load_torch)(model)
    mean, scale = PIXELS[model.pixels]

    def describe(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        image = cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)
        if grey:
            image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
        values = ((image - mean) / scale).astype(np.float32)
        batch = values[None] if channels_last else np.ascontiguousarray(values.transpose(2, 0, 1)[None])
        try:
            outputs = run(batch)
        except Exception as error:  # onnxruntime and torch raise errors of many kinds
            reason = str(error).strip().splitlines()[0]
            raise SubsetsError(
                f"{model.path}: fails on a picture of {size[0]} x {size[1]} px ({reason}); try another size= or layer=."
            ) from error
        return np.concatenate([pooled(output, channels_last) for output in outputs])

    return describe


def pooled(output: NDArray[Any], channels_last: bool = False) -> NDArray[np.float32]:
    """Of a map (1, c, h, w), or (1, h, w, c) with ``channels_last``, or tokens (1, n, c): mean and standard deviation
    of every channel (2c); any other array as it is, flat."""
    output = np.asarray(output, np.float32)
    if output.ndim == 4 and not channels_last:
        output = output.transpose(0, 2, 3, 1)
    if output.ndim < 3 or output.size == output.shape[-1]:
        return output.ravel()
    rows = output.reshape(-1, output.shape[-1])
    return np.concatenate([rows.mean(0), rows.std(0)])


def _load_onnx(model: Model) -> tuple[Run, tuple[int, int], bool, bool]:
    import onnx
    import onnxruntime

    try:
        proto = onnx.load(model.path)
        graph = proto.graph
        layer = _layer(model, graph)
        # Whatever comes after the layer is not even run.
        del graph.output[:]
        graph.output.append(onnx.helper.make_empty_tensor_value_info(layer))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # images are what runs side by side
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except SubsetsError:
        raise
    except Exception as error:  # protobuf and onnxruntime raise errors of many kinds
        reason = str(error).strip().splitlines()[0]
        raise SubsetsError(
            f"{model.path}: cannot be opened as ONNX ({reason}); it may be damaged or cut off."
        ) from error
    inputs = session.get_inputs()
    if [(len(one.shape), one.type) for one in inputs] != [(4, "tensor(float)")]:
        takes = ", ".join(f"{one.name} {one.shape} {one.type}" for one in inputs) or "nothing"
        raise SubsetsError(
            f"{model.path}: takes {takes}, not one batch of pictures of floats; export it so that it does."
        )
    (picture,) = inputs
    channels_last = picture.shape[3] in (1, 3)
    height, width = picture.shape[1:3] if channels_last else picture.shape[2:]
    side = model.size or _SIDE
    size = (width if isinstance(width, int) else side), (height if isinstance(height, int) else side)
    grey = picture.shape[3 if channels_last else 1] == 1
    return lambda batch: session.run([layer], {picture.name: batch}), size, channels_last, grey


def _layer(model: Model, graph: Any) -> str:
    """The name of the tensor that is taken."""
    tensors = {name for node in graph.node for name in node.output}
    if model.layer is None:
        return default_layer(model, graph)
    by_node = {node.name: node.output[0] for node in graph.node}
    layer = model.layer if model.layer in tensors else by_node.get(model.layer)
    if layer is None:
        last = ", ".join(node.output[0] for node in graph.node[-8:])
        raise SubsetsError(f"{model.path}: has no tensor or node '{model.layer}' (its last tensors: {last}); name one.")
    return layer


def default_layer(model: Model, graph: Any) -> str:
    """With several outputs the last tensor that all of them depend on, as before the heads of a detector; with one,
    what the last layer with weights takes, as the last hidden layer of a classifier."""
    weights = {one.name for one in graph.initializer}
    pictures = {one.name for one in graph.input} - weights
    # Of every tensor that depends on the picture's values (a shape does not): which of the outputs depend on it.
    alive, nodes = set(pictures), []
    for node in graph.node:
        if node.op_type != "Shape" and alive.intersection(node.input):
            alive.update(node.output)
            nodes.append(node)
    needed = {one.name: {one.name} for one in graph.output}
    for node in reversed(nodes):
        uses = set().union(*(needed.get(name, set()) for name in node.output))
        for name in node.input:
            needed.setdefault(name, set()).update(uses)
    outputs = {one.name for one in graph.output}
    inner = [node for node in nodes if needed.get(node.output[0]) == outputs]
    if len(outputs) == 1:
        # Attention multiplies two tensors that both depend on the picture; a layer has weights beside one.
        weighted = [node for node in inner if node.op_type in _WEIGHTED and not alive.issuperset(node.input)]
        if weighted:
            return next(name for name in weighted[-1].input if name in alive)
    else:
        inner = [node for node in inner if node.output[0] not in outputs]
    if not inner:
        raise SubsetsError(f"{model.path}: shows no layer that all its outputs depend on; name one with layer=.")
    return inner[-1].output[0]


def _load_torch(model: Model) -> tuple[Run, tuple[int, int], bool, bool]:
    import torch

    torch.set_num_threads(1)  # images are what runs side by side
    try:
        network = torch.jit.load(model.path, map_location="cpu").eval()
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise SubsetsError(f"{model.path}: cannot be opened as TorchScript ({reason}); save it as such.") from error

    def run(batch: NDArray) -> list[NDArray]:
        with torch.inference_mode():
            return [tensor.numpy() for tensor in torch.utils._pytree.tree_leaves(network(torch.from_numpy(batch)))]

    side = model.size or _SIDE
    return run, (side, side), False, False
