"""MMDetection's own tools on this folder's configs: `python mmdet_tool.py train CONFIG ...` or `... test CONFIG FILE`.

They are run as they come with mmdet, with all their options. It is only that this folder is on the path, and that
mmcv-lite will do (see retinaface/bridge.py); where mmcv is compiled, mmdet's scripts take the configs by themselves.
"""

from __future__ import annotations

import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

import retinaface  # noqa: F401  makes mmdet importable

TOOLS = ("train", "test")


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TOOLS:
        sys.exit(f"usage: python mmdet_tool.py {'|'.join(TOOLS)} CONFIG ... (--help lists mmdet's options)")
    tool = Path(find_spec("mmdet").submodule_search_locations[0], ".mim", "tools", f"{sys.argv[1]}.py")
    sys.argv[:2] = [str(tool)]
    runpy.run_path(str(tool), run_name="__main__")


if __name__ == "__main__":
    main()
