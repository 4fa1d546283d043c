"""Made-up encoded configurations of each kind of search space, and networks told apart."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from nni_hyperfd.method import weights
from nni_hyperfd.space.encoded import EncodedConfigurations
from nni_hyperfd.space.graphs import Graphs

KINDS = ("hpo", "nas", "joint")
WIDTH = 6
OPERATIONS = 3
STAGES = np.array([0, 0, 1, 1])
BESIDE = (0, 13)


def configurations(kind: str, n: int, seed: int = 0) -> EncodedConfigurations:
    """n random configurations.

    "hpo" has vectors of `WIDTH` numbers in [-1, 1]. "nas" has chains of up to four nodes in two stages, one node in the
    first at least; their vectors are one-hot. "joint" has the columns `BESIDE` around the same vectors.
    """
    rng = np.random.default_rng(seed)
    if kind == "hpo":
        return EncodedConfigurations(rng.uniform(-1, 1, (n, WIDTH)).astype(np.float32))
    ops = rng.integers(-1, OPERATIONS, (n, len(STAGES)))
    ops[:, 0] = rng.integers(0, OPERATIONS, n)
    graphs = Graphs.chains(ops, OPERATIONS, np.broadcast_to(STAGES, ops.shape), STAGES.max() + 1)
    vectors = (ops[..., None] == np.arange(OPERATIONS)).reshape(n, -1).astype(np.float32)
    if kind == "nas":
        return EncodedConfigurations(vectors, graphs)
    beside = rng.uniform(-1, 1, (n, 2)).astype(np.float32)
    return EncodedConfigurations(np.hstack([beside[:, :1], vectors, beside[:, 1:]]), graphs, BESIDE)


def bytes_of(network: nn.Module) -> bytes:
    """A network's weights as the platform keeps them: equal networks have equal bytes."""
    return weights.dumps(network.state_dict())


def distance(first: nn.Module, second: nn.Module) -> float:
    """Euclidean distance of two networks' weights."""
    one, two = dict(first.named_parameters()), dict(second.named_parameters())
    assert one.keys() == two.keys()
    with torch.no_grad():
        return math.sqrt(sum(float((one[name] - two[name]).square().sum()) for name in one))


def images(count: int, shift: float = 0.0, seed: int = 0, feature_dim: int = 5) -> Tensor:
    """Image features (count, 3, 3, feature_dim); the first one lies around `shift`, a fifth of the groups is empty."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, 3, 3, feature_dim, generator=generator)
    features[..., 0] += shift
    features[torch.rand(count, 3, 3, generator=generator) < 0.2] = torch.nan
    return features
