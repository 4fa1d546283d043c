"""Options that the programs on tables have in common."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from nni_hyperfd.benchmark.regime import Regime

RegimeOption: TypeAlias = Annotated[
    Regime,
    typer.Option(
        help="What is known of a past task: its own picks (real, cold) or everything (revealed). The platform's own"
        " data sets are known whole; with cold it has none."
    ),
]
OfflineOption: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="How many of the platform's own data sets are known; by default all that the table names, or else its"
        " first task.",
    ),
]
ServerOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="Tasks that are the platform's own data sets, separated by commas, in place of the table's list."
    ),
]
NoiseOption: TypeAlias = Annotated[
    float | None,
    typer.Option(help="Epsilon of the noise on clients' meta-features, with delta 1e-5; exact ones by default."),
]


def listed(text: str) -> list[str]:
    """What stands between the commas, each once."""
    return list(dict.fromkeys(part.strip() for part in text.split(",")))


def server_names(text: str | None) -> list[str] | None:
    """What the option names; none for an empty text, None without the option."""
    return listed(text) if text else None if text is None else []
