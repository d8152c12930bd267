"""Owns what an experiment may spend, and how much of the calls may be retries. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from narrun_async.errors import BudgetSpentError
from narrun_async.models import Prices, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetLimits:
    """What may be spent on an experiment, all of its runs together; None: no limit."""

    max_tokens: int | None = None
    max_cost: float | None = None
    #: needed where `max_cost` is set
    prices: Prices | None = None


class Budget:
    """Counts what was spent, and refuses a call that would probably go beyond the limits.

    A call is expected to use what calls used on average so far, so a budget is met to within about one call, not
    overrun by everything that is in flight.

    :param prompt_tokens: spent by earlier runs of the experiment
    :param completion_tokens: likewise
    """

    def __init__(self, limits: BudgetLimits, *, prompt_tokens: int = 0, completion_tokens: int = 0) -> None:
        if limits.max_cost is not None and limits.prices is None:
            raise ValueError("a limit of the cost needs prices")
        self._limits = limits
        self._prompt_tokens = prompt_tokens
        self._completion_tokens = completion_tokens
        self._n_calls = 0
        self._spent_here_prompt = 0
        self._spent_here_completion = 0

    @property
    def is_limited(self) -> bool:
        return self._limits.max_tokens is not None or self._limits.max_cost is not None

    def record(self, usage: Usage) -> None:
        """A call has been answered."""
        self._n_calls += 1
        self._spent_here_prompt += usage.prompt_tokens or 0
        self._spent_here_completion += usage.completion_tokens or 0

    def require(self, *, calls_in_flight: int) -> None:
        """May one more call be made beside those in flight?

        :raises BudgetSpentError: what is spent, in flight and about to be sent would pass a limit
        """
        if not self.is_limited:
            return
        expected = (calls_in_flight + 1) / self._n_calls if self._n_calls else 0.0
        prompt = self._prompt_tokens + self._spent_here_prompt * (1 + expected)
        completion = self._completion_tokens + self._spent_here_completion * (1 + expected)
        limits = self._limits
        if limits.max_tokens is not None and prompt + completion > limits.max_tokens:
            raise BudgetSpentError(what="tokens", limit=limits.max_tokens, spent=self.tokens)
        if limits.max_cost is not None and limits.prices is not None:
            cost = limits.prices.cost(prompt_tokens=round(prompt), completion_tokens=round(completion))
            if cost > limits.max_cost:
                raise BudgetSpentError(what="cost", limit=limits.max_cost, spent=self.cost or 0.0)

    @property
    def tokens(self) -> int:
        """Spent so far, by all runs together."""
        return self._prompt_tokens + self._completion_tokens + self._spent_here_prompt + self._spent_here_completion

    @property
    def cost(self) -> float | None:
        """Spent so far, by all runs together; None without prices."""
        if self._limits.prices is None:
            return None
        return self._limits.prices.cost(
            prompt_tokens=self._prompt_tokens + self._spent_here_prompt,
            completion_tokens=self._completion_tokens + self._spent_here_completion,
        )


class RetryBudget:
    """Keeps retries a small share of the calls: a sick endpoint gets its items deferred, not hammered.

    Each success pays for a part of a retry, up to a purse that covers ordinary hiccups. Source of the idea: the retry
    token bucket of the AWS SDKs ("standard" retry mode).
    """

    #: retries that are free at the start, and the most that can be saved up
    PURSE = 100.0
    #: earned by each success: in the long run one retry for five successes
    EARNED = 0.2

    def __init__(self) -> None:
        self._purse = self.PURSE

    def record_success(self) -> None:
        if self._purse < self.PURSE:
            self._purse = min(self.PURSE, self._purse + self.EARNED)

    def spend(self) -> bool:
        """Pay for one retry; False when there is nothing left, and the item had better wait for the next pass."""
        if self._purse < 1.0:
            return False
        self._purse -= 1.0
        return True
