"""What goes wrong with a state, as its users are told."""

from __future__ import annotations


class StateError(RuntimeError):
    """The state cannot be used or written; what it held before is untouched."""


class RefusedError(ValueError):
    """What was asked for does not fit what the state holds; nothing was changed."""


class UnknownTaskError(RefusedError):
    """There is no task, or no trial, of that id."""


class HeldError(RefusedError):
    """A newer advisor has taken over the experiment."""


class QuotaError(RefusedError):
    """The tenant has as many tasks as it may have."""


class TokenError(RefusedError):
    """No tenant is known by the token, or it has expired."""


class ScopeError(TokenError):
    """The token does not let do this."""
