"""What keeps one endpoint from being asked too much: slots, turns, gate, breaker, budget, controller, guards."""

from narrun_async.limits.breaker import CircuitBreaker, Probe
from narrun_async.limits.budget import Budget, BudgetLimits, RetryBudget
from narrun_async.limits.culprits import Culprits
from narrun_async.limits.endpoint import EndpointLimits, LimitSettings
from narrun_async.limits.error_guard import ErrorGuard
from narrun_async.limits.gate import OverloadGate
from narrun_async.limits.patience import Patience
from narrun_async.limits.serving_guard import ServingGuard
from narrun_async.limits.slots import Slots

__all__ = [
    "Budget",
    "BudgetLimits",
    "CircuitBreaker",
    "Culprits",
    "EndpointLimits",
    "ErrorGuard",
    "LimitSettings",
    "OverloadGate",
    "Patience",
    "Probe",
    "RetryBudget",
    "ServingGuard",
    "Slots",
]
