"""Warm-ups of the paper's recipe on the server's own data sets, done once and kept as files."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from nni_hyperfd.benchmark.reproduce.arms import ARMS, Variant
from nni_hyperfd.benchmark.reproduce.plan import BUDGET, WARM_UPS, ArmRun, ArmWarmUp, Setting, warm_up_of
from nni_hyperfd.files import write_bytes
from nni_hyperfd.method import weights
from nni_hyperfd.method.config_encoder import ConfigurationEncoder
from nni_hyperfd.method.learning import WarmUp, warm_up
from nni_hyperfd.method.recipe import INITIAL_SEED
from nni_hyperfd.recommenders.paper import PaperHyperFD

_MEASURES = "ndcg and seconds"
"""Name of the tensor (2,) in a file: the best NDCG on the results held out (-1: no warm-up), and the duration in s."""


def do_warm_up(start: ArmWarmUp) -> None:
    """Warm up, and write both networks and the extractor's importances with their NDCG on what was held out."""
    began = time.perf_counter()
    arm = _variant(start.arm)
    recommender = arm.recommender(start.seed, start.own, None)
    extractor, encoder = untrained(recommender)
    if arm.warm:
        warmed = warm_up(extractor, encoder, recommender.offline, arm.settings, start.seed)
    else:
        none = {name: torch.zeros_like(parameter) for name, parameter in extractor.named_parameters()}
        warmed = WarmUp(extractor, encoder, none, [float("nan")])
    named = {f"extractor.{name}": tensor for name, tensor in warmed.extractor.state_dict().items()}
    named |= {f"encoder.{name}": tensor for name, tensor in warmed.encoder.state_dict().items()}
    named |= {f"importance.{name}": tensor for name, tensor in warmed.importance.items()}
    measures = [np.nan_to_num(max(warmed.ndcg), nan=-1.0), time.perf_counter() - began]
    named[_MEASURES] = torch.tensor(measures, dtype=torch.float32)
    write_bytes(start.file, weights.dumps(named))


def read(start: ArmWarmUp) -> WarmUp:
    """The result of a warm-up that has been done."""
    extractor, encoder = untrained(_variant(start.arm).recommender(start.seed, start.own, None))
    named = weights.loads(start.file.read_bytes())
    extractor.load_state_dict(weights.under(named, "extractor"))
    encoder.load_state_dict(weights.under(named, "encoder"))
    return WarmUp(extractor, encoder, weights.under(named, "importance"), named[_MEASURES][:1].tolist())


def warmed_extractor(setting: Setting, out: Path, arm: str) -> nn.Module:
    """The extractor that the runs of an arm with seed 0 start from.

    Args:
        setting: the table, and how the runs go.
        out: folder of all results.
        arm: name of the arm.

    Raises:
        ValueError: the arm has no warm-up.
    """
    start = warm_up_of(ArmRun(setting, arm, BUDGET, 0), out)
    if start is None:
        raise ValueError(f"The arm {arm!r} has no warm-up.")
    return read(start).extractor


def warm_ups(setting: Setting, out: Path) -> pd.DataFrame:
    """A row per arm and seed that a table's runs have started from.

    Returns:
        Columns `arm`, `seed`, `ndcg` (NaN: not warmed up) and `seconds`.
    """
    rows = []
    for name, seed in itertools.product(ARMS, range(WARM_UPS)):
        start = warm_up_of(ArmRun(setting, name, BUDGET, seed), out)
        if start is not None and start.file.is_file():
            ndcg, seconds = weights.loads(start.file.read_bytes())[_MEASURES].tolist()
            rows.append({"arm": name, "seed": seed, "ndcg": ndcg if ndcg >= 0 else np.nan, "seconds": seconds})
    return pd.DataFrame(rows, columns=["arm", "seed", "ndcg", "seconds"])


def untrained(recommender: PaperHyperFD) -> tuple[nn.Module, ConfigurationEncoder]:
    """The networks of a recommender before its warm-up."""
    first = recommender.offline[0]
    extractor = recommender.new_extractor(first.features.shape[-1], INITIAL_SEED)
    hidden = recommender.settings.hidden
    return extractor, ConfigurationEncoder.initial(first.configurations, INITIAL_SEED, hidden)


def _variant(name: str) -> Variant:
    """The arm of this name, which has a warm-up."""
    arm = ARMS[name]
    if not isinstance(arm, Variant):
        raise ValueError(f"The arm {name!r} has no warm-up.")
    return arm
