"""Run with `python -m nni_hyperfd.benchmark.alternatives TABLE...`; `--help` lists the options."""

import typer

from nni_hyperfd.benchmark.alternatives.command import main

if __name__ == "__main__":
    typer.run(main)
