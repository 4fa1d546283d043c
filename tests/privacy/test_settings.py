from __future__ import annotations

from pathlib import Path

import pytest

from nni_hyperfd.privacy import settings
from nni_hyperfd.privacy.settings import PrivacyError, PrivacySettings, Unit


@pytest.fixture(autouse=True)
def user(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv(settings.VARIABLE, raising=False)


def test_without_a_word_there_is_noise():
    assert settings.of_owner() == PrivacySettings()
    given = PrivacySettings()
    assert (given.off, given.learn, given.share) == (False, False, False)
    assert (given.epsilon, given.delta, given.total, given.minimum, given.unit) == (3, 1e-5, 8, 100, Unit.IMAGE)


def test_the_environment_decides_before_the_users_file(monkeypatch, tmp_path):
    settings.user_file().parent.mkdir(parents=True)
    settings.user_file().write_text("epsilon = 1  # for us\n\n# half of it\ntotal=2, unit=group\n")
    assert settings.of_owner() == PrivacySettings(epsilon=1, total=2, unit=Unit.GROUP)
    monkeypatch.setenv(settings.VARIABLE, "epsilon=3,delta=1e-6,total=8,minimum=200,share=allow,name=faces")
    assert settings.of_owner() == PrivacySettings(delta=1e-6, minimum=200, share=True, name="faces")
    monkeypatch.setenv(settings.VARIABLE, " off , learn=allow, among=1, ledger=/l, projection=/p.json")
    open_ = PrivacySettings(off=True, learn=True, among=1, ledger=Path("/l"), projection=Path("/p.json"))
    assert settings.of_owner() == open_


def test_aps_are_rounded_unless_the_owner_says_otherwise():
    rounds = {text: settings.read(text, "it").rounds_ap for text in ("epsilon=3", "ap=rounded", "ap=exact", "off")}
    assert rounds == {"epsilon=3": True, "ap=rounded": True, "ap=exact": False, "off": False}


def test_the_environment_may_name_a_file(monkeypatch, tmp_path):
    file = tmp_path / "mine"
    monkeypatch.setenv(settings.VARIABLE, str(file))
    with pytest.raises(PrivacyError, match="mine: No such file"):
        settings.of_owner()
    file.write_text("off")
    assert settings.of_owner().off


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "holds no setting; say off"),
        ("# off", "holds no setting"),
        ("on", "there is no setting 'on'; the settings are off, epsilon"),
        ("epsilon", "epsilon=: this is no value"),
        ("=3", "there is no setting ''"),
        ("epsilon=3=4", "epsilon=3=4: this is no value"),
        ("epsilon=big", "epsilon=big: this is no value"),
        ("epsilon=0", "epsilon must be above 0, not 0"),
        ("epsilon=-1", "epsilon must be above 0"),
        ("epsilon=nan", "epsilon must be above 0"),
        ("epsilon=inf,total=inf", "epsilon must be above 0, not inf"),
        ("delta=0", "delta must be between 0 and 1"),
        ("delta=1", "delta must be between 0 and 1"),
        ("epsilon=3,total=2", r"total must be at least epsilon \(3\), not 2"),
        ("total=nan", "total must be at least"),
        ("minimum=1", "minimum must be 2 or more"),
        ("minimum=30.5", "minimum=30.5: this is no value"),
        ("unit=face", "unit=face: this is no value"),
        ("ap=private", "ap=private: this is no value"),
        ("off,ap=rounded", "off and ap contradict"),
        ("among=0,off", "among must be 1 or more"),
        ("learn=yes", "learn=yes: this is no value"),
        ("learn=allow", "learn=allow discloses the mean of the data set"),
        ("epsilon=3,epsilon=3", "epsilon is given twice"),
        ("off,epsilon=3", "off and epsilon contradict each other"),
        ("off,minimum=100", "off and minimum contradict"),
        ("off=no", "off=no: this is no value"),
        ("ledger=here", "ledger must be an absolute path, not here"),
    ],
)
def test_what_is_wrong_or_contradicts_itself_is_refused(text, reason):
    with pytest.raises(PrivacyError, match=reason):
        settings.read(text, "HYPERFD_PRIVACY")
