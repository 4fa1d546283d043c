"""Start an experiment as `nnictl create` does, or resume one as `nnictl resume` does: but on a busy machine, too.

    python start.py create CONFIG
    python start.py resume ID

Prints the experiment's id and port as one line of JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from nni.experiment import ExperimentConfig
from nni.experiment.launcher import get_stopped_experiment_config

from nni_hyperfd.experiment import launch

action, what = sys.argv[1:]
if action == "create":
    running = launch.start(ExperimentConfig.load(Path(what)))
else:
    running = launch.start(get_stopped_experiment_config(what), resume=what)
print(json.dumps({"id": running.id, "port": running.port}))
