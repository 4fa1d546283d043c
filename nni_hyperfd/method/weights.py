"""Weights as bytes, and the checks they pass before anyone uses them. Only safetensors: loading runs no code."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping

import safetensors
import safetensors.torch
import torch
from torch import Tensor

MAX_BYTES = 16 * 2**20
"""An extractor has about 50 thousand parameters (200 kB); whoever sends more than this sends something else."""


class WeightsError(ValueError):
    """Weights that are broken, or not what they should be."""


def dumps(tensors: Mapping[str, Tensor]) -> bytes:
    """The safetensors bytes of named float32 tensors; the same tensors always give the same bytes.

    Raises WeightsError for other types and for numbers that are not finite.
    """
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32:
            raise WeightsError(f"Weights must be float32, {name!r} is {str(tensor.dtype).removeprefix('torch.')}.")
        _check_finite(name, tensor)
    # Clones, because safetensors refuses tensors that share memory.
    return safetensors.torch.save({name: tensors[name].detach().contiguous().clone() for name in sorted(tensors)})


def loads(data: bytes, max_bytes: int = MAX_BYTES) -> dict[str, Tensor]:
    """The named tensors in bytes that came from somewhere else; the inverse of `dumps`.

    Raises WeightsError for more than `max_bytes`, for what is not safetensors (or cut short), for types other than
    float32 and for numbers that are not finite.
    """
    if len(data) > max_bytes:
        raise WeightsError(f"Weights of {len(data)} bytes are refused, the limit is {max_bytes}.")
    try:
        # Types are looked at before any tensor is made: safetensors knows some that torch does not.
        types = {name: entry["dtype"] for name, entry in safetensors.deserialize(data)}
    except safetensors.SafetensorError as error:
        raise WeightsError(f"Weights are not intact safetensors bytes: {error}.") from error
    for name, dtype in types.items():
        if dtype != "F32":
            raise WeightsError(f"Weights must be float32 (F32), {name!r} is {dtype}.")
    tensors = safetensors.torch.load(data)
    for name, tensor in tensors.items():
        _check_finite(name, tensor)
    return tensors


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix` and a dot, without them."""
    return {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}


def to_text(data: bytes) -> str:
    """Bytes as text for a JSON message of NNI. Without "/": NNI's JSON reader takes "//" for a comment, even inside a
    string, and cuts the message off there."""
    return base64.urlsafe_b64encode(data).decode("ascii")


def from_text(text: object) -> bytes:
    """The inverse of `to_text`. Raises WeightsError for what is no such text."""
    try:
        return base64.b64decode(text, altchars=b"-_", validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise WeightsError(f"Weights are not base64 text: {error}.") from error


def sha256(data: bytes) -> str:
    """64 hexadecimal digits that name these bytes."""
    return hashlib.sha256(data).hexdigest()


def check_like(tensors: Mapping[str, Tensor], template: Mapping[str, Tensor], what: str) -> None:
    """Raise WeightsError, naming the first difference, unless both have the same names and shapes.

    what: what the tensors claim to be, for the message ("the updated extractor").
    """
    for name in sorted(tensors.keys() | template.keys()):
        if name not in tensors:
            raise WeightsError(f"{name!r} is missing from {what}.")
        if name not in template:
            raise WeightsError(f"{name!r} does not belong to {what}.")
        if tensors[name].shape != template[name].shape:
            raise WeightsError(
                f"{name!r} of {what} has shape {tuple(tensors[name].shape)}, expected {tuple(template[name].shape)}."
            )


def _check_finite(name: str, tensor: Tensor) -> None:
    if not tensor.isfinite().all():
        raise WeightsError(f"Weights must be finite, {name!r} contains NaN or infinity.")
