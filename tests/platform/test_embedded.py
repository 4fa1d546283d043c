from __future__ import annotations

import pytest

from nni_hyperfd.platform import EmbeddedPlatform
from support.platform_contract import Contract


class TestEmbedded(Contract):
    @pytest.fixture
    def client(self, tmp_path):
        platform = EmbeddedPlatform(tmp_path / "state.sqlite")
        yield platform
        platform.close()
