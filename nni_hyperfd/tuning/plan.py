"""What is to be run: search space, detector to start from, budget; and the NNI experiment file that says so."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from nni_hyperfd.client import token_of
from nni_hyperfd.detector import search_spaces, trial_code
from nni_hyperfd.experiment.class_args import ClassArgs, ClassArgsError
from nni_hyperfd.platform import TokenError
from nni_hyperfd.space import SearchSpace, SpaceError
from nni_hyperfd.tuning.errors import TuningError

SPACES = {"hpo": "hpo.json", "nas": "proxylessnas.json", "joint": "joint.json", "extended": "extended.json"}
"""Search spaces that come with the package, by the name that the command line has for them."""
_CONFIGS = {"hpo": "retinaface_wider.py", "nas": "retinaface_proxylessnas.py", "joint": "retinaface_proxylessnas.py"}
_HEAD = """\
# Made by `hyperfd {command}`. `nnictl create --config {name}` runs it as well.
# Web UI: http://localhost:8080; {afterwards}.
"""
# A server's tasks are not in the user's state, and so an experiment of it is named by its id.
_OF_STATE = "what came out: `hyperfd tasks`; the best detector: `hyperfd best`"
_OF_SERVER = "what came out: `hyperfd report EXPERIMENT`; the best detector: `hyperfd best EXPERIMENT`"


@dataclass(frozen=True)
class Start:
    """The detector that trials start from.

    Attributes:
        weights: its file (absolute).
        config: its MMDetection config (absolute).
        own: whether the user has named the weights.
    """

    weights: Path
    config: Path
    own: bool


@dataclass(frozen=True)
class Plan:
    """What is to be run on a data set.

    Attributes:
        definition: the search space, as NNI writes it.
        kind: of the search space: hpo, nas or joint.
        start: the detector to start from.
        budget: configurations to try, at least 1.
        concurrency: trials side by side, at least 1.
        experience: entries of `classArgs` that name the state file or the server (`experience`); empty for the user's
            own state.
        options: more options of `finetune.py`, as on a command line.
    """

    definition: dict[str, Any]
    kind: str
    start: Start
    budget: int
    concurrency: int
    experience: dict[str, str]
    options: str = ""

    def experiment(self, data: Path, working_directory: Path | None = None) -> dict[str, Any]:
        """The NNI experiment on a data set.

        Args:
            data: the data set (absolute).
            working_directory: where NNI keeps the experiment (absolute); its own folder by default.
        """
        words = [sys.executable, "finetune.py", "--data", str(data)]
        words += ["--weights", str(self.start.weights), "--config", str(self.start.config)]
        experiment: dict[str, Any] = {
            "experimentName": f"HyperFD on {data.name}",
            "searchSpace": self.definition,
            "trialCodeDirectory": str(trial_code()),
            "trialCommand": " ".join([shlex.join(words), self.options]).strip(),
            "trialConcurrency": self.concurrency,
            "tuner": {
                "codeDirectory": str(trial_code()),
                "className": "nni_hyperfd.HyperFDAdvisor",
                "classArgs": {"budget": self.budget, **self.experience},
            },
            "trainingService": {"platform": "local"},
        }
        if working_directory is not None:
            experiment["experimentWorkingDirectory"] = str(working_directory)
        return experiment


def make(
    space: str,
    start: Path | None,
    config: Path | None,
    budget: int = 4,
    concurrency: int = 1,
    experience: Mapping[str, str] | None = None,
    options: str = "",
) -> Plan:
    """Check what the user wants to be run.

    Args:
        space: one of `SPACES`, or a file with a search space of NNI.
        start: weights of the detector to start from; those that come with the space by default.
        config: MMDetection config of that detector; the one that comes with the space by default.
        budget: configurations to try.
        concurrency: trials side by side.
        experience: entries of `classArgs` (`experience`); the user's own state by default.
        options: more options of `finetune.py`.

    Raises:
        TuningError: a file is missing, or the search space cannot be used.
    """
    definition = space_definition(space)
    try:
        kind = SearchSpace.from_nni(definition).kind
    except SpaceError as error:
        raise TuningError(f"--space {space}: {error}") from None
    try:
        shlex.split(options)
    except ValueError as error:
        raise TuningError(f"--options {options!r}: {error}") from None
    return Plan(definition, kind, start_of(kind, start, config), budget, concurrency, dict(experience or {}), options)


def experience(
    state: Path | None = None,
    platform: str | None = None,
    token_file: Path | None = None,
    ca_file: Path | None = None,
) -> dict[str, str]:
    """Check the names of what holds the experience of earlier tasks: a state file, or a server.

    Args:
        state: the state file; the user's own by default.
        platform: address of a server, in place of a state.
        token_file: file with the token for the server.
        ca_file: certificates that the server's is checked against, in place of the system's.

    Returns:
        Entries of `classArgs`, with absolute paths.

    Raises:
        TuningError: a file is missing, or the address is none.
    """
    named = {"state": state, "token_file": token_file, "ca_file": ca_file}
    files = {name: file.expanduser().absolute() for name, file in named.items() if file is not None}
    entries = {name: str(file) for name, file in files.items()} | ({} if platform is None else {"platform": platform})
    try:
        ClassArgs.of(service=True, arguments=entries)
        token = token_of(files.get("token_file")) if platform is not None else ""
    except (ClassArgsError, TokenError) as error:
        raise TuningError(str(error).removeprefix("classArgs: ")) from None
    if token is None:
        raise TuningError(f"--platform {platform}: it asks for a token; name its file with --token-file")
    return entries


def space_definition(space: str) -> dict[str, Any]:
    """Read a search space by its name or from its file.

    Raises:
        TuningError: it is neither.
    """
    path = search_spaces() / SPACES[space] if space in SPACES else Path(space)
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        names = ", ".join(SPACES)
        raise TuningError(f"--space {space}: {error.strerror}; name one of {names}, or a file") from None
    except ValueError as error:
        raise TuningError(f"--space {space}: this is no JSON ({error})") from None
    if not isinstance(content, dict):
        raise TuningError(f"--space {space}: a search space is a JSON object of parameters")
    return content


def start_of(kind: str, weights: Path | None, config: Path | None) -> Start:
    """Find the detector that trials start from.

    Args:
        kind: of the search space.
        weights: the user's; by default those that come with the config.
        config: the user's; by default the one that belongs to the kind of space.

    Raises:
        TuningError: a file is missing, or no weights come with the config.
    """
    code = trial_code()
    config = code / "configs" / _CONFIGS[kind] if config is None else _in_trial_code(config)
    if weights is None:
        # As trials do: a config with this ending differs from another one in the schedule only.
        shipped = code / "weights" / f"{config.stem.removesuffix('_short')}.safetensors"
        if not shipped.is_file():
            raise TuningError(f"--config {config}: no detector comes with it; name its weights with --start")
        return Start(shipped, config, own=False)
    if not weights.is_file():
        raise TuningError(
            f"--start {weights}: there is no such file; name weights (.safetensors, or a released RetinaFace .pth), or"
            " leave it out for the detector that comes with the package"
        )
    return Start(weights.resolve(), config, own=True)


def _in_trial_code(config: Path) -> Path:
    for path in (config, trial_code() / "configs" / config.name):
        if path.is_file():
            return path.resolve()
    known = ", ".join(sorted(path.name for path in (trial_code() / "configs").glob("retinaface_*.py")))
    raise TuningError(f"--config {config}: there is no such file; name one, or one of {known}")


def as_yaml(experiment: dict[str, Any], command: str, name: str) -> str:
    """The text of an experiment file.

    Args:
        experiment: its content.
        command: the command that makes it.
        name: of the file.
    """
    body = yaml.safe_dump(experiment, sort_keys=False, width=1000, allow_unicode=True)
    served = "platform" in experiment["tuner"]["classArgs"]
    return _HEAD.format(command=command, name=name, afterwards=_OF_SERVER if served else _OF_STATE) + body
