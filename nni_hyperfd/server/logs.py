"""The server's logs: a line of JSON for each request, and one for each event that changes whose task is where.

Neither has a body, a token, a query, or a path with more in it than ids. Events come from the platform through the
logger `nni_hyperfd.audit`; who asks is added here.
"""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from datetime import datetime, timezone
from logging.handlers import WatchedFileHandler
from pathlib import Path

from starlette.types import Scope

ACCESS = logging.getLogger("nni_hyperfd.access")
AUDIT = logging.getLogger("nni_hyperfd.audit")

asking: ContextVar[Scope | None] = ContextVar("asking", default=None)
"""The request that is being answered."""


class _Line(logging.Formatter):
    """A record as one line of JSON: its message as `event`, and the fields that it was given."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        fields: dict[str, object] = getattr(record, "fields", {})
        return json.dumps({"time": when, "event": record.getMessage(), **_who(), **fields})


def _who() -> dict[str, object]:
    """The id of the request that is being answered, and its tenant where that is known; outside of requests nothing."""
    scope = asking.get()
    if scope is None:
        return {}
    return {"request": scope["state"]["request"], "tenant": getattr(scope["state"].get("caller"), "name", None)}


def begin(access: Path | None = None, audit: Path | None = None) -> None:
    """Begin to log, to files or else to the error output; files may be renamed meanwhile, as logrotate does.

    Args:
        access: file of the requests.
        audit: file of the events.
    """
    for logger, file in ((ACCESS, access), (AUDIT, audit)):
        handler = logging.StreamHandler(sys.stderr) if file is None else WatchedFileHandler(file, encoding="utf-8")
        handler.setFormatter(_Line())
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False
