"""Takes one work item to its outcome: the request, the one retry loop of the program, and the verdict."""

from narrun_async.caller.calling import PROBE_DEADLINE_S, Caller, call_within, make_probe
from narrun_async.caller.flights import AttemptFailed, CallSpec, Flight

__all__ = ["PROBE_DEADLINE_S", "AttemptFailed", "CallSpec", "Caller", "Flight", "call_within", "make_probe"]
