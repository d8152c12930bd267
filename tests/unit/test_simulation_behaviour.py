"""Behaviour, faults, latency and answers of the simulated endpoint, without a socket."""

from __future__ import annotations

import json
import random

import pytest

from bench.auto_servers import THRASHING
from narrun_async.errors import UsageError
from narrun_async.simulation.answers import answer_for, completion
from narrun_async.simulation.behaviour import Behaviour, Fault, LatencyModel, parse_fault_rates
from narrun_async.simulation.faults import draws_of, fault_for, outage_fault, text_digest
from narrun_async.simulation.latency import CountingRateLimit, RateLimit, service_time_s
from tests.unit.virtual_servers import Window, thrashing

TEXTS = [f"synthetic case {n}" for n in range(4_000)]
POSITIVE = "A neighbor said the partner struck his wife before; there was a restraining order."
NEGATIVE = "The resident fell from a ladder while cleaning the gutters."


def draw_faults(behaviour: Behaviour, *, attempt: int = 1) -> list[Fault | None]:
    return [
        fault_for(behaviour, text=text, digest=text_digest(behaviour.seed, text), attempt=attempt) for text in TEXTS
    ]


@pytest.mark.parametrize("fault", list(Fault))
def test_a_fault_rate_is_the_share_of_texts_that_meet_it(fault: Fault) -> None:
    n_met = draw_faults(Behaviour(fault_rates={fault: 0.1})).count(fault)
    assert 0.08 < n_met / len(TEXTS) < 0.12


def test_transient_faults_are_drawn_anew_for_every_attempt() -> None:
    behaviour = Behaviour(fault_rates={Fault.HTTP_500: 0.5})
    first, second = draw_faults(behaviour), draw_faults(behaviour, attempt=2)
    n_both = sum(a is not None and b is not None for a, b in zip(first, second, strict=True))
    assert 0.22 < n_both / len(TEXTS) < 0.28


@pytest.mark.parametrize("fault", [Fault.HTTP_400, Fault.MALFORMED, Fault.TRUNCATED, Fault.REFUSAL])
def test_lasting_faults_stay_with_their_text(fault: Fault) -> None:
    behaviour = Behaviour(fault_rates={fault: 0.3})
    assert draw_faults(behaviour) == draw_faults(behaviour, attempt=7)


def test_a_reminder_mends_its_share_of_malformed_answers_and_nothing_else() -> None:
    behaviour = Behaviour(fault_rates={Fault.MALFORMED: 0.5, Fault.REFUSAL: 0.5}, mend_rate=0.3)
    asked = [(text, text_digest(behaviour.seed, text)) for text in TEXTS]
    first = draw_faults(behaviour)
    second = [fault_for(behaviour, text=text, digest=digest, attempt=2, is_reminded=True) for text, digest in asked]
    changed = {(before, after) for before, after in zip(first, second, strict=True) if before != after}
    assert changed == {(Fault.MALFORMED, None)}
    assert 0.26 < 1 - second.count(Fault.MALFORMED) / first.count(Fault.MALFORMED) < 0.34


@pytest.mark.parametrize(
    ("enough_tokens", "token_limit", "fault"),
    [
        (None, None, Fault.TRUNCATED),
        (None, 10**6, Fault.TRUNCATED),
        (400, 399, Fault.TRUNCATED),
        (400, 400, None),
        (400, None, None),
    ],
)
def test_an_answer_is_cut_short_only_where_the_request_allows_too_few_tokens(
    enough_tokens: int | None, token_limit: int | None, fault: Fault | None
) -> None:
    behaviour = Behaviour(always={"x": "truncated"}, enough_tokens=enough_tokens)
    assert fault_for(behaviour, text="x", digest=b"\0" * 32, attempt=1, token_limit=token_limit) is fault


def test_another_seed_draws_other_faults() -> None:
    rates = {Fault.MALFORMED: 0.3}
    assert draw_faults(Behaviour(seed=1, fault_rates=rates)) != draw_faults(Behaviour(seed=2, fault_rates=rates))


def test_the_rate_of_one_fault_does_not_move_another() -> None:
    alone = draw_faults(Behaviour(fault_rates={Fault.REFUSAL: 0.1}))
    beside = draw_faults(Behaviour(fault_rates={Fault.REFUSAL: 0.1, Fault.HTTP_500: 0.4}))
    assert all(b in (a, Fault.HTTP_500) for a, b in zip(alone, beside, strict=True))


