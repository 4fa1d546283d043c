from __future__ import annotations

import numpy as np
import pytest
import torch

from nni_hyperfd.method import GINEncoder
from nni_hyperfd.space.graphs import Graphs

OPS = np.array([[0, 1, 2], [2, 0, -1], [-1, -1, -1]])
ADJACENCY = np.zeros((3, 3, 3), dtype=bool)
ADJACENCY[0, 0, 1] = ADJACENCY[0, 1, 2] = ADJACENCY[1, 0, 1] = True
GRAPHS = Graphs(OPS, ADJACENCY, num_ops=3)


def by_loops(encoder: GINEncoder, graphs: Graphs) -> torch.Tensor:
    """The encoder in evaluation mode, graph by graph and node by node."""
    embeddings = []
    for graph, (ops, adjacency) in enumerate(zip(graphs.ops, graphs.adjacency, strict=True)):
        present = [place for place in range(len(ops)) if ops[place] >= 0]
        hot = torch.zeros(len(ops), graphs.num_ops + graphs.num_stages)
        for v in present:
            hot[v, ops[v]] = 1
            if graphs.stages is not None:
                hot[v, graphs.num_ops + graphs.stages[graph, v]] = 1
        nodes = {v: encoder.embed(hot[v]) for v in present}
        virtual = list(encoder.virtual)
        for layer, convolution in enumerate(encoder.convolutions):
            nodes = {v: value + sum(virtual) for v, value in nodes.items()}
            before = dict(nodes)
            for v in present:
                neighbours = [before[u] for u in present if adjacency[u, v] or adjacency[v, u]]
                nodes[v] = encoder.norms[layer](convolution.nn((1 + convolution.eps) * before[v] + sum(neighbours)))
            if layer < len(encoder.updates):
                nodes = {v: value.relu() for v, value in nodes.items()}
                pooled = sum(before.values())
                virtual = [update(pooled + own) for update, own in zip(encoder.updates[layer], virtual, strict=True)]
        mean = sum(nodes.values()) / len(present) if present else torch.zeros(encoder.head.in_features)
        embeddings.append(encoder.head(mean))
    return torch.stack(embeddings)


# Two chains; where a block is left out its stage, and in the second its neighbours, are not to be looked at.
CHAINS = Graphs.chains(np.array([[1, -1, 0, 1], [0, 1, -1, -1]]), 2, np.array([[0, 7, 1, 1], [0, 0, -3, 9]]), 2)
STRAY = CHAINS.adjacency.copy()
STRAY[1, 1, 2] = True
STAGED = Graphs(CHAINS.ops.astype(np.int8), STRAY, 2, CHAINS.stages, 2)


@pytest.mark.parametrize("graphs", [GRAPHS, STAGED])
def test_gin_against_loops(graphs):
    encoder = GINEncoder.initial(graphs.num_ops, graphs.num_stages, seed=0, hidden=8).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():  # virtual nodes and epsilons start at 0, where they would not show
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.3)
        assert torch.allclose(encoder(graphs), by_loops(encoder, graphs), atol=1e-5)


def test_gin_is_the_papers():
    encoder = GINEncoder(3)
    assert len(encoder.convolutions) == 2 and encoder.dropout.p == 0.2 and len(encoder.virtual) == 2
    assert all(convolution.eps.requires_grad for convolution in encoder.convolutions)
    encoder(GRAPHS).sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_node_order_does_not_matter_and_structure_does():
    encoder = GINEncoder.initial(3, 0, seed=0).eval()
    order = [2, 0, 1]
    shuffled = Graphs(OPS[:, order], ADJACENCY[:, order][:, :, order], num_ops=3)
    rewired = ADJACENCY.copy()
    rewired[0, 1, 2], rewired[0, 0, 2] = False, True
    with torch.no_grad():
        assert torch.allclose(encoder(GRAPHS), encoder(shuffled), atol=1e-6)
        assert not torch.allclose(encoder(GRAPHS)[0], encoder(Graphs(OPS, rewired, num_ops=3))[0], atol=1e-3)


def test_chains_leave_out_inactive_blocks():
    ops, stages = np.array([[1, -1, 0, 1]]), np.array([[0, 0, 1, 1]])
    chain = Graphs.chains(ops, 2, stages, 2)
    assert np.argwhere(chain.adjacency[0]).tolist() == [[0, 2], [2, 3]]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="adjacency"):
        Graphs(OPS, ADJACENCY[:, :2], 3)
    with pytest.raises(ValueError, match="between -1 and 1"):
        Graphs(OPS, ADJACENCY, 2)
    with pytest.raises(ValueError, match="another search space"):
        GINEncoder.initial(4, 0, seed=0)(GRAPHS)
