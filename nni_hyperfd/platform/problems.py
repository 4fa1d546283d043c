"""The errors of a platform as words that a server answers with and a client turns back into the errors."""

from __future__ import annotations

from nni_hyperfd.space import SpaceError
from nni_hyperfd.state.errors import (
    HeldError,
    QuotaError,
    RefusedError,
    ScopeError,
    StateError,
    TokenError,
    UnknownTaskError,
)
from nni_hyperfd.task import SettingsError
from nni_hyperfd.wire import WireError

PROBLEMS = "urn:nni-hyperfd:problem:"
"""What the type of every problem (RFC 9457) begins with; the rest is its word."""

ERRORS: dict[str, tuple[type[Exception], int]] = {
    "unknown-task": (UnknownTaskError, 404),
    "search-space": (SpaceError, 422),
    "settings": (SettingsError, 422),
    "message": (WireError, 422),
    "scope": (ScopeError, 403),
    "token": (TokenError, 401),
    "held": (HeldError, 409),
    "quota": (QuotaError, 429),
    "refused": (RefusedError, 409),
    "protocol": (RefusedError, 400),
    "too-large": (RefusedError, 413),
    "state": (StateError, 503),
}
"""Word -> the error and its HTTP status. A special error stands before a general one.

Of an error with several words the first one is used. The others are made by the server itself.
"""


def word_of(error: Exception) -> str:
    """The word of an error that is in `ERRORS`."""
    return next(word for word, (kind, _) in ERRORS.items() if isinstance(error, kind))
