"""The way of a task, from opening to closing: what all experiments share."""

from nni_hyperfd.platform.client import AwayError, PlatformClient
from nni_hyperfd.platform.embedded import EmbeddedPlatform
from nni_hyperfd.platform.platform import Platform
from nni_hyperfd.platform.presets import Neighbour, Ranking, Recommendation
from nni_hyperfd.platform.tenants import TenantPlatform
from nni_hyperfd.state.errors import HeldError, QuotaError, ScopeError, TokenError
from nni_hyperfd.state.store import RefusedError, StateError, UnknownTaskError, default_state
from nni_hyperfd.state.tenants import Caller, Tenants
from nni_hyperfd.state.views import Results, TaskView, TrialView

__all__ = [
    "AwayError",
    "Caller",
    "EmbeddedPlatform",
    "HeldError",
    "Neighbour",
    "Platform",
    "PlatformClient",
    "QuotaError",
    "Ranking",
    "Recommendation",
    "RefusedError",
    "Results",
    "ScopeError",
    "StateError",
    "TaskView",
    "TenantPlatform",
    "Tenants",
    "TokenError",
    "TrialView",
    "UnknownTaskError",
    "default_state",
]
