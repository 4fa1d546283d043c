"""Where a state lies: what the store needs of an SQLite file or of a PostgreSQL database."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager

from sqlalchemy import Engine

READ_ONLY = "hyperfd_read_only"
"""An execution option: the transaction reads one consistent view and holds up no writer."""


class Database(ABC):
    """An opened database with the tables of the present format.

    Its engine begins every transaction as a writer, of which there is one at a time, in whatever process; or as a
    reader, where the execution option `READ_ONLY` is set. So what a writer has read stays true until it has written.

    Attributes:
        engine: of its connections.
    """

    engine: Engine

    @property
    @abstractmethod
    def name(self) -> str:
        """What messages call it; without a password."""

    @abstractmethod
    def readable_errors(self, action: str) -> AbstractContextManager[None]:
        """Within the block, errors of the database become a `StateError` that says what to do.

        Args:
            action: what fails then: "open", "read" or "write".
        """
