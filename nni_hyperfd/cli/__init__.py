"""The command `hyperfd`, one module per group of its commands."""

from nni_hyperfd.cli.app import app, main

__all__ = ["app", "main"]
