"""The door: who gets what, and what it costs."""

from __future__ import annotations

import numpy as np
import pytest

from nni_hyperfd import wire
from nni_hyperfd.privacy import projection as projections
from nni_hyperfd.privacy import release
from nni_hyperfd.privacy.mechanism import noise_multiplier
from nni_hyperfd.privacy.release import DataSet, Description, Door, Extractor, Withheld
from nni_hyperfd.privacy.settings import PrivacyError, PrivacySettings, Unit

RNG = np.random.default_rng(0)
VECTORS = RNG.normal(size=(300, 64)) + 1
EXTRACTOR = Extractor("a" * 64)
WIDTH = 84


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Settings whose projection belongs to `EXTRACTOR`."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "user"))
    projections.save(projections.fit([VECTORS], "a" * 64, 84), tmp_path / "p.json")
    return PrivacySettings(projection=tmp_path / "p.json")


@pytest.fixture
def data(tmp_path):
    return DataSet(tmp_path / "data", "fingerprint")


def changed(settings, **values):
    return PrivacySettings(**{**vars(settings), **values})


def describe(data, settings, vectors=VECTORS, extractor=EXTRACTOR, units=None):
    return Door(data, extractor, settings).describe(
        lambda: vectors, range(len(vectors)) if units is None else units, WIDTH
    )


def untouched():
    raise AssertionError("the vectors were made although nothing may leave")


def test_a_description_is_the_noised_mean(data, settings):
    projection = projections.load(settings.projection)
    exact = projection.described(VECTORS)
    unit = []
    for number in range(60):
        described = describe(DataSet(data.folder, str(number)), changed(settings, total=100))
        assert isinstance(described, Description) and (described.size, described.extractor) == (300, "a" * 64)
        unit.append((np.array(described.meta_feature) - exact) @ projection.directions.T)
    scale = noise_multiplier(3, 1e-5) * 2 * projection.radius / 300
    assert np.std(unit) == pytest.approx(scale, rel=0.15) and abs(np.mean(unit)) < 4 * scale / np.sqrt(480)


def test_an_unchanged_data_set_is_described_once(data, settings):
    first = describe(data, settings)
    assert describe(data, settings) == first == Door(data, EXTRACTOR, settings).again()
    grown = Door(DataSet(data.folder, "grown"), EXTRACTOR, settings)
    assert grown.again() is None and grown.describe(lambda: VECTORS, range(300), WIDTH) != first
    assert len(grown.ledger.entries()) == 2, "the ledger is the folder's, not the fingerprint's"


def test_a_new_version_of_the_extractor_is_served_by_the_old_description(data, settings):
    first = describe(data, settings)
    newer = Extractor("b" * 64, versions=["a" * 64])
    assert Door(data, newer, settings).again() == first
    stranger = Extractor("b" * 64)
    assert Door(data, stranger, settings).again() is None
    assert Door(data, stranger, settings).describe(untouched, range(300), WIDTH) is Withheld.UNKNOWN
    other = DataSet(data.folder, "other")
    described = Door(other, newer, settings).describe(lambda: VECTORS, range(300), WIDTH)
    assert isinstance(described, Description) and described.extractor == "b" * 64


@pytest.mark.parametrize(
    ("extractor", "width", "count", "values", "reason"),
    [
        (EXTRACTOR, 84, 99, {}, Withheld.FEW),
        (EXTRACTOR, 84, 1, {"minimum": 2}, Withheld.FEW),
        (EXTRACTOR, 84, 300, {"delta": 1 / 300}, Withheld.FEW),
        (Extractor(None), 84, 300, {}, Withheld.UNKNOWN),
        (EXTRACTOR, 68, 300, {}, Withheld.UNKNOWN),
        (Extractor("c" * 64), 84, 300, {}, Withheld.UNKNOWN),
    ],
)
def test_what_may_not_leave_is_not_even_made(data, settings, extractor, width, count, values, reason):
    door = Door(data, extractor, changed(settings, **values))
    assert door.describe(untouched, range(count), width) is reason
    assert door.ledger.entries() == [] and reason.explained(settings)