def test_a_marked_text_always_meets_its_fault() -> None:
    behaviour = Behaviour(always={"case 17": "http_500"})
    met = [fault_for(behaviour, text="synthetic case 17", digest=b"\0" * 32, attempt=n) for n in range(1, 50)]
    assert met == [Fault.HTTP_500] * 49


def test_only_a_rate_of_one_is_an_outage() -> None:
    assert outage_fault(Behaviour(fault_rates={"http_503": 0.999})) is None
    assert outage_fault(Behaviour(fault_rates={"http_503": 1.0})) is Fault.HTTP_503
    assert outage_fault(Behaviour(fault_rates={"malformed": 1.0})) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"latency_ms": -1},
        {"latency_ms": float("nan")},
        {"latency_ms": "fast"},
        {"latency_model": "quantum"},
        {"flip_rate": 1.5},
        {"mend_rate": -0.1},
        {"enough_tokens": 0},
        {"fault_rates": {"http_500": 2}},
        {"fault_rates": {"http_599": 0.1}},
        {"always": {"x": "explode"}},
        {"response_formats": {"json_object": "explode"}},
        {"slots": 0},
        {"requests_per_s": 0},
        {"refused_calls_count": "yes"},
        {"thrash_above": 0},
        {"thrash_above": "many"},
        {"thrash_slowdown": 0.5},
        {"thrash_slowdown": float("nan")},
        {"speed": 3},
    ],
)
def test_a_knob_that_makes_no_sense_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Behaviour().changed(changes)


def test_changes_leave_the_other_knobs_alone() -> None:
    changed = Behaviour(seed=5, latency_ms=10).changed({"latency_ms": 20, "known_models": ["a"]})
    assert changed == Behaviour(seed=5, latency_ms=20, known_models=("a",))


def test_fault_rates_are_read_as_they_stand_on_a_command_line() -> None:
    assert parse_fault_rates(["http_500=0.02", "timeout=1"]) == {Fault.HTTP_500: 0.02, Fault.TIMEOUT: 1.0}


@pytest.mark.parametrize("text", ["http_500", "http_500=", "http_500=2", "http_999=0.1", "=0.1", "http_500=nan"])
def test_a_fault_rate_that_cannot_be_read_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        parse_fault_rates([text])


def test_fixed_latency_lies_within_its_spread() -> None:
    behaviour = Behaviour(latency_ms=100, latency_spread=0.5)
    assert [service_time_s(behaviour, share=share, in_flight=50) for share in (0, 0.5, 1)] == pytest.approx(
        [0.05, 0.1, 0.15]
    )


def test_batching_throughput_climbs_towards_its_limit() -> None:
    behaviour = Behaviour(latency_model=LatencyModel.BATCHING, latency_ms=100, batch_slowdown=0.1, latency_spread=0)
    rates = [n / service_time_s(behaviour, share=0.5, in_flight=n) for n in (1, 4, 16, 64, 256)]
    assert rates == sorted(rates)
    assert rates[0] == pytest.approx(10)
    assert 90 < rates[-1] < 100


def test_a_rate_limit_lets_a_seconds_worth_through_and_then_names_the_wait() -> None:
    limit = RateLimit()
    assert [limit.wait_s(10, now_s=100.0) for _ in range(10)] == [0] * 10
    assert limit.wait_s(10, now_s=100.0) == 1
    assert limit.wait_s(10, now_s=100.05) == 1
    assert limit.wait_s(10, now_s=100.11) == 0


def thrashing_behaviour() -> Behaviour:
    """The server of the benchmark, with answers that take ten times as long."""
    return Behaviour(latency_ms=1010, latency_spread=0, **THRASHING)


def test_memory_that_thrashes_is_the_one_of_the_virtual_servers() -> None:
    behaviour = thrashing_behaviour()
    for n in range(1, 513):
        assert service_time_s(behaviour, share=0.5, in_flight=n) == pytest.approx(1 / thrashing(n))


def test_throughput_falls_beyond_what_memory_holds_and_stays_there() -> None:
    behaviour = thrashing_behaviour()
    rates = {n: n / service_time_s(behaviour, share=0.5, in_flight=n) for n in (8, 16, 24, 25, 64, 512)}
    assert rates[8] < rates[16] < rates[24]
    assert rates[25] == pytest.approx(rates[24] / behaviour.thrash_slowdown)
    assert rates[25] == pytest.approx(rates[64]) == pytest.approx(rates[512])


