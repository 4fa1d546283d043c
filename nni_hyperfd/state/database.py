"""Where a state lies: what the store needs of an SQLite file or of a PostgreSQL database."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager

from sqlalchemy import Engine

from nni_hyperfd.state.errors import StateError
from nni_hyperfd.state.migrations import FORMAT

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

    def _check_may_change(self, version: int, create: bool, upgrade: bool) -> None:
        """See whether tables may be made in an empty database, or those of an earlier format upgraded.

        Raises:
            StateError: they may not.
        """
        if version == 0 and not create:
            raise StateError(f"state {self.name}: there is none yet; see that the name is right")
        if 0 < version < FORMAT and not upgrade:
            raise StateError(
                f"state {self.name}: an earlier nni_hyperfd wrote it (format {version}, this one uses {FORMAT}); stop "
                f"what uses it, make a backup, and run hyperfd db upgrade --database '{self.name}'"
            )

    @abstractmethod
    def readable_errors(self, action: str) -> AbstractContextManager[None]:
        """Within the block, errors of the database become a `StateError` that says what to do.

        Args:
            action: what fails then: "open", "read" or "write".
        """
