from __future__ import annotations

import json
import math
from enum import Enum

import pytest

from nni_hyperfd.task import SEEDS, Phase, Preset, Replay, SettingsError, Status, TaskSettings

WRONG = [
    ("budget", 0, "no whole number from 1 up"),
    ("budget", -1, "no whole number from 1 up"),
    ("budget", 2.0, "no whole number from 1 up"),
    ("budget", "4", "no whole number from 1 up"),
    ("budget", True, "no whole number from 1 up"),
    ("budget", None, "no whole number from 1 up"),
    ("candidates", 0, "no whole number from 1 up"),
    ("candidates", True, "no whole number from 1 up"),
    ("candidates", 3, "are fewer than the budget of 4"),
    ("exploration", 1.1, "not within 0 and 1"),
    ("exploration", -0.1, "not within 0 and 1"),
    ("exploration", math.nan, "not within 0 and 1"),
    ("exploration", 10**400, "not within 0 and 1"),
    ("exploration", True, "not within 0 and 1"),
    ("exploration", "half", "not within 0 and 1"),
    ("exploration", None, "not within 0 and 1"),
    ("seed", -1, "no whole number from 0 to 4294967295"),
    ("seed", 2**32, "no whole number from 0 to 4294967295"),
    ("seed", 1.0, "no whole number from 0 to 4294967295"),
    ("seed", True, "no whole number from 0 to 4294967295"),
    ("seed", None, "no whole number from 0 to 4294967295"),
    ("maximize", 1, "neither true nor false"),
    ("maximize", "yes", "neither true nor false"),
    ("service", None, "neither true nor false"),
    ("preset", "best", "none of default, paper"),
    ("preset", None, "none of default, paper"),
    ("preset", ["default"], "none of default, paper"),
    ("replay", True, "none of none, meta-features"),
    ("replay", {}, "none of none, meta-features"),
]


@pytest.mark.parametrize(("name", "value", "reason"), WRONG, ids=lambda value: repr(value)[:20])
def test_settings_check_themselves_wherever_they_come_from(name, value, reason):
    for make in (lambda: TaskSettings(**{name: value}), lambda: TaskSettings.from_json({name: value})):
        with pytest.raises(SettingsError, match=f"^{name}: .*{reason}"):
            make()


def test_an_unknown_setting_is_named():
    with pytest.raises(SettingsError, match="^speed: there is no such setting"):
        TaskSettings.from_json({"budget": 2, "speed": 1})


@pytest.mark.parametrize(
    "settings",
    [
        TaskSettings(),
        TaskSettings(1, 1, 0, 0, False, False, Preset.PAPER, Replay.META_FEATURES),
        TaskSettings(budget=10**6, candidates=10**6, exploration=1, seed=SEEDS.stop - 1),
    ],
    ids=["defaults", "least", "most"],
)
def test_settings_come_back_from_json_as_they_were(settings):
    document = json.loads(json.dumps(settings.to_json()))
    assert TaskSettings.from_json(document) == settings
    assert not any(isinstance(value, Enum) for value in settings.to_json().values())


def test_what_is_missing_has_its_default_and_words_become_what_they_mean():
    assert TaskSettings.from_json({}) == TaskSettings()
    settings = TaskSettings.from_json({"exploration": 1, "preset": "paper", "replay": "meta-features"})
    assert isinstance(settings.exploration, float) and settings.exploration == 1.0
    assert settings.preset is Preset.PAPER and settings.replay is Replay.META_FEATURES
    assert TaskSettings(preset="paper") == TaskSettings(preset=Preset.PAPER)  # type: ignore[arg-type]


def test_the_sign_turns_every_performance_into_more_is_better():
    assert (TaskSettings().sign, TaskSettings(maximize=False).sign) == (1.0, -1.0)


@pytest.mark.parametrize("word", [*Phase, *Status, *Preset, *Replay])
def test_a_word_is_the_text_that_is_stored_sent_and_shown(word):
    assert str(word) == f"{word}" == word.value == word
    assert json.loads(json.dumps({"word": word})) == {"word": word.value}
    assert type(word)(word.value) is word
