"""Registers the detector's modules with mmdet; the `config.py` of `hyperfd best` names this module as a custom import.

Import it before `mmdet` where mmcv has no compiled ops (mmcv-lite): it makes mmdet importable there.
"""

import importlib
import sys

from nni_hyperfd.detector import trial_code

_FOLDER = str(trial_code())
if _FOLDER not in sys.path:
    sys.path.insert(0, _FOLDER)  # first, since other packages call themselves `retinaface` as well
importlib.import_module("retinaface.modules")
