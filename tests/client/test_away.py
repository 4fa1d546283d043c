"""A client whose server goes away and comes back: what it has to tell is neither lost nor told twice."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("fastapi", reason="the extra `server` is not installed")

from nni_hyperfd.client import PatientPlatform
from nni_hyperfd.client.outbox import Call, Outbox
from nni_hyperfd.platform import AwayError, EmbeddedPlatform, StateError
from nni_hyperfd.task import Phase, Status
from support.platform_contract import DESCRIPTION, SPACE, Contract, described, opened, run_next
from support.serving import Forgetful, Server, server
from client_of import served


@pytest.fixture(autouse=True)
def data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
