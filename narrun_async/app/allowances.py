"""Reads off the operational settings what the limits of an endpoint are, what may be spent, and how to say so."""

from __future__ import annotations

from collections.abc import Sequence

from narrun_async.config import OperationalSettings
from narrun_async.limits import Budget, BudgetLimits, LimitSettings
from narrun_async.models import Experiment, Prices
from narrun_async.ports import ResultStore


def limit_settings(operational: OperationalSettings, *, auto_means: int | None = None) -> LimitSettings:
    """The limits of the endpoint, as the configuration gives them.

    :param auto_means: a fixed number of calls in flight in place of `auto`
    """
    return LimitSettings(
        concurrency=auto_means if operational.concurrency == "auto" else operational.concurrency,
        max_concurrency=operational.max_concurrency,
        max_wait_s=operational.max_wait_s,
        rpm=operational.rpm,
        tpm=operational.tpm,
    )


def budget_limits(operational: OperationalSettings) -> BudgetLimits:
    """What the experiment may spend."""
    prices = operational.prices
    return BudgetLimits(
        max_tokens=operational.max_tokens_total,
        max_cost=operational.max_cost,
        prices=None
        if prices is None
        else Prices(prompt_per_million=prices.prompt_per_million, completion_per_million=prices.completion_per_million),
    )


async def open_budget(
    store: ResultStore, experiments: Sequence[Experiment], operational: OperationalSettings
) -> Budget:
    """What may still be spent on these experiments together: what their earlier calls took counts."""
    spent = [await store.sum_tokens(experiment.experiment_id) for experiment in experiments]
    prompt_tokens, completion_tokens = (sum(tokens) for tokens in zip(*spent, strict=True))
    return Budget(budget_limits(operational), prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)


def pace_words(operational: OperationalSettings) -> str:
    """How fast a run may go, for people."""
    if operational.concurrency == "auto":
        words = f"as many calls at a time as the endpoint serves best, {operational.max_concurrency} at most"
    else:
        words = f"{operational.concurrency} calls at a time"
    rates = [
        f"{rate:g} {unit}/min" for rate, unit in ((operational.rpm, "requests"), (operational.tpm, "tokens")) if rate
    ]
    return ", ".join([words, *rates])
