"""From a configuration to its embedding (section 3.2.2 of the paper)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from nni_hyperfd.method.seeding import seeded
from nni_hyperfd.space.graphs import Graphs


class MLPEncoder(nn.Module):
    """f_c of the paper for hyper-parameters: one hidden layer. in_dim: length of a configuration as the space encodes
    it. hidden: units of the hidden layer and length of the embedding."""

    def __init__(self, in_dim: int, hidden: int = 64) -> None:
        super().__init__()
        self.in_dim = in_dim
        # No last bias: it would shift all scores of a task alike, so its gradient is nothing but rounding noise.
        self.layers = nn.Sequential(nn.Linear(in_dim, hidden), nn.ReLU(), nn.Linear(hidden, hidden, bias=False))

    @classmethod
    def initial(cls, in_dim: int, seed: int, hidden: int = 64) -> MLPEncoder:
        """Untrained weights that follow from `seed` alone; the global random state is left as it was."""
        with seeded(seed):
            return cls(in_dim, hidden)

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs: float32 (n, in_dim). Returns (n, hidden). Raises ValueError for another width."""
        if inputs.shape[-1] != self.in_dim:
            raise ValueError(
                f"This configuration encoder expects inputs of {self.in_dim} numbers, got {inputs.shape[-1]}: "
                "it was made for another search space."
            )
        return self.layers(inputs)


class GINEncoder(nn.Module):
    """f_c of the paper for architectures: a graph isomorphism network (Xu et al., 2019) with virtual nodes.

    num_ops, num_stages: how many there are in the search space. layers, dropout, virtual_nodes: the paper's. Every
    layer's epsilon is learned. A virtual node is one that all nodes of a graph see before each layer, and that sees
    all of them after each layer but the last (Open Graph Benchmark's form); two differ by their initial weights.
    Messages go along the edges both ways. Normalisation is per node, not per batch: batches are 4 configurations.
    Graphs are padded to the same number of nodes and worked on as one dense array: with 8 nodes each this is twice as
    fast as lists of edges. A few hundred graphs at once are fastest: about as much as a cache holds.
    """

    def __init__(
        self,
        num_ops: int,
        num_stages: int = 0,
        hidden: int = 64,
        layers: int = 2,
        dropout: float = 0.2,
        virtual_nodes: int = 2,
    ) -> None:
        from torch_geometric.nn import DenseGINConv

        super().__init__()
        self.num_ops, self.num_stages = num_ops, num_stages
        self.embed = nn.Linear(num_ops + num_stages, hidden)
        self.convolutions = nn.ModuleList(DenseGINConv(_two_layers(hidden), train_eps=True) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(layers))
        self.virtual = nn.Parameter(torch.zeros(virtual_nodes, hidden))
        self.updates = nn.ModuleList(
            nn.ModuleList(_two_layers(hidden) for _ in range(virtual_nodes)) for _ in range(layers - 1)
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, hidden, bias=False)

    @classmethod
    def initial(cls, num_ops: int, num_stages: int, seed: int, hidden: int = 64) -> GINEncoder:
        """Untrained weights that follow from `seed` alone; the global random state is left as it was."""
        with seeded(seed):
            return cls(num_ops, num_stages, hidden)

    def forward(self, graphs: Graphs) -> Tensor:
        """(n, hidden); a graph without any node gets zeros. The order of a graph's nodes does not matter.

        Raises ValueError for graphs of another search space.
        """
        if (graphs.num_ops, graphs.num_stages) != (self.num_ops, self.num_stages):
            raise ValueError(
                f"This encoder expects graphs of {self.num_ops} operations and {self.num_stages} stages, got "
                f"{graphs.num_ops} and {graphs.num_stages}: it was made for another search space."
            )
        present, adjacency = _present(graphs), _adjacency(graphs)
        nodes = self._embedded(graphs)
        virtual = self.virtual.unsqueeze(1).expand(-1, len(graphs), -1)
        for layer, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            nodes = nodes + virtual.sum(dim=0).unsqueeze(1)
            pooled = (present @ nodes).squeeze(1) if layer < len(self.updates) else None
            nodes = norm(convolution(nodes, adjacency))
            if pooled is not None:
                nodes = nodes.relu_()
                updates = zip(self.updates[layer], virtual, strict=True)
                virtual = torch.stack([self.dropout(update(pooled + own)) for update, own in updates])
            nodes = self.dropout(nodes)
        mean = (present @ nodes).squeeze(1) / present.sum(dim=-1).clamp(min=1)
        return self.head(mean)

    def _embedded(self, graphs: Graphs) -> Tensor:
        """(n, nodes, hidden): `embed` of each node's one-hot operation and stage; anything where there is no node.

        All its values are made once and looked up, which is less work than a product for each node.
        """
        columns = self.embed.weight.T
        values, row = columns[: self.num_ops] + self.embed.bias, graphs.ops.astype(np.int64)
        if graphs.stages is not None:
            values = (values.unsqueeze(1) + columns[self.num_ops :]).flatten(end_dim=1)
            row = row * self.num_stages + graphs.stages
        return embedding(torch.from_numpy(np.where(graphs.ops >= 0, row, 0)), values)


def _present(graphs: Graphs) -> Tensor:
    """float32 (n, 1, nodes): 1 for a node, 0 for none. A product with it sums over a graph's nodes."""
    return torch.from_numpy((graphs.ops >= 0).astype(np.float32)).unsqueeze(1)


def _adjacency(graphs: Graphs) -> Tensor:
    """float32 (n, nodes, nodes): 1 where there is an edge, both ways; none comes from what is no node."""
    either_way = (graphs.adjacency != 0) | (np.swapaxes(graphs.adjacency, 1, 2) != 0)
    return torch.from_numpy((either_way & (graphs.ops >= 0)[:, None]).astype(np.float32))


def _two_layers(hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, hidden))
