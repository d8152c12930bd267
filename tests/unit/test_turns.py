"""Promises of the turns: the latest of all limits holds, a limit that has gone holds nobody, and no header harms."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narrun_async.limits.turns import ANSWERS_TO_LOOK_AT, FASTEST_PER_S, SLOWEST_PER_S, SendTurns
from narrun_async.models import Usage

BODY_BYTES = 4000  # a thousand tokens, by the rule of thumb
CALL = Usage(prompt_tokens=90, completion_tokens=10)


def turns(*, rpm: float | None = None, tpm: float | None = None) -> SendTurns:
    return SendTurns(rpm=rpm, tpm=tpm, now=0.0)


def send(one: SendTurns, now: float) -> float:
    """Wait as told, take, and say when that was."""
    now += one.delay_s(BODY_BYTES, now=now)
    one.take(BODY_BYTES, now=now)
    return now


def send_many(one: SendTurns, count: int) -> list[float]:
    now, sent = 0.0, []
    for _ in range(count):
        now = send(one, now)
        sent.append(now)
    return sent


def quota(unit: str, *, limit: str | None, remaining: str, reset: str) -> dict[str, str]:
    words = {"limit": limit, "remaining": remaining, "reset": reset}
    return {f"x-ratelimit-{word}-{unit}": text for word, text in words.items() if text is not None}


def test_without_limits_turns_are_free_and_cost_nothing() -> None:
    free = turns()
    assert free.are_free
    assert (free.delay_s(BODY_BYTES, now=0.0), free.take(BODY_BYTES, now=0.0)) == (0.0, 0.0)


@pytest.mark.parametrize(("rpm", "tpm"), [(60, None), (None, 600_000)])
def test_a_limit_of_the_user_is_a_turn(rpm: float | None, tpm: float | None) -> None:
    assert not turns(rpm=rpm, tpm=tpm).are_free


def test_asking_takes_nothing() -> None:
    asked = turns(rpm=60, tpm=6000)
    asked.set_pace(1.0)
    assert [asked.delay_s(BODY_BYTES, now=0.0) for _ in range(3)] == [0.0, 0.0, 0.0]


def test_a_pace_spaces_calls_and_goes_as_it_came() -> None:
    paced = turns()
    paced.set_pace(4.0)
    assert send_many(paced, 4) == pytest.approx([0.0, 0.25, 0.5, 0.75], abs=0.03)
    paced.set_pace(None)
    assert paced.are_free
    assert paced.delay_s(BODY_BYTES, now=0.75) == 0.0


def test_telling_the_same_pace_again_gives_no_call_away() -> None:
    paced = turns()
    paced.set_pace(0.5)
    paced.take(BODY_BYTES, now=0.0)
    paced.set_pace(0.5)
    assert paced.delay_s(BODY_BYTES, now=0.0) == pytest.approx(2.0, abs=0.03)


def test_the_slowest_limit_decides() -> None:
    slow_requests = turns(rpm=30, tpm=10_000_000)
    slow_requests.set_pace(10.0)
    assert send_many(slow_requests, 3) == pytest.approx([0.0, 2.0, 4.0], abs=0.03)
    slow_tokens = turns(rpm=60_000, tpm=60_000)
    assert send_many(slow_tokens, 3) == pytest.approx([0.0, 1.0, 2.0], abs=0.03)
    slow_pace = turns(rpm=60_000)
    slow_pace.set_pace(0.25)
    assert send_many(slow_pace, 3) == pytest.approx([0.0, 4.0, 8.0], abs=0.03)


def test_tokens_that_were_set_aside_and_not_used_let_the_next_call_go_earlier() -> None:
    limited = turns(tpm=60_000)
    taken = limited.take(BODY_BYTES, now=0.0)
    assert taken == 1000
    assert limited.delay_s(BODY_BYTES, now=0.0) == pytest.approx(1.0)
    limited.settle(taken, CALL, now=0.0)
    assert limited.delay_s(BODY_BYTES, now=0.0) == 0.0
    assert limited.take(BODY_BYTES, now=0.0) == 100  # the estimate follows what calls really use


def test_an_answer_that_tells_no_usage_settles_nothing() -> None:
    limited = turns(tpm=60_000)
    taken = limited.take(BODY_BYTES, now=0.0)
    limited.settle(taken, Usage(), now=0.0)
    assert limited.delay_s(BODY_BYTES, now=0.0) == pytest.approx(1.0)


# --- the endpoint's own quota ----------------------------------------------------------------------------------------


def test_a_quota_that_runs_out_slows_calls_to_its_refill_until_there_is_more_than_is_in_flight() -> None:
    told = turns()
    told.learn(quota("requests", limit="100", remaining="8", reset="46s"), in_flight=8)
    assert send_many(told, 3) == pytest.approx([0.0, 0.5, 1.0], abs=0.05)
    told.learn(quota("requests", limit="100", remaining="9", reset="46s"), in_flight=8)
    assert told.are_free


def test_a_quota_of_tokens_counts_what_calls_use() -> None:
    told = turns()
    told.settle(0.0, CALL, now=0.0)
    plenty = quota("tokens", limit="10000", remaining="801", reset="10s")
    told.learn(plenty, in_flight=8)
    assert told.are_free
    told.learn(quota("tokens", limit="10000", remaining="800", reset="92s"), in_flight=8)
    assert send_many(told, 3) == pytest.approx([0.0, 1.0, 2.0], abs=0.05)  # 100 tokens a second, 100 a call


def test_a_quota_of_tokens_says_nothing_while_nobody_knows_what_a_call_uses() -> None:
    told = turns()
    told.learn(quota("tokens", limit="10", remaining="0", reset="60s"), in_flight=8)
    assert told.are_free


def test_the_slower_of_two_quotas_decides_and_each_goes_by_itself() -> None:
    told = turns()
    told.settle(0.0, CALL, now=0.0)
    requests = quota("requests", limit="10", remaining="0", reset="10s")
    told.learn(requests | quota("tokens", limit="100", remaining="0", reset="4s"), in_flight=2)
    assert send_many(told, 3) == pytest.approx([0.0, 4.0, 8.0], abs=0.05)
    told.learn(requests | quota("tokens", limit="1000", remaining="999", reset="4s"), in_flight=2)
    now = 100.0
    told.take(BODY_BYTES, now=now)
    assert told.delay_s(BODY_BYTES, now=now) == pytest.approx(1.0, abs=0.03)


def test_an_endpoint_that_stops_speaking_of_its_quota_holds_nobody() -> None:
    told = turns()
    told.learn(quota("requests", limit="10", remaining="0", reset="60s"), in_flight=4)
    assert not told.are_free
    told.learn({}, in_flight=4)
    assert told.are_free


def test_after_some_silent_answers_nobody_looks_any_more() -> None:
    silent = turns()
    low = quota("requests", limit="10", remaining="0", reset="60s")
    for _ in range(ANSWERS_TO_LOOK_AT - 1):
        silent.learn({}, in_flight=4)
    silent.learn(low, in_flight=4)
    assert not silent.are_free
    for _ in range(ANSWERS_TO_LOOK_AT):
        silent.learn({}, in_flight=4)
    silent.learn(low, in_flight=4)
    assert silent.are_free


@pytest.mark.parametrize("reset", ["999999999999", "1000000h0m0s", "1e300"])
def test_an_absurd_reset_does_not_stop_a_run_for_good(reset: str) -> None:
    told = turns()
    told.learn(quota("requests", limit=None, remaining="0", reset=reset), in_flight=4)
    told.take(BODY_BYTES, now=0.0)
    assert told.delay_s(BODY_BYTES, now=0.0) <= 1 / SLOWEST_PER_S


@pytest.mark.parametrize("reset", ["1e-300", "5e-324", "0.000000001s"])
def test_a_reset_of_next_to_nothing_is_no_error_and_no_limit_that_matters(reset: str) -> None:
    told = turns()
    told.learn(quota("requests", limit="999999999999999", remaining="0", reset=reset), in_flight=4)
    told.take(BODY_BYTES, now=0.0)
    assert told.delay_s(BODY_BYTES, now=0.0) <= 1 / FASTEST_PER_S


_WORDS = st.one_of(
    st.none(),
    st.text(max_size=12),
    st.integers(-10, 10**18).map(str),
    st.floats(allow_nan=True, allow_infinity=True).map(str),
    st.sampled_from(["1s", "20ms", "6m0s", "0", "1e-320"]),
)


@given(answers=st.lists(st.tuples(_WORDS, _WORDS, _WORDS, st.sampled_from(["requests", "tokens"])), max_size=8))
def test_whatever_an_endpoint_says_of_its_quota_the_next_call_goes_within_ten_seconds(
    answers: list[tuple[str | None, str | None, str | None, str]],
) -> None:
    told = turns()
    told.settle(0.0, CALL, now=0.0)
    for limit, remaining, reset, unit in answers:
        words = {"limit": limit, "remaining": remaining, "reset": reset}
        headers = {f"x-ratelimit-{word}-{unit}": text for word, text in words.items() if text is not None}
        told.learn(headers, in_flight=4)
        told.take(BODY_BYTES, now=0.0)
        assert 0 <= told.delay_s(BODY_BYTES, now=60.0 * len(answers)) <= 1 / SLOWEST_PER_S
