"""Takes one work item to its outcome: the request, the one retry loop of the program, and the verdict."""

from narrun_async.caller.calling import PROBE_DEADLINE_S, Caller, call_within, make_probe
from narrun_async.caller.flights import AttemptFailed, CallSpec, Flight, FormatChoice
from narrun_async.caller.preflight import ask_once, choose_format

__all__ = [
    "PROBE_DEADLINE_S",
    "AttemptFailed",
    "CallSpec",
    "Caller",
    "Flight",
    "FormatChoice",
    "ask_once",
    "call_within",
    "choose_format",
    "make_probe",
]