def test_the_same_image_many_times_is_one_image(data, settings):
    images = np.repeat(np.arange(90.0).reshape(-1, 1), 5, axis=0)
    units = release.units_of(images, None, Unit.IMAGE)
    assert len(set(units)) == 90
    assert Door(data, EXTRACTOR, settings).describe(untouched, units, WIDTH) is Withheld.FEW


def test_a_group_is_one_unit_and_all_images_without_one_are_another(data, settings):
    images = np.zeros((300, 1))
    grouped = changed(settings, unit=Unit.GROUP, minimum=3)
    units = release.units_of(images, [*range(4)] * 50 + [None] * 100, Unit.GROUP)
    assert len(set(units)) == 5
    described = Door(data, EXTRACTOR, grouped).describe(lambda: VECTORS, units, WIDTH)
    assert isinstance(described, Description) and described.size == 5
    everybody = release.units_of(images, ["all"] * 300, Unit.GROUP)
    assert Door(data, EXTRACTOR, grouped).describe(untouched, everybody, WIDTH) is Withheld.FEW
    with pytest.raises(PrivacyError, match="unit=group needs the group of every image"):
        release.units_of(images, None, Unit.GROUP)


def test_a_spent_total_withholds_new_descriptions_and_keeps_old_ones(data, settings):
    tight = changed(settings, total=3)
    first = describe(data, tight)
    assert describe(DataSet(data.folder, "grown"), tight) is Withheld.SPENT
    assert describe(data, tight) == first


def test_a_total_that_is_lowered_below_what_was_spent_ends_descriptions(data, settings):
    for fingerprint in ("a", "b"):
        describe(DataSet(data.folder, fingerprint), settings)
    lowered = changed(settings, total=3)
    assert describe(DataSet(data.folder, "c"), lowered) is Withheld.SPENT
    assert isinstance(describe(DataSet(data.folder, "b"), lowered), Description), "what has left may leave again"
    weaker = changed(settings, epsilon=0.1, total=3)
    assert describe(DataSet(data.folder, "b"), weaker) is Withheld.SPENT, "other terms are another description"


def test_the_ledger_lies_with_the_data_or_where_the_owner_says(data, settings, tmp_path):
    describe(data, settings)
    assert (data.folder / ".hyperfd" / "ledger.json").is_file()
    elsewhere = changed(settings, ledger=tmp_path / "ledgers", name="faces")
    describe(DataSet(None, "x"), elsewhere)
    describe(DataSet(tmp_path / "copy", "y"), elsewhere)
    (file,) = (tmp_path / "ledgers").glob("*/ledger.json")
    assert len(Door(DataSet(None, "x"), EXTRACTOR, elsewhere).ledger.entries()) == 2, "one name, one budget"
    assert len(list((tmp_path / "user" / "nni_hyperfd" / "ledgers").iterdir())) == 2 and file.is_file()
    with pytest.raises(PrivacyError, match=r"in which folder it lies.*set ledger=FOLDER,name=NAME"):
        describe(DataSet(None, "x"), settings)


def test_deleting_the_ledger_beside_the_data_takes_nothing_back(data, settings):
    describe(data, changed(settings, total=3))
    (data.folder / ".hyperfd" / "ledger.json").unlink()
    assert describe(DataSet(data.folder, "grown"), changed(settings, total=3)) is Withheld.SPENT


def test_a_crafted_extractor_changes_nothing_about_the_bound(data, settings):
    """A network that answers for one image alone shows it no better than the noise lets it."""
    chosen = np.zeros((300, 64))
    chosen[7] = 1e30
    projection = projections.load(settings.projection)
    with_, without = projection.bounded(chosen), projection.bounded(np.zeros((300, 64)))
    assert np.linalg.norm((with_ - without).mean(axis=0)) <= 2 * projection.radius / 300
    described = describe(data, settings, vectors=np.where(chosen > 0, np.nan, chosen))
    assert isinstance(described, Description) and np.isfinite(described.meta_feature).all()


def test_the_platform_knows_every_reason():
    assert {reason.value for reason in Withheld} == set(wire.WITHHELD)
