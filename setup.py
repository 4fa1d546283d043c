"""Adds two folders of the repository to wheels, which setup.cfg cannot name since they lie outside of the package.

The rest of the package's description is in setup.cfg.
"""

from pathlib import Path
from shutil import copytree, ignore_patterns

from setuptools import setup
from setuptools.command.build_py import build_py

FOLDERS = ("trial_code", "search_spaces")
"""They become folders of the package `nni_hyperfd`, where `nni_hyperfd.detector.trial_code` finds them."""


class BuildWithFolders(build_py):
    """Copies the folders into the package that is built; an editable install finds them in the checkout."""

    def run(self) -> None:
        """Build the package."""
        super().run()
        if not self.editable_mode:
            for name in FOLDERS:
                target = Path(self.build_lib, "nni_hyperfd", name)
                copytree(name, target, ignore=ignore_patterns("__pycache__"), dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithFolders})
