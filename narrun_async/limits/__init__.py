"""What keeps one endpoint from being asked too much: slots, the overload gate, the circuit breaker, the error guard."""

from narrun_async.limits.breaker import CircuitBreaker, Probe
from narrun_async.limits.endpoint import EndpointLimits
from narrun_async.limits.error_guard import ErrorGuard
from narrun_async.limits.gate import OverloadGate
from narrun_async.limits.patience import Patience
from narrun_async.limits.slots import Slots

__all__ = ["CircuitBreaker", "EndpointLimits", "ErrorGuard", "OverloadGate", "Patience", "Probe", "Slots"]
