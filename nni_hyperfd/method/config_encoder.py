"""From a configuration to its embedding (section 3.2.2 of the paper)."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import embedding

from nni_hyperfd.method.seeding import seeded
from nni_hyperfd.space import EncodedConfigurations, Graphs


class ConfigurationEncoder(nn.Module):
    """f_c of the paper: one embedding for each configuration.

    Hyper-parameters are encoded by an MLP, architectures by a GIN. For a joint space, which the paper leaves open, the
    embedding is the sum of both, so that the score (eq. 1) is the sum of two inner products with the meta-feature.

    Args:
        example: configurations of the search space that is to be encoded; only their sizes matter. torch-geometric is
            imported if they have graphs.
        hidden: units of the hidden layers and length of an embedding.
    """

    def __init__(self, example: EncodedConfigurations, hidden: int = 64) -> None:
        super().__init__()
        graphs = example.graphs
        self.beside = example.beside
        """Columns of the vectors that the MLP sees in a joint space."""
        plain = len(self.beside) if graphs is not None else example.width
        self.mlp = MLPEncoder(plain, hidden) if plain else None
        self.gin = None if graphs is None else GINEncoder(graphs.num_ops, graphs.num_stages, hidden)

    @classmethod
    def initial(cls, example: EncodedConfigurations, seed: int, hidden: int = 64) -> ConfigurationEncoder:
        """An untrained encoder, ready to encode; the global random state is left as it was.

        Args:
            example: as for the class.
            seed: the weights follow from it alone.
            hidden: as for the class.
        """
        with seeded(seed):
            return cls(example, hidden).eval()

    def forward(self, configurations: EncodedConfigurations) -> Tensor:
        """The embeddings.

        Args:
            configurations: n of them.

        Returns:
            float32 (n, hidden).

        Raises:
            ValueError: they are of another search space.
        """
        if (configurations.graphs is None) != (self.gin is None) or configurations.beside != self.beside:
            raise ValueError("This configuration encoder was made for another search space.")
        parts = []
        if self.mlp is not None:
            vectors = configurations.vectors[:, self.beside] if self.beside else configurations.vectors
            parts.append(self.mlp(torch.from_numpy(np.ascontiguousarray(vectors, dtype=np.float32))))
        if self.gin is not None:
            parts.append(self.gin(configurations.graphs))
        return cast(Tensor, sum(parts[1:], parts[0]))


class MLPEncoder(nn.Module):
    """The encoder of hyper-parameters: one hidden layer.

    Args:
        in_dim: numbers in an encoded configuration.
        hidden: units of the hidden layer and length of the embedding.
    """

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
        """The embeddings (n, hidden) of float32 (n, in_dim) inputs.

        Raises:
            ValueError: the inputs have another width.
        """
        if inputs.shape[-1] != self.in_dim:
            raise ValueError(
                f"This configuration encoder expects inputs of {self.in_dim} numbers, got {inputs.shape[-1]}: "
                "it was made for another search space."
            )
        return cast(Tensor, self.layers(inputs))


class GINEncoder(nn.Module):
    """The encoder of architectures: a graph isomorphism network (Xu et al., 2019) with virtual nodes.

    Every layer's epsilon is learned. A virtual node is one that all nodes of a graph see before each layer, and that
    sees all of them after each layer but the last (the form of the Open Graph Benchmark); two virtual nodes differ by
    their initial weights. Messages go along the edges both ways. Normalisation is per node, not per batch, because a
    batch is 4 configurations. Graphs are padded to the same number of nodes and processed as one dense array: with 8
    nodes each this is twice as fast as lists of edges. A few hundred graphs at once are fastest: about as much as a
    cache holds.

    Args:
        num_ops: operations in the search space.
        num_stages: stages in the search space.
        hidden: units of every layer and length of the embedding.
        layers: number of GIN layers; 2 in the paper.
        dropout: rate while training; 0.2 in the paper.
        virtual_nodes: number of virtual nodes; 2 in the paper.
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
        """The embeddings (n, hidden) of n graphs; a graph without any node gets zeros.

        The order of a graph's nodes does not matter.

        Raises:
            ValueError: the graphs are of another search space.
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
                virtual = self._updated(layer, pooled, virtual)
            nodes = self.dropout(nodes)
        mean = (present @ nodes).squeeze(1) / present.sum(dim=-1).clamp(min=1)
        return cast(Tensor, self.head(mean))

    def _updated(self, layer: int, pooled: Tensor, virtual: Tensor) -> Tensor:
        """The virtual nodes (virtual_nodes, n, hidden) after a layer, from the sums (n, hidden) over their graphs."""
        updates = zip(cast(nn.ModuleList, self.updates[layer]), virtual, strict=True)
        return torch.stack([self.dropout(update(pooled + own)) for update, own in updates])

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
    either_way: NDArray[np.bool_] = (graphs.adjacency != 0) | (np.swapaxes(graphs.adjacency, 1, 2) != 0)
    return torch.from_numpy((either_way & (graphs.ops >= 0)[:, None]).astype(np.float32))


def _two_layers(hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, hidden))
