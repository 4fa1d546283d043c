from __future__ import annotations

import pytest
import torch

from nni_hyperfd.method import PathIntegral, importance, si_penalty


def test_sum_of_omega_is_the_drop_of_a_quadratic_loss():
    matrix = torch.tensor([[2.0, 0.3], [0.3, 0.5]], dtype=torch.float64)
    parameters = {"x": torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)}

    def loss():
        return 0.5 * parameters["x"] @ matrix @ parameters["x"]

    path = PathIntegral(parameters)
    optimizer = torch.optim.SGD(parameters.values(), lr=1e-3)
    start = loss().item()
    for _ in range(500):
        optimizer.zero_grad()
        loss().backward()
        with path.step({"x": parameters["x"].grad}):
            optimizer.step()
    drop = start - loss().item()
    assert drop > 0.5
    assert path.omega["x"].sum().item() == pytest.approx(drop, rel=5e-3)


def test_path_integral_by_hand_takes_the_given_gradient_and_the_real_change():
    parameter = torch.tensor([1.0, 1.0], requires_grad=True)
    path = PathIntegral({"x": parameter})
    gradient = torch.tensor([2.0, -4.0])
    with path.step({"x": gradient}), torch.no_grad():
        gradient += 100  # what a penalty added in place would do
        parameter -= torch.tensor([0.5, 0.25])
    with path.step({"x": torch.tensor([1.0, 1.0])}), torch.no_grad():
        parameter += 3
    # -2 * -0.5 - 1 * 3; 4 * -0.25 - 1 * 3
    assert path.omega["x"].tolist() == [-2.0, -4.0]
    assert not path.omega["x"].requires_grad


def test_importance_by_hand():
    result = importance(
        previous={"x": torch.tensor([1.0, 0.0, 0.5, 2.0])},
        omega={"x": torch.tensor([0.5, 0.2, -1.0, -0.1])},
        before={"x": torch.zeros(4)},
        after={"x": torch.tensor([0.0, 0.3, 0.0, 0.0], requires_grad=True)},
        damping=0.1,
    )["x"]
    assert result.tolist() == pytest.approx([1 + 0.5 / 0.1, 0.2 / (0.09 + 0.1), 0.0, 2 - 0.1 / 0.1])
    assert not result.requires_grad


def test_penalty_by_hand_and_its_gradient():
    parameters = {
        "x": torch.tensor([1.0, 2.0], requires_grad=True),
        "y": torch.tensor([[3.0]], requires_grad=True),
    }
    weights = {"x": torch.tensor([2.0, 0.0]), "y": torch.tensor([[0.5]])}
    anchor = {"x": torch.tensor([0.0, 7.0]), "y": torch.tensor([[5.0]])}
    penalty = si_penalty(parameters, weights, anchor)
    penalty.backward()
    assert penalty.item() == pytest.approx(2 * 1 + 0 + 0.5 * 4)
    assert parameters["x"].grad.tolist() == [4.0, 0.0]
    assert parameters["y"].grad.tolist() == [[-2.0]]
