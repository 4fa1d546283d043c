"""Search spaces, their configurations, and how encoders see them. Importing this imports neither NNI nor torch."""

from nni_hyperfd.space.architecture import (
    MAP_STAGES,
    PARAMETERS,
    RESOLUTION,
    STAGES,
    STEM_WIDTH,
    Architecture,
    ArchitectureError,
    Block,
)
from nni_hyperfd.space.architecture_space import ArchitectureSpace
from nni_hyperfd.space.encoded import EncodedConfigurations
from nni_hyperfd.space.graphs import Graphs
from nni_hyperfd.space.parameters import Choice, Interval, SpaceError
from nni_hyperfd.space.search_space import Configuration, SearchSpace

__all__ = [
    "MAP_STAGES",
    "PARAMETERS",
    "RESOLUTION",
    "STAGES",
    "STEM_WIDTH",
    "Architecture",
    "ArchitectureError",
    "ArchitectureSpace",
    "Block",
    "Choice",
    "Configuration",
    "EncodedConfigurations",
    "Graphs",
    "Interval",
    "SearchSpace",
    "SpaceError",
]
