"""The arithmetic of `narrun estimate`."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narrun_async.metrics import SampledCall, extrapolate, spread_evenly
from narrun_async.models import (
    NO_USAGE,
    Attempt,
    Detection,
    ErrorCategory,
    Failure,
    NarrativeId,
    Outcome,
    Prices,
    Usage,
    WorkItem,
)
from narrun_async.operations.estimating import sampled_call


def call(duration_s: float, prompt: int | None = 1000, completion: int | None = 50) -> SampledCall:
    return SampledCall(duration_s=duration_s, prompt_tokens=prompt, completion_tokens=completion, is_error=False)


def test_a_narrative_that_was_asked_about_twice_took_both_calls() -> None:
    def attempt(narrative_id: int, duration_s: float, usage: Usage, category: ErrorCategory | None) -> Attempt:
        return Attempt(
            narrative_id=NarrativeId(narrative_id),
            started_at=datetime(2026, 1, 1, tzinfo=UTC),
            duration_s=duration_s,
            error_category=category,
            error_message=None,
            http_status=200 if usage != NO_USAGE else 500,
            charged=True,
            usage=usage,
        )

    bad, tokens = ErrorCategory.BAD_JSON, Usage(prompt_tokens=100, completion_tokens=7)
    undecided = [
        attempt(1, 2.0, tokens, bad),
        attempt(1, 64.0, NO_USAGE, ErrorCategory.SERVER_ERROR),
        attempt(2, 128.0, tokens, bad),
    ]
    item = WorkItem(
        narrative_id=NarrativeId(1),
        row_num=1,
        incident_id="a",
        narrative_type="cme",
        narrative_text="t",
        text_sha256=None,
        manual_flag_ind=None,
        manual_flag=None,
    )
    verdict = Detection(detected=True, confidence=None, parse_method="json+second_try")
    decided = Outcome(item=item, verdict=verdict, attempt=attempt(1, 3.0, tokens, None))
    both = SampledCall(duration_s=5.0, prompt_tokens=200, completion_tokens=14, is_error=False)
    assert sampled_call(decided, undecided) == both
    stands = Outcome(item=item, verdict=Failure(category=bad, message="m"), attempt=None)
    first = SampledCall(duration_s=2.0, prompt_tokens=100, completion_tokens=7, is_error=True)
    assert sampled_call(stands, undecided) == first
    assert sampled_call(stands, []) is None


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
