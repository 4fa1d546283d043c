"""A trial that builds nothing: it reads the architecture that a tuner proposes, and reports what that costs."""

from __future__ import annotations

import nni

import nni_hyperfd
from nni_hyperfd.space.architecture import Architecture

architecture = Architecture.of(nni_hyperfd.get_next_parameter())  # an error, so a failed trial, over the FLOPs limit
nni.report_final_result({"default": architecture.flops / 1e6, "blocks": sum(map(len, architecture.stages))})
