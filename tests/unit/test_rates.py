"""Allowances and the endpoint's own words about its quota, in virtual time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narrun_async.limits.rates import Allowance, Quota, TokenEstimate, parse_duration_s, read_quota


def send(allowance: Allowance, amount: float, now: float) -> float:
    """Wait as told, take, and say when that was."""
    now += allowance.delay_s(amount, now=now)
    allowance.take(amount, now=now)
    return now


def test_sixty_a_minute_lets_one_go_each_second() -> None:
    allowance = Allowance(60, now=0.0)
    now, sent = 0.0, []
    for _ in range(4):
        now = send(allowance, 1, now)
        sent.append(now)
    assert sent == pytest.approx([0.0, 1.0, 2.0, 3.0])
    assert send(allowance, 1, 10.0) == 10.0


def test_asking_takes_nothing() -> None:
    allowance = Allowance(60, now=0.0)
    assert [allowance.delay_s(1, now=0.0) for _ in range(5)] == [0.0] * 5


@given(per_minute=st.floats(1, 100_000), amounts=st.lists(st.floats(0.1, 50), min_size=1, max_size=200))
def test_no_minute_ever_sees_more_than_the_allowance_one_burst_and_one_call(
    per_minute: float, amounts: list[float]
) -> None:
    allowance = Allowance(per_minute, now=0.0)
    now, sent = 0.0, []
    for amount in amounts:
        now = send(allowance, amount, now)
        sent.append((now, amount))
    burst = max(1.0, per_minute / 60)
    for start, _ in sent:
        within = sum(amount for at, amount in sent if start <= at < start + 60)
        assert within <= per_minute + burst + max(amounts) + 1e-6


def test_what_was_taken_and_not_used_comes_back() -> None:
    allowance = Allowance(60, now=0.0)
    allowance.take(10, now=0.0)
    allowance.settle(taken=10, used=1, now=0.0)
    assert allowance.delay_s(1, now=0.0) == pytest.approx(1.0)


def test_what_was_used_beyond_that_is_waited_off() -> None:
    allowance = Allowance(60, now=0.0)
    allowance.take(1, now=0.0)
    allowance.settle(taken=1, used=31, now=0.0)
    assert allowance.delay_s(1, now=0.0) == pytest.approx(31.0)


def test_a_call_larger_than_the_burst_can_be_made_all_the_same() -> None:
    allowance = Allowance(60, now=0.0)
    assert send(allowance, 500, 0.0) == 0.0
    assert allowance.delay_s(1, now=0.0) == pytest.approx(500.0)


def test_a_clock_that_steps_back_gives_nothing_twice() -> None:
    allowance = Allowance(60, now=100.0)
    allowance.take(2, now=100.0)
    allowance.delay_s(1, now=50.0)
    assert allowance.delay_s(1, now=100.0) == pytest.approx(2.0)


@pytest.mark.parametrize("wrong", [0, -1, float("inf"), float("nan")])
def test_an_allowance_of_nothing_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Allowance(wrong, now=0.0)


def test_the_estimate_begins_with_the_length_and_follows_what_calls_use() -> None:
    estimate = TokenEstimate()
    assert estimate.tokens_for(4000) == 1000
    estimate.record(500)
    assert estimate.tokens_for(4000) == 500
    for _ in range(200):
        estimate.record(100)
    assert estimate.tokens_for(4000) == pytest.approx(100, abs=1)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("20ms", 0.02),
        ("1s", 1.0),
        ("1.5s", 1.5),
        ("6m0s", 360.0),
        ("1h2m3s", 3723.0),
        ("7", 7.0),
        ("0.25", 0.25),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("1e999", None),
        ("1_000", None),
        ("-", None),
        ("s", None),
    ],
)
def test_durations_are_read_in_every_form_that_servers_use(text: str, seconds: float | None) -> None:
    assert parse_duration_s(text) == seconds


@given(st.text(max_size=30))
def test_no_header_makes_it_raise(text: str) -> None:
    headers = {f"x-ratelimit-{word}-requests": text for word in ("limit", "remaining", "reset")}
    read_quota(headers, "requests")


def _headers(limit: str, remaining: str, reset: str) -> dict[str, str]:
    words = {"limit": limit, "remaining": remaining, "reset": reset}
    return {f"x-ratelimit-{word}-tokens": text for word, text in words.items()}


def test_a_quota_refills_what_is_missing_until_its_reset() -> None:
    quota = read_quota(_headers("900", "300", "6s"), "tokens")
    assert quota == Quota(limit=900, remaining=300, reset_s=6.0)
    assert quota.refill_per_s() == 100.0


@pytest.mark.parametrize(
    ("limit", "remaining", "reset"),
    [("0", "0", "1s"), ("-1", "5", "1s"), ("10", "-1", "1s"), ("10", "5", "0"), ("10", "5", ""), ("10", "x", "1s")],
)
def test_numbers_that_are_not_positive_mean_unknown(limit: str, remaining: str, reset: str) -> None:
    assert read_quota(_headers(limit, remaining, reset), "tokens") is None


def test_nothing_left_is_known_and_not_unknown() -> None:
    assert read_quota(_headers("10", "0", "2s"), "tokens") == Quota(limit=10, remaining=0, reset_s=2.0)
