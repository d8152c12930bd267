"""Whether and how the run goes on: stopping it, and what a person may change while it is going."""

from narrun_async.control.live_settings import (
    LiveSettings,
    follow_live_settings,
    read_live_settings,
    write_live_settings,
)
from narrun_async.control.run_control import RunControl, StopReason, StopSignal

__all__ = [
    "LiveSettings",
    "RunControl",
    "StopReason",
    "StopSignal",
    "follow_live_settings",
    "read_live_settings",
    "write_live_settings",
]
