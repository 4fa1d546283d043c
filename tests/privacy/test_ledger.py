"""What was released is counted: after kills, with two at once, and whichever copy is lost."""

from __future__ import annotations

import json
import random
import shutil
import stat
import subprocess
import sys
import time
from datetime import datetime

import pytest

from nni_hyperfd.privacy.ledger import FILE, BudgetError, Ledger, new_entry
from nni_hyperfd.privacy.mechanism import noise_multiplier
from nni_hyperfd.privacy.settings import PrivacyError

TOTAL = (8.0, 1e-5)
MULTIPLIER = noise_multiplier(3, 1e-5)


def entry(fingerprint="f", extractor="e", terms="t", multiplier=MULTIPLIER, released=(0.25, -3.0)):
    return new_entry(fingerprint, extractor, terms, 100, multiplier, released)


@pytest.fixture
def ledger(tmp_path):
    return Ledger([tmp_path / "data" / ".hyperfd", tmp_path / "user"])


def test_an_unchanged_data_set_gets_the_same_numbers_free_of_charge(ledger):
    first = ledger.release(entry(), {"e"}, TOTAL)
    again = ledger.release(entry(released=(9.0, 9.0)), {"e", "newer"}, TOTAL)
    assert again == first == ledger.again("f", {"e"}, "t") and ledger.entries() == [first]
    assert ledger.accountant().epsilon(1e-5) == pytest.approx(3)


@pytest.mark.parametrize("change", [{"fingerprint": "grown"}, {"extractor": "other"}, {"terms": "more"}])
def test_another_data_set_extractor_or_wish_costs_again(ledger, change):
    ledger.release(entry(), {"e"}, TOTAL)
    new = entry(**change)
    assert ledger.again(new.fingerprint, {new.extractor}, new.terms) is None
    assert ledger.release(new, {new.extractor}, TOTAL) == new
    assert ledger.accountant().rho == pytest.approx(1 / MULTIPLIER**2)
    assert 3 < ledger.accountant().epsilon(1e-5) < 6


def test_the_total_is_never_passed(ledger):
    released = []
    with pytest.raises(BudgetError, match=r"would pass the total of epsilon=8; 'hyperfd privacy ledger'"):
        for number in range(100):
            released.append(ledger.release(entry(str(number)), {"e"}, TOTAL))
    assert ledger.entries() == released and len(released) == 5
    assert ledger.accountant().epsilon(1e-5) <= 8
    assert ledger.release(entry("0"), {"e"}, TOTAL) == released[0], "what has left may leave again"
    smaller = entry("small", multiplier=noise_multiplier(0.1, 1e-5))
    assert ledger.release(smaller, {"e"}, TOTAL) == smaller


def test_one_release_may_take_the_whole_total(ledger):
    ledger.release(entry(multiplier=noise_multiplier(8, 1e-5)), {"e"}, TOTAL)


@pytest.mark.parametrize("lost", [0, 1])
def test_a_copy_that_is_lost_or_old_takes_nothing_back(ledger, tmp_path, lost):
    first = ledger.release(entry("1"), {"e"}, TOTAL)
    shutil.copytree(ledger.folders[lost], tmp_path / "backup")
    second = ledger.release(entry("2"), {"e"}, TOTAL)
    shutil.rmtree(ledger.folders[lost])
    assert sorted(e.id for e in ledger.entries()) == sorted([first.id, second.id])
    shutil.copytree(tmp_path / "backup", ledger.folders[lost])
    third = ledger.release(entry("3"), {"e"}, TOTAL)
    assert {e.id for e in ledger.entries()} == {first.id, second.id, third.id}
    assert all({e.id for e in Ledger([f]).entries()} == {first.id, second.id, third.id} for f in ledger.folders)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-20],
        lambda text: "",
        lambda text: text.replace('"multiplier": ', '"multiplier": 1'),
        lambda text: text.replace('"format": 1', '"format": 2'),
        lambda text: "[]",
        lambda text: json.dumps({"format": 1, "entries": []}),
    ],
)
def test_a_damaged_ledger_releases_nothing(ledger, damage):
    ledger.release(entry(), {"e"}, TOTAL)
    file = ledger.folders[0] / FILE
    file.write_text(damage(file.read_text()))
    before = file.read_text()
    for use in (ledger.entries, lambda: ledger.again("f", {"e"}, "t"), lambda: ledger.release(entry(), {"e"}, TOTAL)):
        with pytest.raises(PrivacyError, match="ledger is damaged .*; restore it from a backup"):
            use()
    assert file.read_text() == before
    file.unlink()
    assert len(ledger.entries()) == 1, "its copy is whole"


