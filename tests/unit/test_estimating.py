"""The arithmetic of `narrun estimate`."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narrun_async.metrics import SampledCall, extrapolate, spread_evenly
from narrun_async.models import Prices


def call(duration_s: float, prompt: int | None = 1000, completion: int | None = 50) -> SampledCall:
    return SampledCall(duration_s=duration_s, prompt_tokens=prompt, completion_tokens=completion, is_error=False)


def test_means_are_multiplied_by_what_remains() -> None:
    prices = Prices(prompt_per_million=1.0, completion_per_million=10.0)
    estimate = extrapolate([call(4.0), call(6.0)], n_remaining=1000, concurrency=10, prices=prices)
    assert estimate.duration_s.middle == pytest.approx(5.0 * 1000 / 10)
    assert estimate.prompt_tokens is not None
    assert estimate.prompt_tokens.middle == 1_000_000
    assert estimate.cost is not None
    assert estimate.cost.middle == pytest.approx(1000 * (1000e-6 + 500e-6))


def test_the_interval_is_that_of_student() -> None:
    # mean 5, s = sqrt(2), k = 2: margin = 12.706 * sqrt(2) / sqrt(2)
    duration = extrapolate([call(4.0), call(6.0)], n_remaining=1, concurrency=1, prices=None).duration_s
    assert duration.high == pytest.approx(5 + 12.706)
    assert duration.low == 0.0


def test_one_call_says_nothing_about_the_spread() -> None:
    duration = extrapolate([call(4.0)], n_remaining=10, concurrency=1, prices=None).duration_s
    assert (duration.low, duration.middle, duration.high) == (0.0, 40.0, math.inf)


def test_an_endpoint_without_usage_gives_no_tokens_and_no_cost() -> None:
    prices = Prices(prompt_per_million=1.0, completion_per_million=1.0)
    estimate = extrapolate([call(1.0, None, None)] * 3, n_remaining=5, concurrency=2, prices=prices)
    assert estimate.prompt_tokens is estimate.completion_tokens is estimate.cost is None


def test_fewer_narratives_than_slots_take_one_round() -> None:
    estimate = extrapolate([call(2.0), call(2.0)], n_remaining=3, concurrency=100, prices=None)
    assert estimate.duration_s.middle == pytest.approx(2.0)


@given(n_remaining=st.integers(1, 10_000), k=st.integers(1, 50))
def test_the_sample_is_spread_over_the_whole_set_without_repeats(n_remaining: int, k: int) -> None:
    positions = spread_evenly(n_remaining, k)
    assert len(positions) == len(set(positions)) == min(k, n_remaining)
    assert all(0 <= position < n_remaining for position in positions)
    assert positions == sorted(positions)


@given(st.lists(st.floats(0.01, 1000), min_size=2, max_size=60))
def test_the_interval_holds_the_mean(durations: list[float]) -> None:
    duration = extrapolate([call(one) for one in durations], n_remaining=7, concurrency=1, prices=None).duration_s
    assert 0 <= duration.low <= duration.middle <= duration.high
