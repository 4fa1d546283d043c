"""Reading what the command `hyperfd` has printed."""

from __future__ import annotations


def one_line_error(result: tuple[int, str, str], *words: object) -> str:
    """The error of a command that has ended with one sentence, which holds the words."""
    code, out, err = result
    assert code == 1 and out == ""
    assert err.startswith("hyperfd: ") and err.count("\n") == 1 and "Traceback" not in err
    for word in words:
        assert str(word) in err
    return err


def cells(table: str) -> list[list[str]]:
    """The texts of a table, line by line."""
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in table.splitlines() if "│" in line]


def rows(table: str) -> dict[str, str]:
    """Label -> text of a table's two-column lines."""
    return {label: text for label, text in cells(table)}
