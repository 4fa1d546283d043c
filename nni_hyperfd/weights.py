"""Weights and image features as safetensors bytes, and their checks, for trials of one's own."""

from nni_hyperfd.method.features import pack as pack_features
from nni_hyperfd.method.weights import WeightsError, check_like, dumps, loads, sha256

__all__ = ["WeightsError", "check_like", "dumps", "loads", "pack_features", "sha256"]
