from __future__ import annotations

import pytest
import torch

from nni_hyperfd.method import WeightsError, weights
from nni_hyperfd.method.features import pack, unpack

NAN = float("nan")
COUNTS = torch.tensor([120.0, 431.0])


def images(count=4, dim=5):
    features = torch.randn(count, 3, 3, dim, generator=torch.Generator().manual_seed(0))
    features[0, 1, 0] = NAN
    features[2] = NAN
    features[3, 0, 0] = 0.0  # zeros are a feature like any other, not an empty group
    return features


def test_the_way_through_bytes_keeps_numbers_empty_groups_and_counts():
    features, counts = unpack(weights.loads(weights.dumps(pack(images(), COUNTS))))
    torch.testing.assert_close(features, images(), rtol=0, atol=0, equal_nan=True)
    assert counts.tolist() == [120.0, 431.0]
    assert features[3, 0, 0].tolist() == [0.0] * 5 and features[0, 1, 0].isnan().all()


def test_packing_leaves_the_features_alone_and_takes_integer_counts():
    features = images()
    packed = pack(features, torch.tensor([3, 4]))
    assert features[2].isnan().all()
    assert all(t.dtype == torch.float32 and t.isfinite().all() for t in packed.values())


def test_no_images_go_through_too():
    features, _ = unpack(weights.loads(weights.dumps(pack(torch.zeros(0, 3, 3, 5), COUNTS))))
    assert features.shape == (0, 3, 3, 5)


@pytest.mark.parametrize("value", [NAN, torch.inf])
def test_numbers_that_are_broken_and_not_empty_are_refused_on_the_way(value):
    features = images()
    features[1, 1, 1, 2] = value
    with pytest.raises(WeightsError, match="'features' contains NaN or infinity"):
        weights.dumps(pack(features, COUNTS))


@pytest.mark.parametrize("missing", ["features", "present", "counts"])
def test_a_missing_part_is_named(missing):
    packed = pack(images(), COUNTS)
    del packed[missing]
    with pytest.raises(WeightsError, match=f"lack {missing}"):
        unpack(packed)


@pytest.mark.parametrize(
    "change",
    [
        {"features": torch.zeros(4, 3, 3)},
        {"features": torch.zeros(4, 3, 2, 5)},
        {"features": torch.zeros(3, 3, 3, 5)},
        {"present": torch.ones(4, 3)},
        {"present": torch.ones(4, 3, 3, 5)},
        {"counts": torch.ones(3)},
        {"counts": torch.ones(())},
    ],
    ids=lambda change: " ".join(f"{name} {tuple(t.shape)}" for name, t in change.items()),
)
def test_wrong_shapes_are_refused(change):
    with pytest.raises(WeightsError, match="must have (the )?shape"):
        unpack(pack(images(), COUNTS) | change)
