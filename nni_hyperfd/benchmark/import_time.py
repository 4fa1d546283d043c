"""The time that importing the advisor takes beside `import nni`, of the ten seconds that a tuner has to connect to NNI.

python -m nni_hyperfd.benchmark.import_time
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

REPEATS = 5
ALONE, OURS = "import nni", "import nni; from nni_hyperfd import HyperFDAdvisor"


def main() -> None:
    """Print the medians of both and their ratio."""
    pairs = [(_seconds(ALONE), _seconds(OURS)) for _ in range(REPEATS)]  # in turn, so that both see the same load
    alone, ours = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(f"{ALONE}: {alone:.2f} s; {OURS}: {ours:.2f} s; ratio {ours / alone:.2f} (medians of {REPEATS})")


def _seconds(code: str) -> float:
    """Duration of a new Python process that runs this code."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
