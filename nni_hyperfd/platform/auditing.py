"""Events that change whose task is where, for the log of a server; elsewhere nobody listens."""

from __future__ import annotations

import logging

_logger = logging.getLogger("nni_hyperfd.audit")


def audit(event: str, **fields: object) -> None:
    """Note an event, with ids and counts alone: what was deleted must not live on in a log."""
    _logger.info(event, extra={"fields": fields})