def test_nobody_else_can_read_it(ledger):
    ledger.release(entry(), {"e"}, TOTAL)
    assert all(stat.S_IMODE((folder / FILE).stat().st_mode) == 0o600 for folder in ledger.folders)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PrivacyError, match=r"file/ledger: the ledger cannot be used .*; make the folder writable, or"):
        Ledger([tmp_path / "file" / "ledger"]).release(entry(), {"e"}, TOTAL)


def test_the_clock_does_not_matter(ledger, monkeypatch):
    class SetBack(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(1970, 1, 1, tzinfo=tz)

    first = ledger.release(entry("1"), {"e"}, TOTAL)
    monkeypatch.setattr("nni_hyperfd.privacy.ledger.datetime", SetBack)
    second = ledger.release(entry("2"), {"e"}, TOTAL)
    assert second.when < first.when and ledger.entries() == [first, second]
    assert ledger.again("1", {"e"}, "t") == first and ledger.accountant().rho == pytest.approx(1 / MULTIPLIER**2)


# -- several processes -------------------------------------------------------------------------------------------------

RELEASE = """
import sys
from pathlib import Path
from nni_hyperfd.privacy.ledger import BudgetError, Ledger, new_entry
first, second, multiplier, *names = sys.argv[1:]
ledger = Ledger([Path(first), Path(second)])
print("ready", flush=True)
sys.stdin.readline()
for name in names:
    made = new_entry(name, "e", "t", 100, float(multiplier), [hash(object()) / 7])
    try:
        print(name, ledger.release(made, {"e"}, (8.0, 1e-5)).id, flush=True)
    except BudgetError:
        print(name, "refused", flush=True)
"""


def releasing(ledger, names, multiplier=MULTIPLIER):
    """A process that has begun and waits for a line to make its releases."""
    command = [sys.executable, "-c", RELEASE, *map(str, ledger.folders), str(multiplier), *names]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def test_two_at_once_release_an_unchanged_data_set_once(ledger):
    processes = [releasing(ledger, ["same"]) for _ in range(4)]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = {process.communicate(timeout=120)[0] for process in processes}
    assert answers == {f"same {ledger.entries()[0].id}\n"} and len(ledger.entries()) == 1


@pytest.mark.slow
def test_many_at_once_do_not_pass_the_total(ledger):
    processes = [releasing(ledger, [f"{number}-a", f"{number}-b"]) for number in range(4)]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    lines = [line for process in processes for line in process.communicate(timeout=120)[0].splitlines()]
    assert len(lines) == 8 and sum(line.endswith("refused") for line in lines) == 3
    assert {e.id for e in ledger.entries()} == {line.split()[1] for line in lines} - {"refused"}


@pytest.mark.slow
def test_whoever_is_killed_has_paid_for_all_that_has_left(ledger):
    rng = random.Random(0)
    for round_ in range(4):
        process = releasing(ledger, [f"{round_}-{number}" for number in range(10_000)], multiplier=1e3)
        process.stdin.write("go\n")
        process.stdin.flush()
        left = [process.stdout.readline() for _ in range(rng.randrange(1, 20))]
        time.sleep(rng.random() / 100)  # anywhere within the next ones
        process.kill()
        left += process.communicate()[0].splitlines()
        known = {e.id for e in ledger.entries()}
        assert {line.split()[1] for line in left if len(line.split()) == 2 and len(line.split()[1]) == 32} <= known
    ledger.release(entry("after"), {"e"}, TOTAL)
