from __future__ import annotations

import numpy as np
import pytest
import torch

from nni_hyperfd.method import fit_transform


def tables(m, k, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(m, k, generator=generator), torch.randn(m, k, generator=generator)


@pytest.mark.parametrize("ridge", [1e-2, 1.0, 50.0])
@pytest.mark.parametrize("m", [1, 3, 8, 40])
def test_closed_form_against_the_normal_equations(m, ridge):
    source, target = tables(m, 8)
    s, t = source.double().numpy(), target.double().numpy()
    expected = np.linalg.solve(s.T @ s + ridge * np.eye(8), s.T @ t + ridge * np.eye(8)).T
    weights = fit_transform(source, target, ridge)
    assert weights.shape == (8, 8) and weights.dtype == torch.float32
    np.testing.assert_allclose(weights.numpy(), expected, atol=1e-5)


def test_without_ridge_it_is_least_squares():
    source, target = tables(40, 8)
    expected = np.linalg.lstsq(source.double().numpy(), target.double().numpy(), rcond=None)[0].T
    np.testing.assert_allclose(fit_transform(source, target, ridge=0.0).numpy(), expected, atol=1e-5)


def test_a_linear_map_is_found():
    source, _ = tables(30, 8)
    true = torch.randn(8, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(fit_transform(source, source @ true.T, ridge=1e-6), true, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("ridge", [0.0, 1e-2])
def test_no_data_set_gives_the_identity(ridge):
    assert torch.equal(fit_transform(torch.zeros(0, 8), torch.zeros(0, 8), ridge), torch.eye(8))


@pytest.mark.parametrize("ridge", [0.0, 1e-2])
def test_directions_nobody_has_seen_stay_as_they_are(ridge):
    source = torch.zeros(5, 4)
    source[:, 0] = torch.arange(1.0, 6.0)
    target = source.clone()
    target[:, 1] = 2 * source[:, 0]
    weights = fit_transform(source, target, ridge)
    torch.testing.assert_close(weights[:, 1:], torch.eye(4)[:, 1:])
    torch.testing.assert_close(weights[:, 0], torch.tensor([1.0, 2.0, 0.0, 0.0]), rtol=1e-3, atol=1e-6)


def test_equal_tables_give_the_identity_and_a_strong_ridge_nearly_so():
    source, target = tables(20, 8)
    torch.testing.assert_close(fit_transform(source, source), torch.eye(8))
    torch.testing.assert_close(fit_transform(source, target, ridge=1e9), torch.eye(8), rtol=0, atol=1e-5)


def test_what_cannot_be_fitted_is_named():
    source, target = tables(4, 8)
    with pytest.raises(ValueError, match="equally shaped"):
        fit_transform(source, target[:3])
    with pytest.raises(ValueError, match="not finite"):
        fit_transform(source, target / 0)
    with pytest.raises(ValueError, match="ridge"):
        fit_transform(source, target, ridge=-1.0)
