from __future__ import annotations

import pytest
import torch

from nni_hyperfd.method import MLPEncoder


def test_encoder_by_hand():
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


def test_shapes_and_the_wrong_space():
    encoder = MLPEncoder.initial(7, seed=0)
    assert encoder(torch.zeros(3, 7)).shape == (3, 64)
    assert encoder(torch.zeros(0, 7)).shape == (0, 64)
    with pytest.raises(ValueError, match="expects inputs of 7 numbers, got 6"):
        encoder(torch.zeros(3, 6))


def test_initial_weights_follow_from_the_seed_alone():
    state = torch.random.get_rng_state()
    first, again, other = (MLPEncoder.initial(7, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    inputs = torch.ones(1, 7)
    assert torch.equal(first(inputs), again(inputs))
    assert not torch.equal(first(inputs), other(inputs))
