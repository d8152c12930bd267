"""What an experiment may spend, and how many retries it may afford."""

from __future__ import annotations

import pytest

from narrun_async.errors import BudgetSpentError
from narrun_async.limits.budget import Budget, BudgetLimits, RetryBudget
from narrun_async.models import Prices, Usage

CALL = Usage(prompt_tokens=90, completion_tokens=10)


def test_without_limits_nothing_is_refused() -> None:
    budget = Budget(BudgetLimits())
    for _ in range(1000):
        budget.require(calls_in_flight=10)
        budget.record(CALL)
    assert budget.tokens == 100_000
    assert budget.cost is None


def test_the_token_limit_is_met_and_not_passed_by_what_is_in_flight() -> None:
    budget = Budget(BudgetLimits(max_tokens=1000))
    calls = 0
    with pytest.raises(BudgetSpentError) as refused:
        while True:
            budget.require(calls_in_flight=0)
            budget.record(CALL)
            calls += 1
    assert calls == 10
    assert refused.value.exit_code == 75
    assert "tokens" in str(refused.value)

    crowded = Budget(BudgetLimits(max_tokens=1000))
    for _ in range(5):
        crowded.record(CALL)
    crowded.require(calls_in_flight=4)
    with pytest.raises(BudgetSpentError):
        crowded.require(calls_in_flight=5)


def test_earlier_runs_count() -> None:
    budget = Budget(BudgetLimits(max_tokens=1000), prompt_tokens=900, completion_tokens=101)
    with pytest.raises(BudgetSpentError):
        budget.require(calls_in_flight=0)


def test_cost_is_counted_with_the_prices_of_both_kinds() -> None:
    prices = Prices(prompt_per_million=2.0, completion_per_million=10.0)
    budget = Budget(BudgetLimits(max_cost=0.001, prices=prices))
    budget.record(CALL)
    assert budget.cost == pytest.approx(90 * 2e-6 + 10 * 10e-6)
    for _ in range(2):
        budget.require(calls_in_flight=0)
        budget.record(CALL)
    with pytest.raises(BudgetSpentError, match="cost"):
        budget.require(calls_in_flight=0)


def test_a_cost_limit_without_prices_is_refused_when_made() -> None:
    with pytest.raises(ValueError, match="prices"):
        Budget(BudgetLimits(max_cost=1.0))


def test_an_endpoint_that_reports_no_usage_never_spends() -> None:
    budget = Budget(BudgetLimits(max_tokens=1))
    for _ in range(10):
        budget.require(calls_in_flight=1)
        budget.record(Usage())


def test_retries_are_paid_for_by_successes() -> None:
    purse = RetryBudget()
    free = 0
    while purse.spend():
        free += 1
    assert free == RetryBudget.PURSE
    for _ in range(4):
        purse.record_success()
    assert not purse.spend()
    purse.record_success()
    assert purse.spend()
    for _ in range(100_000):
        purse.record_success()
    free = 0
    while purse.spend():
        free += 1
    assert free == RetryBudget.PURSE
