from __future__ import annotations

import math

import pytest
import torch

from nni_hyperfd.method import MetaFeatureExtractor, WeightsError, gwap
from nni_hyperfd.method.meta_feature import PARTS

NAN = float("nan")


def images(count, dim=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, 3, 3, dim, generator=generator)
    features[torch.rand(count, 3, 3, generator=generator) < 0.3] = NAN
    return features


def test_gwap_by_hand():
    full = torch.tensor([[1.0, 2.0], [4.0, 2.0], [1.0, 5.0]])
    assert gwap(full).tolist() == [2.0, 3.0]
    assert gwap(torch.tensor([[1.0, 2.0], [NAN, NAN], [3.0, 6.0]])).tolist() == [2.0, 4.0]
    assert gwap(torch.tensor([[NAN, NAN], [7.0, -1.0], [NAN, NAN]])).tolist() == [7.0, -1.0]
    assert gwap(torch.full((3, 2), NAN)).tolist() == [0.0, 0.0]


def test_gwap_against_loops():
    features = images(6)
    features[0] = NAN
    pooled = gwap(features)
    assert pooled.shape == (6, 3, 5)
    for image in range(6):
        for stage in range(3):
            groups = [g for g in features[image, stage].tolist() if not math.isnan(g[0])]
            expected = [sum(column) / len(groups) for column in zip(*groups, strict=True)] if groups else [0.0] * 5
            assert pooled[image, stage].tolist() == pytest.approx(expected, abs=1e-6)


def test_gwap_does_not_hide_a_group_that_is_broken():
    assert gwap(torch.tensor([[1.0, NAN], [1.0, 1.0], [1.0, 1.0]])).isnan().tolist() == [False, True]


def test_gwap_has_a_finite_gradient_beside_empty_groups():
    features = torch.tensor([[1.0, 2.0], [NAN, NAN], [3.0, 4.0]], requires_grad=True)
    gwap(features).sum().backward()
    assert features.grad.tolist() == [[0.5, 0.5], [0.0, 0.0], [0.5, 0.5]]


