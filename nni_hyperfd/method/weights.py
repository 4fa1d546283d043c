"""Weights as bytes, and the checks they pass before use. Only safetensors: loading them runs no code."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping

import safetensors
import safetensors.torch
import torch
from torch import Tensor

MAX_BYTES = 16 * 2**20
"""Largest size that `loads` accepts by default, in bytes; an extractor of 50 thousand parameters has 200 kB."""


class WeightsError(ValueError):
    """Weights that are damaged, or not what they should be."""


def dumps(tensors: Mapping[str, Tensor]) -> bytes:
    """Serialise named float32 tensors as safetensors; the same tensors always give the same bytes.

    Raises:
        WeightsError: a tensor has another dtype or a number that is not finite.
    """
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32:
            raise WeightsError(f"Weights must be float32, {name!r} is {str(tensor.dtype).removeprefix('torch.')}.")
        _check_finite(name, tensor)
    # Clones, because safetensors refuses tensors that share memory.
    return safetensors.torch.save({name: tensors[name].detach().contiguous().clone() for name in sorted(tensors)})


def loads(data: bytes, max_bytes: int = MAX_BYTES) -> dict[str, Tensor]:
    """Load and check the named tensors in untrusted bytes; the inverse of `dumps`.

    Args:
        data: the bytes, which may come from anywhere.
        max_bytes: larger data is refused before it is looked at.

    Raises:
        WeightsError: the data is too large, not (or not all of) a safetensors file, or has a tensor of another dtype
            than float32 or a number that is not finite.
    """
    if len(data) > max_bytes:
        raise WeightsError(f"Weights of {len(data)} bytes are refused, the limit is {max_bytes}.")
    try:
        # Types are checked before any tensor is made: safetensors knows some that torch does not.
        entries = safetensors.deserialize(data)  # type: ignore[no-untyped-call] # safetensors' Rust part is untyped
        types = {name: entry["dtype"] for name, entry in entries}
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
    """Return the tensors whose names start with `prefix` and a dot, by the rest of their names."""
    return {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}


def to_text(data: bytes) -> str:
    """Encode bytes as text for a JSON message of NNI.

    The URL-safe alphabet of base64 has no "/": NNI's JSON reader takes "//" for a comment, even inside a string, and
    cuts the message off there.
    """
    return base64.urlsafe_b64encode(data).decode("ascii")


def from_text(text: object) -> bytes:
    """Decode what `to_text` encoded.

    Raises:
        WeightsError: `text` is not a string of the URL-safe base64 alphabet.
    """
    if not isinstance(text, str):
        raise WeightsError(f"Weights are not base64 text but of type {type(text).__name__}.")
    try:
        return base64.b64decode(text, altchars=b"-_", validate=True)
    except ValueError as error:
        raise WeightsError(f"Weights are not base64 text: {error}.") from error


def sha256(data: bytes) -> str:
    """Return the SHA-256 of bytes as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def check_like(tensors: Mapping[str, Tensor], template: Mapping[str, Tensor], what: str) -> None:
    """Check that two mappings have the same names and shapes.

    Args:
        tensors: those to check.
        template: those with the expected names and shapes.
        what: what `tensors` claims to be, for the message ("the updated extractor").

    Raises:
        WeightsError: a name is missing or unknown, or a shape differs; the message has the first difference.
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
