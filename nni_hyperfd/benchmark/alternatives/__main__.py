"""python -m nni_hyperfd.benchmark.alternatives TABLE... [--seeds 20] [--budget 4] [--only NAMES] [--out FOLDER]"""

import typer

from nni_hyperfd.benchmark.alternatives.command import main

if __name__ == "__main__":
    typer.run(main)
