from __future__ import annotations

from pathlib import Path

from nni_hyperfd.experiment import trial_logs


def written(folder: Path, text: str) -> Path:
    log = folder / "environments" / "local-env" / "trials" / "abc" / "trial.stderr"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(text)
    return log


def test_the_last_sentence_is_that_of_a_script_a_traceback_or_a_shell(tmp_path: Path) -> None:
    for text, sentence in {
        "warning\nfinetune.py: val.json: is empty; write it.\n\n": "finetune.py: val.json: is empty; write it",
        "Traceback (most recent call last):\n  File ...\nValueError: no\n": "ValueError: no",
        "/bin/sh: 1: DATA: name it\n": "DATA: name it",
        "sh: line 1: DATA: name it": "DATA: name it",
        "x" * 90_000 + "\nlast line\n=====\n": "last line",
    }.items():
        log = written(tmp_path, text)
        assert trial_logs.last_sentence(log) == sentence
        assert trial_logs.reason_of(tmp_path, "abc") == f"{sentence}; its log is {log}"


def test_a_trial_without_a_word_is_told_of_too(tmp_path: Path) -> None:
    written(tmp_path, "")
    assert "ended from outside, perhaps for lack of memory" in trial_logs.reason_of(tmp_path, "abc")
    assert "in the web UI or on the machine where it ran" in trial_logs.reason_of(tmp_path, "other")
