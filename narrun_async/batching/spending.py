"""Owns what a batch is expected to use before it is sent, and whether a budget has room for it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from narrun_async.errors import TemporaryError
from narrun_async.models import Prices

#: English text, in common tokenizers
_BYTES_PER_TOKEN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """What an experiment has used so far, and what is on its way."""

    prompt_tokens: int
    completion_tokens: int
    #: narratives that have rows: what was used divided by them is what a further one is expected to use
    n_answered: int
    #: requests in batches that the provider has, and whose usage is not known yet
    n_on_their_way: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What may be spent on an experiment, runs and batches together; None: no limit."""

    max_tokens: int | None
    max_cost: float | None
    prices: Prices | None


def refuse_overspending(allowance: Allowance, spending: Spending, *, n_requests: int, n_bytes: int) -> None:
    """:raises TemporaryError: with this batch, the experiment would probably use more than it may

    Where nothing was answered yet, only the prompts can be foretold, by their length.
    """
    prompt, completion = _expected(spending, n_requests=n_requests, n_bytes=n_bytes)
    prompt, completion = prompt + spending.prompt_tokens, completion + spending.completion_tokens
    if allowance.max_tokens is not None and prompt + completion > allowance.max_tokens:
        raise _overspent("tokens", limit=allowance.max_tokens, expected=prompt + completion)
    if allowance.max_cost is not None and allowance.prices is not None:
        cost = allowance.prices.cost(prompt_tokens=round(prompt), completion_tokens=round(completion))
        if cost > allowance.max_cost:
            raise _overspent("cost", limit=allowance.max_cost, expected=cost)


def _expected(spending: Spending, *, n_requests: int, n_bytes: int) -> tuple[float, float]:
    """Prompt and completion tokens of this batch and of those on their way."""
    if not spending.n_answered:
        per_request = n_bytes / _BYTES_PER_TOKEN / max(n_requests, 1)
        return per_request * (n_requests + spending.n_on_their_way), 0.0
    times = (n_requests + spending.n_on_their_way) / spending.n_answered
    return spending.prompt_tokens * times, spending.completion_tokens * times


def _overspent(what: str, *, limit: float, expected: float) -> TemporaryError:
    return TemporaryError(
        f"with this batch the experiment would use about {expected:,.4g} {what}, and {limit:,.10g} are allowed",
        advice="allow more, or export smaller batches (`narrun batch cancel`, then `batch export --max-requests`)",
    )
