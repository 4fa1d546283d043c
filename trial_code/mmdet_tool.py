"""MMDetection's own tools for this folder's configs: `python mmdet_tool.py train CONFIG ...` or `... test CONFIG FILE`.

The tools are run as they are, with all their options. This script only makes `retinaface` importable, and mmdet usable
with mmcv-lite (see retinaface/bridge.py).
"""

from __future__ import annotations

import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

import retinaface  # noqa: F401  makes mmdet importable

TOOLS = ("train", "test")


def main() -> None:
    """Run the tool that the command line names."""
    if len(sys.argv) < 2 or sys.argv[1] not in TOOLS:
        sys.exit(f"usage: python mmdet_tool.py {'|'.join(TOOLS)} CONFIG ... (--help lists mmdet's options)")
    mmdet = find_spec("mmdet")
    if mmdet is None or not mmdet.submodule_search_locations:
        sys.exit("mmdet_tool.py: mmdet is not installed; run `pip install 'nni-hyperfd[detector]' mmcv-lite`.")
    tool = Path(mmdet.submodule_search_locations[0], ".mim", "tools", f"{sys.argv[1]}.py")
    sys.argv[:2] = [str(tool)]
    runpy.run_path(str(tool), run_name="__main__")


if __name__ == "__main__":
    main()
