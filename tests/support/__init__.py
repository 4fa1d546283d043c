"""What several tests share; imported as `support`, because pytest's configuration puts `tests/` on the path."""

from pathlib import Path

SUPPORT = Path(__file__).resolve().parent
TESTS = SUPPORT.parent
ROOT = TESTS.parent
