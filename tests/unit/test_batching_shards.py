"""Promises of cutting and of spending: no file beyond a limit, no batch beyond a budget."""

from __future__ import annotations

import pytest

from narrun_async.batching.shards import MAX_BYTES, MAX_REQUESTS, ShardLimits
from narrun_async.batching.spending import Allowance, Spending, refuse_overspending
from narrun_async.errors import ExitCode, TemporaryError, UsageError
from narrun_async.models import Prices

PRICES = Prices(prompt_per_million=2.0, completion_per_million=10.0)
NOTHING = Spending(prompt_tokens=0, completion_tokens=0, n_answered=0, n_on_their_way=0)
#: 100 and 20 tokens a narrative
SOME = Spending(prompt_tokens=1000, completion_tokens=200, n_answered=10, n_on_their_way=0)


def test_the_defaults_are_what_providers_take_at_most() -> None:
    limits = ShardLimits()
    assert (limits.max_requests, limits.max_bytes) == (MAX_REQUESTS, MAX_BYTES) == (50_000, 200_000_000)


def test_a_file_takes_requests_up_to_either_limit_and_not_one_more() -> None:
    limits = ShardLimits(max_requests=3, max_bytes=1_000_000)
    assert limits.takes(1_000_000, n_requests_before=0, n_bytes_before=0)
    assert not limits.takes(1_000_001, n_requests_before=0, n_bytes_before=0)
    assert limits.takes(1, n_requests_before=2, n_bytes_before=999_999)
    assert not limits.takes(1, n_requests_before=3, n_bytes_before=0)
    assert not limits.takes(2, n_requests_before=1, n_bytes_before=999_999)


@pytest.mark.parametrize(
    "wanted",
    [{"max_requests": 0}, {"max_requests": 50_001}, {"max_bytes": 999_999}, {"max_bytes": 200_000_001}],
)
def test_limits_that_no_provider_takes_are_refused(wanted: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=next(iter(wanted)).replace("_", "-")):
        ShardLimits(**wanted)


def refusal(spending: Spending, *, n_requests: int = 100, n_bytes: int = 40_000, **allowed: object) -> str | None:
    allowance = Allowance(**{"max_tokens": None, "max_cost": None, "prices": PRICES} | allowed)  # type: ignore[arg-type]
    try:
        refuse_overspending(allowance, spending, n_requests=n_requests, n_bytes=n_bytes)
    except TemporaryError as error:
        return str(error)
    return None


def test_without_a_limit_every_batch_may_go() -> None:
    assert refusal(SOME, n_requests=10**6) is None


def test_what_was_used_so_far_foretells_what_a_batch_will_use() -> None:
    # 1,200 tokens used, 12,000 expected of 100 requests
    assert refusal(SOME, max_tokens=13_200) is None
    assert "1.32e+04 tokens" in (refusal(SOME, max_tokens=13_199) or "")
    assert TemporaryError.exit_code is ExitCode.TEMPORARY


def test_batches_on_their_way_count_before_their_usage_is_known() -> None:
    on_their_way = Spending(prompt_tokens=1000, completion_tokens=200, n_answered=10, n_on_their_way=50)
    assert refusal(on_their_way, max_tokens=13_200) is not None
    assert refusal(on_their_way, max_tokens=19_200) is None


def test_a_cost_is_counted_at_the_prices_of_the_user() -> None:
    # 11,000 prompt and 2,200 completion tokens: 0.022 + 0.022
    assert refusal(SOME, max_cost=0.0441) is None
    assert "cost" in (refusal(SOME, max_cost=0.0439) or "")


def test_before_anything_was_answered_the_length_of_the_prompts_must_do() -> None:
    # 40,000 bytes are some 10,000 tokens
    assert refusal(NOTHING, max_tokens=10_000) is None
    assert refusal(NOTHING, max_tokens=9_999) is not None
