"""Weights as safetensors bytes, and the checks they pass before anyone uses them, for trials of one's own."""

from nni_hyperfd.method.weights import WeightsError, check_like, dumps, loads, sha256

__all__ = ["WeightsError", "check_like", "dumps", "loads", "sha256"]
