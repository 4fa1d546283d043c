"""The command `hyperfd`."""

from nni_hyperfd.cli.state import app, main

__all__ = ["app", "main"]
