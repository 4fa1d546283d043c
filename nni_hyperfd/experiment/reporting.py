"""Between a trial and NNI: metrics that are changed before they leave the trial."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nni.runtime.trial_command_channel import (
    TrialCommandChannel,
    get_default_trial_command_channel,
    set_default_trial_command_channel,
)

if TYPE_CHECKING:
    from nni.typehint import ParameterRecord


class ChangingChannel(TrialCommandChannel):
    """Hands on every metric, changed.

    Args:
        channel: NNI's own.
        change: makes of a metric the one that is sent.
    """

    def __init__(self, channel: TrialCommandChannel, change: Callable[[Any], Any]) -> None:
        self._channel, self._change = channel, change

    def receive_parameter(self) -> ParameterRecord | None:
        """What the tuner sends."""
        return self._channel.receive_parameter()

    def send_metric(self, *, value: Any, **others: Any) -> None:
        """Send a metric; NNI names all arguments."""
        self._channel.send_metric(value=self._change(value), **others)


def report_through(change: Callable[[Any], Any]) -> None:
    """From now on, change every metric that this process reports to NNI."""
    set_default_trial_command_channel(ChangingChannel(get_default_trial_command_channel(), change))
