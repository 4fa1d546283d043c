from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from nni_hyperfd.method import ConfigurationEncoder, GINEncoder, MLPEncoder, score
from nni_hyperfd.space.encoded import EncodedConfigurations
from support.encoded import BESIDE, KINDS, OPERATIONS, WIDTH, bytes_of, configurations

# -- the encoder of hyper-parameters -----------------------------------------------------------------------------------


def test_mlp_by_hand():
    encoder = MLPEncoder(in_dim=2, hidden=2)
    encoder.load_state_dict(
        {
            "layers.0.weight": torch.tensor([[1.0, 0.0], [0.0, -1.0]]),
            "layers.0.bias": torch.tensor([0.5, 0.5]),
            "layers.2.weight": torch.tensor([[2.0, 1.0], [0.0, 3.0]]),
        }
    )
    # hidden: relu(1.5, -1.5) = (1.5, 0); relu(-0.5, 1.5) = (0, 1.5)
    assert encoder(torch.tensor([[1.0, 2.0], [-1.0, -1.0]])).tolist() == [[3.0, 0.0], [1.5, 4.5]]


def test_mlp_shapes_and_the_wrong_space():
    encoder = MLPEncoder.initial(7, seed=0)
    assert encoder(torch.zeros(3, 7)).shape == (3, 64)
    assert encoder(torch.zeros(0, 7)).shape == (0, 64)
    with pytest.raises(ValueError, match="expects inputs of 7 numbers, got 6"):
        encoder(torch.zeros(3, 6))


def test_mlp_initial_weights_follow_from_the_seed_alone():
    state = torch.random.get_rng_state()
    first, again, other = (MLPEncoder.initial(7, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    inputs = torch.ones(1, 7)
    assert torch.equal(first(inputs), again(inputs))
    assert not torch.equal(first(inputs), other(inputs))


# -- the encoder of a whole configuration ------------------------------------------------------------------------------


def encoder(kind, seed=0, hidden=8):
    """An encoder whose weights are all away from 0, where virtual nodes and epsilons start and would not show."""
    network = ConfigurationEncoder.initial(configurations(kind, 1), seed, hidden)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return network


def part(network, name):
    """The weights of one of the two encoders."""
    return {key.removeprefix(f"{name}."): value for key, value in network.state_dict().items() if key.startswith(name)}


def by_hand(network, configurations):
    """Both parts on their own: numpy's product for the vectors, the GIN (tested against loops) for the graphs."""
    total = np.zeros((len(configurations), 8))
    if mlp := part(network, "mlp"):
        columns = list(configurations.beside) or slice(None)
        first, bias, second = (mlp[f"layers.{name}"].numpy() for name in ("0.weight", "0.bias", "2.weight"))
        total += np.maximum(configurations.vectors[:, columns] @ first.T + bias, 0) @ second.T
    if gin := part(network, "gin"):
        alone = GINEncoder(configurations.graphs.num_ops, configurations.graphs.num_stages, hidden=8)
        alone.load_state_dict(gin)
        total += alone.eval()(configurations.graphs).detach().numpy()
    return total


@pytest.mark.parametrize("kind", KINDS)
def test_an_embedding_is_the_sum_of_its_parts(kind):
    given, network = configurations(kind, 7), encoder(kind)
    with torch.no_grad():
        embeddings = network(given)
    assert embeddings.shape == (7, 8) and embeddings.dtype == torch.float32
    np.testing.assert_allclose(embeddings, by_hand(network, given), atol=1e-5)


@pytest.mark.parametrize(("kind", "parts"), [("hpo", {"mlp"}), ("nas", {"gin"}), ("joint", {"mlp", "gin"})])
def test_which_parts_there_are(kind, parts):
    network = encoder(kind)
    assert {name.split(".")[0] for name in network.state_dict()} == parts
    assert (network.mlp is not None, network.gin is not None) == ("mlp" in parts, "gin" in parts)
    if network.mlp is not None:
        assert network.mlp.in_dim == (WIDTH if kind == "hpo" else len(BESIDE))


def test_the_score_in_a_joint_space_is_the_sum_of_two_inner_products():
    given, network, meta_feature = configurations("joint", 7), encoder("joint"), torch.linspace(-1, 1, 8)
    with torch.no_grad():
        scores = score(network(given), meta_feature)
        apart = score(network.gin(given.graphs), meta_feature) + score(
            network.mlp(torch.from_numpy(given.vectors[:, list(BESIDE)])), meta_feature
        )
    torch.testing.assert_close(scores, apart)


def test_what_the_graphs_cover_is_read_from_them_alone():
    given, network = configurations("joint", 7), encoder("joint")
    vectors = given.vectors.copy()
    vectors[:, [column for column in range(given.width) if column not in BESIDE]] = 9
    with torch.no_grad():
        assert torch.equal(network(given), network(dataclasses.replace(given, vectors=vectors)))
        for column in BESIDE:
            vectors = given.vectors.copy()
            vectors[:, column] += 1
            assert not torch.allclose(network(given), network(dataclasses.replace(given, vectors=vectors)))


@pytest.mark.parametrize("kind", KINDS)
def test_configurations_are_encoded_each_for_itself(kind):
    given, network = configurations(kind, 7), encoder(kind)
    with torch.no_grad():
        torch.testing.assert_close(network(given)[[4, 1]], network(given[[4, 1]]))


@pytest.mark.parametrize("kind", KINDS)
def test_initial_weights_follow_from_the_seed_and_the_sizes_alone(kind):
    found = []
    for seed, elsewhere, example in ((1, 0, 0), (1, 9, 5), (2, 0, 0)):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(elsewhere)
            state = torch.random.get_rng_state()
            network = ConfigurationEncoder.initial(configurations(kind, 1 + example, example), seed)
            assert torch.equal(torch.random.get_rng_state(), state)
        assert not any(module.training for module in network.modules())
        assert network(configurations(kind, 3)).shape == (3, 64)
        found.append(bytes_of(network))
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_learns(kind):
    network = encoder(kind).train()
    network(configurations(kind, 7)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_in_training_alone(kind):
    given, network = configurations(kind, 7), encoder(kind)
    assert torch.equal(network(given), network(given))
    network.train()
    assert torch.equal(network(given), network(given)) == (kind == "hpo")


def another(**changes):
    """A joint configuration of another space."""
    return dataclasses.replace(configurations("joint", 1), **changes)


JOINT = configurations("joint", 1)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        *((one, configurations(other, 1)) for one in KINDS for other in KINDS if one != other),
        ("hpo", EncodedConfigurations(np.zeros((1, WIDTH + 1), dtype=np.float32))),
        ("joint", another(beside=(0, 12))),
        ("joint", another(beside=(0,))),
        ("joint", another(graphs=dataclasses.replace(JOINT.graphs, num_ops=OPERATIONS + 1))),
        ("joint", another(graphs=dataclasses.replace(JOINT.graphs, num_stages=3))),
        ("joint", another(graphs=dataclasses.replace(JOINT.graphs, stages=None, num_stages=0))),
    ],
)
def test_the_encoder_of_another_space_is_refused(kind, given):
    with pytest.raises(ValueError, match="was made for another search space"):
        encoder(kind)(given)
