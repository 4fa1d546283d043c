"""What guides and other pages let their reader type exists: commands, options, scripts, modules, imports.

The tutorial is run from end to end by test_tutorial.py. Here only what is quick is run; of the rest, every word of a
command line that the program would look up is looked up.
"""

from __future__ import annotations

import ast
import functools
import inspect
import os
import re
import shlex
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from itertools import dropwhile, groupby
from pathlib import Path
from types import ModuleType

import pytest
import torch
import typer
import yaml

from nni_hyperfd import Dataset
from nni_hyperfd.cli import app
from nni_hyperfd.recommenders.conformance import RecommenderConformance
from support import ROOT

DOCS = ROOT / "docs"
GUIDES = sorted((DOCS / "guides").glob("*.md"))
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *GUIDES]
COMMAND = typer.main.get_command(app)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def lines(block: str) -> list[list[str]]:
    """The simple commands of a block, in words, without assignments before them and without redirections."""
    commands: list[list[str]] = []
    for line in block.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(re.sub(r">\s*\S+", "", line), posix=True, punctuation_chars="()&|;")
        lexer.whitespace_split = True
        for operator, words in groupby(lexer, key=lambda word: set(word) <= set("()&|;")):
            command = list(dropwhile(lambda word: re.match(r"\w+=", word), words))
            if command and not operator:
                commands.append(command)
    return commands


def check_hyperfd(words: list[str]) -> None:
    """Fail if a command or option of `hyperfd` does not exist, or if there are too many arguments."""
    command, rest = COMMAND, words[1:]
    while hasattr(command, "commands"):
        if not rest:
            return
        assert rest[0] in command.commands, f"{shlex.join(words)}: there is no command {rest[0]}"
        command, rest = command.commands[rest[0]], rest[1:]
    _, left, _ = command.make_parser(command.context_class(command)).parse_args(rest)
    assert not left, f"{shlex.join(words)}: {left[0]} is too many"


@functools.cache
def help_of(program: tuple[str, ...], folder: Path) -> str:
    """What a Python script or module prints for --help."""
    done = subprocess.run([sys.executable, *program, "--help"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_python(words: list[str], folder: Path) -> None:
    """Fail if a module or script does not exist, or does not know an option that it is given."""
    program = tuple(words[1:3] if words[1] == "-m" else words[1:2])
    assert find_spec(program[1]) if words[1] == "-m" else (folder / program[0]).is_file(), f"there is no {program[-1]}"
    for option in (word.partition("=")[0] for word in words if word.startswith("--")):
        assert re.search(rf"{option}\b", help_of(program, folder)), f"{shlex.join(words)}: there is no {option}"


def check(words: list[str], folder: Path) -> Path:
    """Fail if a line's program does not exist; the folder for the lines after it."""
    if words[0] == "hyperfd":
        check_hyperfd(words)
    elif words[0] == "nnictl":
        assert words[1:3] == ["create", "--config"]
        path = ROOT / words[3]
        assert yaml.safe_load(path.read_text())["tuner"]["className"].startswith("nni_hyperfd.")
    elif words[0] == "make":
        targets = [word for word in words[1:] if "=" not in word]
        assert targets and all(f"\n{target}:" in (ROOT / "Makefile").read_text() for target in targets)
    elif words[0] == "python":
        check_python(words, folder)
    elif words[0] == "cd":
        folder = ROOT / words[1]
        assert folder.is_dir()
    else:
        assert words[0] in ("export", "pip"), f"{shlex.join(words)}: nothing checks {words[0]}"
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_exists_with_its_options(page: Path) -> None:
    for block in blocks(page, "bash"):
        folder = ROOT
        for words in lines(block):
            folder = check(words, folder)
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for span in re.findall(r"`((?:hyperfd |python -m |python trial_code/)[^`]+)`", prose):
        words = [word for word in span.split() if word.strip(".")]
        check(words, ROOT)


def test_a_command_that_does_not_exist_is_noticed() -> None:
    for line in (
        "hyperfd tuna x",
        "hyperfd data convert coco a b --speed 3",
        "hyperfd status a b",
        "python nothing.py",
    ):
        with pytest.raises(Exception, match="(?i)tuna|speed|too many|nothing"):
            for words in lines(line):
                check(words, ROOT)


@pytest.mark.slow
def test_data_sets_are_converted_as_the_guide_says(tmp_path: Path) -> None:
    first = blocks(DOCS / "guides" / "data.md", "bash")[0]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-ec", first], cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0 and (tmp_path / "faces" / "report.json").is_file(), done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_python_compiles_and_its_imports_exist(page: Path) -> None:
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Import):
                assert all(find_spec(alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nni_hyperfd"):
                module = import_module(str(node.module))
                assert all(hasattr(module, alias.name) for alias in node.names)


@pytest.fixture
def my_module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The guide's recommender, as if its reader had saved it."""
    module = ModuleType("my_module")
    monkeypatch.setitem(sys.modules, "my_module", module)
    exec(blocks(DOCS / "guides" / "own-recommender.md", "python")[0], module.__dict__)
    return module


def test_the_recommender_of_the_guide_keeps_the_contract(my_module: ModuleType) -> None:
    names: dict[str, type[RecommenderConformance]] = {}
    exec(blocks(DOCS / "guides" / "own-recommender.md", "python")[1], names)
    suite = names["TestMine"]()
    suite.many_tasks = 50
    tests = [test for name, test in inspect.getmembers(suite, inspect.ismethod) if name.startswith("test_")]
    assert len(tests) > 10
    for test in tests:
        test()


def test_the_data_set_of_the_guide_is_one(tmp_path: Path) -> None:
    (made,) = (block for block in blocks(DOCS / "guides" / "own-trial.md", "python") if "class MyDataset" in block)
    names: dict[str, type] = {}
    exec(made, names)
    for number in range(5):
        (tmp_path / f"{number}.jpg").write_bytes(bytes([number]))
    data = names["MyDataset"](tmp_path, 7, lambda file: torch.full((3, 3, 4), float(file.stem)), lambda: 0.5)
    members = [name for name in vars(Dataset) if not name.startswith("_")]
    assert len(members) > 5 and all(hasattr(data, name) for name in members)
    three, two = (data.image_features(limit, 0) for limit in (3, 2))
    assert three.shape == (3, 3, 3, 4) and torch.equal(three[:2], two)


def test_every_page_is_in_the_site() -> None:
    listed = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text()))
    assert listed == {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    for target in re.findall(r"\]\((?!http)([^)#]+)", (ROOT / "README.md").read_text()):
        assert (ROOT / target).is_file(), f"README.md links to {target}"


def test_the_reference_names_modules_that_exist() -> None:
    for page in (DOCS / "reference").glob("*.md"):
        for name in re.findall(r"^::: ([\w.]+)", page.read_text(), re.MULTILINE):
            parent, _, last = name.rpartition(".")
            assert hasattr(import_module(parent), last) if parent and last[0].isupper() else find_spec(name)