def test_who_does_not_wait_is_never_let_in_where_refused_calls_count() -> None:
    limit = CountingRateLimit()
    assert [limit.wait_s(2, now_s=50.0), limit.wait_s(2, now_s=50.1)] == [0, 0]
    assert all(limit.wait_s(2, now_s=50 + 0.4 * n) == 1 for n in range(1, 100))
    assert limit.wait_s(2, now_s=90.61) == 0


def test_less_than_one_call_a_second_is_one_in_its_time() -> None:
    limit = CountingRateLimit()
    assert limit.wait_s(0.1, now_s=3.0) == 0
    assert limit.wait_s(0.1, now_s=11.0) == 10
    assert limit.wait_s(0.1, now_s=20.9) == 10
    assert limit.wait_s(0.1, now_s=30.9) == 0


def test_the_counting_limit_admits_what_the_virtual_one_admits() -> None:
    rng = random.Random(7)
    for rate in (1, 2, 10):
        limit, window = CountingRateLimit(), Window(rate, 1.0, counts_refused=True)
        now = 0.0
        verdicts = []
        for _ in range(3_000):
            now += rng.expovariate(rate)
            verdicts.append((limit.wait_s(rate, now_s=now) == 0, window.admit(now) is None))
        assert all(ours == virtual for ours, virtual in verdicts)
        assert 100 < sum(ours for ours, _ in verdicts) < 2_900


def answers(text: str, *, flip_rate: float = 0.0) -> list[str]:
    contents = [answer_for(text, draws_of(text_digest(seed, text)), flip_rate=flip_rate).content for seed in range(400)]
    return [content for content in contents if content is not None]


def object_in(content: str) -> dict[str, object]:
    found = json.loads(content[content.index("{") : content.rindex("}") + 1])
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(("text", "detected"), [(POSITIVE, True), (NEGATIVE, False)])
def test_answers_follow_the_keyword_rule_whatever_their_form(text: str, detected: bool) -> None:
    for content in answers(text):
        verdict = object_in(content)
        assert verdict["detected"] is detected
        assert isinstance(verdict["confidence"], float) and 0 <= verdict["confidence"] <= 1
        assert "imulated" in str(verdict["rationale"])


def test_answers_come_in_the_forms_that_models_use() -> None:
    contents = answers(POSITIVE)
    plain = [content for content in contents if content.startswith("{")]
    assert 0.7 < len(plain) / len(contents) < 0.95
    for mark in ("```json", "<|channel|>final", "Here is"):
        assert any(mark in content for content in contents)
    assert any(isinstance(object_in(content)["indicators"], str) for content in contents)


def test_a_template_that_speaks_of_violence_is_not_taken_for_a_narrative() -> None:
    untagged = f"Does this account describe intimate partner violence?\n\n{NEGATIVE}"
    tagged = f"Is it intimate partner violence, or a restraining order, or what else? <narrative>{NEGATIVE}</narrative>"
    for text in (untagged, tagged):
        assert not any(object_in(content)["detected"] for content in answers(text))


def test_flips_are_few_and_seeded() -> None:
    flipped = [object_in(content)["detected"] for content in answers(NEGATIVE, flip_rate=0.1)]
    assert 0.05 < flipped.count(True) / len(flipped) < 0.16
    assert answers(NEGATIVE, flip_rate=0.1) == answers(NEGATIVE, flip_rate=0.1)


def test_a_truncated_answer_says_so_and_is_no_json() -> None:
    draws = draws_of(text_digest(0, POSITIVE))
    answer = answer_for(POSITIVE, draws, flip_rate=0, fault=Fault.TRUNCATED)
    assert answer.finish_reason == "length"
    with pytest.raises(ValueError):
        json.loads(answer.content or "")


@pytest.mark.parametrize("fault", [None, Fault.MALFORMED, Fault.TRUNCATED, Fault.REFUSAL])
def test_every_answer_is_wrapped_in_a_whole_completion(fault: Fault | None) -> None:
    answer = answer_for(POSITIVE, draws_of(text_digest(3, POSITIVE)), flip_rate=0, fault=fault)
    body = json.loads(completion(answer, call_id="c-1", created=7, model='m"x', prompt_chars=400, n_messages=2))
    choice = body["choices"][0]
    assert body["model"] == 'm"x'
    assert body["system_fingerprint"] == "simulated"
    assert choice["message"]["content"] == answer.content
    assert choice["message"]["refusal"] == answer.refusal
    assert choice["finish_reason"] == answer.finish_reason
    usage = body["usage"]
    assert usage["prompt_tokens"] == 108
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