def test_extractor_step_by_step():
    extractor = MetaFeatureExtractor.initial(5, seed=3)
    features = images(7)
    vectors = []
    for image in features:
        visual = torch.cat([gwap(stage) for stage in image])
        visual = (visual - visual.mean()) / (visual.var(unbiased=False) + 1e-5).sqrt()
        present = (~image[..., 0].isnan()).float().flatten()
        vectors.append(extractor.image.weight @ torch.cat([visual, present]) + extractor.image.bias)
    x = torch.stack(vectors)

    attention, points = extractor.attention, extractor.references
    weight, bias = attention.in_proj_weight.split(64), attention.in_proj_bias.split(64)
    q = x @ weight[0].T + bias[0]
    k, v = (points @ weight[part].T + bias[part] for part in (1, 2))
    heads = []
    for head in range(4):
        part = slice(16 * head, 16 * head + 16)
        weights = torch.softmax(q[:, part] @ k[:, part].T / 4, dim=-1)
        heads.append(weights @ v[:, part])
    x = extractor.attention_norm(x + attention.out_proj(torch.cat(heads, dim=-1)))
    first, _, second = extractor.feed_forward
    x = extractor.output_norm(x + second(torch.relu(first(x))))
    assert first.out_features == 128 and points.shape == (16, 64)
    torch.testing.assert_close(extractor.image_vectors(features), x, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(extractor(features), x.mean(dim=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("without", [(), ("attention",), ("gwap", "labels")])
def test_an_image_is_described_alone(without):
    extractor = MetaFeatureExtractor.initial(5, seed=0, without=without)
    features = images(6)
    with torch.no_grad():
        together = extractor.image_vectors(features)
        for place in range(6):
            changed = torch.where(torch.arange(6).view(-1, 1, 1, 1) == place, features, 1e3 * images(6, seed=1))
            torch.testing.assert_close(extractor.image_vectors(changed)[place], together[place], rtol=1e-5, atol=1e-6)


def test_extractor_ignores_the_order_of_images_but_not_their_content():
    extractor = MetaFeatureExtractor.initial(5, seed=0)
    features = images(20)
    meta_feature = extractor(features)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(extractor(features[order]), meta_feature, rtol=1e-5, atol=1e-6)
    assert (extractor(images(20, seed=1)) - meta_feature).norm() > 1e-2


def test_extractor_is_nearly_the_same_in_evaluation_mode():
    # torch takes another code path there; dropout is 0, so only rounding may differ.
    extractor = MetaFeatureExtractor.initial(5, seed=0)
    with torch.no_grad():
        trained = extractor(images(9))
        torch.testing.assert_close(extractor.eval()(images(9)), trained, rtol=1e-4, atol=1e-5)


def test_extractor_with_leading_dimensions_equals_one_at_a_time():
    extractor = MetaFeatureExtractor.initial(5, seed=0)
    features = images(2 * 3 * 4).reshape(2, 3, 4, 3, 3, 5)
    together = extractor(features)
    assert together.shape == (2, 3, 64) and extractor.image_vectors(features).shape == (2, 3, 4, 64)
    for i in range(2):
        for j in range(3):
            single = extractor(features[i, j])
            assert single.shape == (64,)
            torch.testing.assert_close(together[i, j], single, rtol=1e-4, atol=1e-5)


def test_extractor_of_one_image_and_of_an_image_without_any_anchor_is_finite():
    extractor = MetaFeatureExtractor.initial(5, seed=0)
    assert extractor(images(1)).isfinite().all()
    meta_feature = extractor(torch.full((1, 3, 3, 5), NAN))
    assert meta_feature.isfinite().all()
    meta_feature.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in extractor.parameters())


@pytest.mark.parametrize("shape", [(3, 3, 5), (0, 3, 3, 5), (4, 3, 2, 5), (4, 3, 3, 6)])
def test_extractor_names_wrong_features(shape):
    with pytest.raises(ValueError, match="expects image features of shape"):
        MetaFeatureExtractor.initial(5, seed=0)(torch.zeros(shape))


def test_initial_weights_follow_from_the_seed_alone():
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    first = MetaFeatureExtractor.initial(5, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(6)
    again, other = MetaFeatureExtractor.initial(5, seed=1), MetaFeatureExtractor.initial(5, seed=2)
    assert first.feature_dim == 5
    for name, weights in first.state_dict().items():
        assert torch.equal(weights, again.state_dict()[name])
    assert not torch.equal(first.image.weight, other.image.weight)


@pytest.mark.parametrize("dim, hidden", [(5, 64), (12, 8), (1, 4)])
def test_from_weights_reads_the_width_off_the_weights(dim, hidden):
    original = MetaFeatureExtractor.initial(dim, seed=4, hidden=hidden)
    extractor = MetaFeatureExtractor.from_weights(original.state_dict())
    assert extractor.feature_dim == dim
    assert torch.equal(extractor(images(3, dim)), original(images(3, dim)))
    assert all(parameter.requires_grad and not parameter.is_meta for parameter in extractor.parameters())


def test_from_weights_leaves_the_given_mapping_alone():
    given = MetaFeatureExtractor.initial(5, seed=4).state_dict()
    names = list(given)
    MetaFeatureExtractor.from_weights(given)
    assert list(given) == names


@pytest.mark.parametrize(
    "change",
    [
        {"image.bias": torch.zeros(0)},
        {"image.bias": torch.zeros(())},
        {"image.bias": torch.zeros(1, 64)},
        {"image.bias": torch.zeros(63)},
        {"image.bias": torch.zeros(128)},
        {"visual_norm.weight": torch.zeros(0)},
        {"visual_norm.weight": torch.zeros(16)},
        {"visual_norm.weight": torch.zeros(18)},
        {"image.weight": torch.zeros(64, 5)},
        {"extra": torch.zeros(1)},
        {"image.bias": None},
        {"references": torch.zeros(17, 64)},
        {"feed_forward.0.weight": None},
    ],
    ids=lambda change: " ".join(f"{name} {getattr(t, 'shape', None)}" for name, t in change.items()),
)
def test_from_weights_refuses_what_is_no_extractor(change):
    given = MetaFeatureExtractor.initial(5, seed=4).state_dict() | change
    with pytest.raises(WeightsError):
        MetaFeatureExtractor.from_weights({name: t for name, t in given.items() if t is not None})
    with pytest.raises(WeightsError, match="not the weights of a meta-feature extractor"):
        MetaFeatureExtractor.from_weights({})


def test_a_claimed_width_takes_no_memory():
    # 4 MB of bias claim an attention matrix of 3 * 10^6 x 10^6 numbers: 12 TB if it were made before the check.
    given = MetaFeatureExtractor.initial(5, seed=4).state_dict() | {"image.bias": torch.zeros(1_000_000)}
    with pytest.raises(WeightsError, match="expected"):
        MetaFeatureExtractor.from_weights(given)
    given = MetaFeatureExtractor.initial(5, seed=4).state_dict() | {"visual_norm.weight": torch.zeros(3_000_000)}
    with pytest.raises(WeightsError, match="expected"):
        MetaFeatureExtractor.from_weights(given)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_left_out_is_neither_looked_at_nor_missed_by_the_rest(part):
    features = torch.randn(4, 3, 3, 9, generator=torch.Generator().manual_seed(1))
    whole = MetaFeatureExtractor.initial(9, seed=0)
    ablated = MetaFeatureExtractor.initial(9, seed=0, without=[part])
    changed = features.clone()
    if part == "labels":
        changed[..., -4:] += 1
    elif part == "gwap":
        changed[..., [0, 2], :] += torch.arange(9.0)
    elif part == "pyramid":
        changed[:, :-1] += torch.arange(9.0)
    elif part == "statistics":
        features[..., 2, :] = changed[..., 2, :] = NAN
        changed[1, :, 2] = (changed[1, :, 0] + changed[1, :, 1]) / 2  # the mean over the groups stays
    with torch.no_grad():
        if part == "attention":
            changed = MetaFeatureExtractor.initial(9, seed=0, without=[part])
            with torch.no_grad():
                changed.references += 1
                whole.references += torch.randn(64, generator=torch.Generator().manual_seed(2))
            assert torch.equal(ablated(features), changed(features))
            assert not torch.allclose(whole(features), MetaFeatureExtractor.initial(9, seed=0)(features), atol=1e-4)
        else:
            assert torch.allclose(ablated(features), ablated(changed), atol=1e-6)
            assert not torch.allclose(whole(features), whole(changed), atol=1e-4)
        kept = features.clone()
        kept[:, -1, 1, :2] += torch.tensor([3.0, -3.0])  # what every ablation still looks at
        assert not torch.allclose(ablated(features), ablated(kept), atol=1e-4)


def test_an_empty_group_stays_empty_without_the_labels():
    features = torch.randn(2, 3, 3, 9, generator=torch.Generator().manual_seed(1))
    features[0, 1, 2] = NAN
    unlabelled = features.clone()
    unlabelled[..., -4:] = torch.where(features[..., -4:].isnan(), NAN, 0.0)
    with torch.no_grad():
        ablated = MetaFeatureExtractor.initial(9, seed=0, without=["labels"])(features)
        assert torch.equal(ablated, MetaFeatureExtractor.initial(9, seed=0)(unlabelled))
    assert ablated.isfinite().all()


def test_unknown_parts_are_refused():
    with pytest.raises(ValueError, match="no part 'heads'"):
        MetaFeatureExtractor(9, without=["heads"])
