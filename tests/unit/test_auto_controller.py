"""`--concurrency auto` against servers in virtual time, and against any sequence of events."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narrun_async.limits.auto import AutoConcurrency, ChangeReason
from narrun_async.limits.pacing import PaceLearner, Pacer
from tests.unit.virtual_servers import (
    MACHINES,
    Bucket,
    Dice,
    Machine,
    Wave,
    Window,
    Workload,
    World,
    best_fixed,
    constant,
)

FORM = Workload()
REASONING = Workload(sigma=0.8)
UNEQUAL = Workload(sigma=1.2)


def complete(auto: AutoConcurrency, now: float, count: int, *, latency_s: float = 1.0) -> float:
    """Answers of a server on which every call takes equally long, however many there are. Returns the time after."""
    for _ in range(count):
        now += latency_s / auto.limit
        auto.on_completion(now, started=now - latency_s, completion_tokens=100, in_flight=auto.limit)
    return now


# --- servers that queue ----------------------------------------------------------------------------------------------


@pytest.mark.fault("N14")
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("work", [FORM, REASONING, UNEQUAL], ids=["form", "reasoning", "unequal"])
@pytest.mark.parametrize("name", ["batching GPU, 64 slots", "4 slots", "1 slot", "thrashes above 24"])
def test_reaches_nine_tenths_of_the_best_fixed_concurrency(name: str, work: Workload, seed: int) -> None:
    machine = MACHINES[name]
    _, best = best_fixed(machine, work, seed=seed, items=5_000, maximum=128)
    outcome = World(machine, work, seed=seed, maximum=128).run(items=5_000)
    assert outcome.completed == 5_000
    assert outcome.rate_per_s >= 0.90 * best


def test_one_slot_soon_has_no_more_than_two_calls() -> None:
    outcome = World(MACHINES["1 slot"], FORM, seed=1).run(items=150)
    assert outcome.auto is not None
    assert outcome.auto.limit <= 2


def test_a_thrashing_server_is_not_pushed_over_its_edge_again_and_again() -> None:
    outcome = World(MACHINES["thrashes above 24"], FORM, seed=1).run(items=20_000)
    over = [at for at, limit in outcome.limits if limit > 24]
    assert len(over) <= 7


def test_a_constant_answer_time_does_not_distort_the_measure() -> None:
    work = Workload(sigma=0, noise=0)
    _, best = best_fixed(MACHINES["4 slots"], work, seed=1, items=5_000, maximum=64)
    assert World(MACHINES["4 slots"], work, seed=1).run(items=5_000).rate_per_s >= 0.95 * best


def test_answers_that_tell_no_tokens_are_measured_in_completions() -> None:
    work = Workload(tells_tokens=False)
    _, best = best_fixed(MACHINES["batching GPU, 64 slots"], work, seed=1, items=5_000, maximum=128)
    assert (
        World(MACHINES["batching GPU, 64 slots"], work, seed=1, maximum=128).run(items=5_000).rate_per_s >= 0.9 * best
    )


# --- servers that refuse ---------------------------------------------------------------------------------------------

QUOTAS: dict[str, Callable[[], Bucket | Window]] = {
    "10/s bucket": lambda: Bucket(10, 10),
    "10/s bucket, says nothing": lambda: Bucket(10, 10, says_when=False),
    "10 in any second": lambda: Window(10, 1.0),
    "600 a minute, all at once": lambda: Window(600, 60.0, fixed=True),
    "2/s bucket": lambda: Bucket(2, 2),
    "2 in any second, refused calls count": lambda: Window(2, 1.0, counts_refused=True),
}


@pytest.mark.fault("N06")
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("mean_s", [0.2, 1.0])
@pytest.mark.parametrize("name", QUOTAS)
def test_uses_nine_tenths_of_the_permitted_rate_with_one_refusal_in_a_hundred(
    name: str, mean_s: float, seed: int
) -> None:
    quota = QUOTAS[name]()
    machine = Machine(slots=4096, speed=constant)
    outcome = World(machine, Workload(mean_s=mean_s), seed=seed, quota=quota).run(seconds=600)
    assert outcome.completed / 600 >= 0.90 * quota.rate_per_s
    assert outcome.refused_share <= 0.01


@pytest.mark.parametrize("retry_after_s", [3.0, None])
@pytest.mark.parametrize("in_flight", [128, 512])
def test_one_wave_of_refusals_does_not_stand_for_a_rate(in_flight: int, retry_after_s: float | None) -> None:
    wave = Wave((20, 22), retry_after_s=retry_after_s)
    world = World(Machine(slots=4096, speed=constant), Workload(sigma=0.0), seed=1, quota=wave, fixed=in_flight)
    outcome = world.run(seconds=60)
    back_at = min(at for at in outcome.finished_at if at > 22.5)
    # A server that names no time is met too early and refuses once more, with nothing accepted in between.
    share = 0.9 if retry_after_s else 0.7
    assert outcome.rate_between(back_at, back_at + 10) >= share * in_flight
    assert outcome.rate_between(back_at + 10, back_at + 20) >= 0.95 * in_flight


def test_a_minute_of_refusals_does_not_stand_for_a_rate() -> None:
    wave = Wave((20, 80), retry_after_s=2.0)
    world = World(Machine(slots=4096, speed=constant), FORM, seed=1, quota=wave, fixed=128)
    outcome = world.run(seconds=105)
    back_at = min(at for at in outcome.finished_at if at > 80.5)
    assert outcome.rate_between(back_at, back_at + 10) >= 0.68 * 128
    assert outcome.rate_between(back_at + 10, back_at + 20) >= 0.95 * 128


def test_what_is_accepted_from_one_wave_to_the_next_is_the_rate_of_a_quota() -> None:
    quota = Window(600, 60.0, fixed=True)
    world = World(Machine(slots=4096, speed=constant), FORM, seed=1, quota=quota, fixed=64)
    world.run(seconds=55)
    assert world.pace_per_s is not None
    assert world.pace_per_s >= 32  # a burst and one refusal: what was taken is all that is known
    world.run(seconds=125 - 55)
    assert world.pace_per_s == pytest.approx(10, rel=0.15)


@pytest.mark.parametrize(("share", "kept"), [(0.001, 0.95), (0.01, 0.9)])
@pytest.mark.parametrize("in_flight", [128, 512])
def test_a_few_refusals_among_many_accepted_calls_do_not_slow_a_run(in_flight: int, share: float, kept: float) -> None:
    quota = Dice(share, seed=1)
    world = World(Machine(slots=4096, speed=constant), FORM, seed=1, quota=quota, fixed=in_flight)
    outcome = world.run(seconds=180)
    assert outcome.rate_between(60, 180) >= kept * in_flight


@pytest.mark.parametrize("rate", [40, 100])
def test_a_quota_of_many_calls_is_not_taken_for_strays(rate: int) -> None:
    quota = Bucket(rate, rate)
    world = World(Machine(slots=4096, speed=constant), FORM, seed=1, quota=quota, fixed=128)
    outcome = world.run(seconds=600)
    assert outcome.completed / 600 >= 0.95 * rate
    assert outcome.refused_share <= 0.01


def test_a_permitted_rate_that_rises_is_found() -> None:
    quota = Bucket(2, 2)
    world = World(Machine(slots=4096, speed=constant), FORM, seed=1, quota=quota)
    world.run(seconds=600)
    quota.rate_per_s, quota._burst = 10, 10
    outcome = world.run(seconds=1_800)
    assert outcome.rate_between(1_800, 2_400) >= 9.0


def test_a_permitted_rate_that_falls_is_found_without_many_refusals() -> None:
    quota = Bucket(10, 10)
    world = World(Machine(slots=4096, speed=constant), FORM, seed=1, quota=quota)
    world.run(seconds=600)
    quota.rate_per_s, quota._burst = 2, 2
    outcome = world.run(seconds=600)
    assert outcome.rate_between(700, 1_200) >= 1.7
    assert outcome.refused_share <= 0.02


def test_one_wave_of_refusals_counts_once() -> None:
    auto = AutoConcurrency(now=0.0)
    now = complete(auto, 0.0, 40)
    assert auto.on_overload(now, call_started=now - 0.1) is not None
    pace = auto.pace_per_s
    for _ in range(20):
        assert auto.on_overload(now + 0.1, call_started=now - 0.05) is None
    assert auto.pace_per_s == pace


def test_a_refusal_leaves_the_limit_as_it_is() -> None:
    auto = AutoConcurrency(now=0.0)
    now = complete(auto, 0.0, 60)
    before = auto.limit
    auto.on_overload(now, call_started=now - 0.1)
    assert auto.limit == before


def test_an_hour_of_retry_after_neither_freezes_nor_feeds_the_pace() -> None:
    auto = AutoConcurrency(now=0.0)
    now = complete(auto, 0.0, 40)
    auto.on_overload(now, call_started=now - 0.1)
    pace = auto.pace_per_s
    assert pace is not None
    now += 3_600.0
    auto.on_completion(now + 1, started=now, completion_tokens=100, in_flight=1)
    assert auto.pace_per_s == pace  # an hour without calls has shown nothing
    sent, calls = now, 0
    while auto.pace_per_s == pace:
        sent, calls = sent + 1 / pace, calls + 1
        auto.on_completion(sent + 1, started=sent, completion_tokens=100, in_flight=2)
    assert calls <= max(3, 5 * pace + 1)  # five seconds of calls, or three calls, have


# --- trouble ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_minute_of_standstill_costs_no_concurrency(seed: int) -> None:
    machine = dataclasses.replace(MACHINES["batching GPU, 64 slots"], drift=((120.0, 0.0), (180.0, 1.0)))
    world = World(machine, Workload(deadline_s=20.0), seed=seed)
    world.run(seconds=120)
    auto = world.auto
    assert auto is not None
    before, done = auto.limit, world.outcome.completed
    outcome = world.run(seconds=90)
    world.run(items=max(1, done + 20 * 4 * before - outcome.completed))
    assert outcome.timeouts >= 5  # the standstill was noticed
    assert auto.limit >= 0.9 * before


def test_a_server_that_halves_its_speed_and_comes_back_keeps_its_throughput() -> None:
    machine = dataclasses.replace(MACHINES["batching GPU, 64 slots"], drift=((200.0, 0.5), (400.0, 1.0)))
    work = FORM
    outcome = World(machine, work, seed=1).run(seconds=600)
    fixed = World(machine, work, seed=1, fixed=64).run(seconds=600)
    for start, end in ((100, 200), (230, 400), (430, 600)):
        assert outcome.rate_between(start, end) >= 0.9 * fixed.rate_between(start, end)


def test_two_timeouts_among_few_answers_cut_the_limit_once() -> None:
    auto = AutoConcurrency(now=0.0)
    now = complete(auto, 0.0, 100)
    before = auto.limit
    changes = [auto.on_timeout(now + 1, started=now - 119) for _ in range(before)]
    assert [change.reason for change in changes if change] == [ChangeReason.TIMEOUTS]
    assert auto.limit == int(0.7 * before)


@pytest.mark.parametrize(("name", "level"), [("batching GPU, 64 slots", 58), ("4 slots", 4)])
def test_twenty_epochs_lead_back_from_a_single_call(name: str, level: int) -> None:
    auto = AutoConcurrency(now=0.0)
    for second in range(200, 2_000, 200):
        for _ in range(4):
            auto.on_timeout(second, started=second - 1)
    assert auto.limit == 1
    world = World(MACHINES[name], FORM, seed=1, auto=auto, now=2_000.0)
    epochs = 0.0
    while auto.limit < level and epochs < 20:
        done = world.outcome.completed
        world.run(seconds=2)
        epochs += (world.outcome.completed - done) / max(64, 4 * auto.limit)
    assert auto.limit >= level


def test_one_timeout_in_a_hundred_answers_does_not_shrink_the_limit() -> None:
    auto = AutoConcurrency(now=0.0, maximum=64)
    now = complete(auto, 0.0, 2_000)
    for _ in range(100):
        now = complete(auto, now, 100)
        auto.on_timeout(now, started=now - 120)
    assert ChangeReason.TIMEOUTS not in {change.reason for change in auto.history}


def test_timeouts_just_before_an_outage_are_the_outages_own() -> None:
    auto = AutoConcurrency(now=0.0)
    now = complete(auto, 0.0, 1_000)
    before = auto.limit
    for _ in range(5):
        auto.on_timeout(now + 120, started=now)
    assert auto.limit < before
    auto.on_outage(now + 120)
    auto.on_recovered(now + 300)
    assert auto.limit == before


@pytest.mark.parametrize("fraction", [0.5, 0.95])
def test_slots_that_there_is_no_work_for_are_not_multiplied(fraction: float) -> None:
    auto = AutoConcurrency(now=0.0, maximum=512)
    now = 0.0
    for _ in range(5_000):
        now += 0.1
        auto.on_completion(now, started=now - 1, completion_tokens=10, in_flight=min(10, auto.limit))
    assert auto.limit <= 16


def test_a_month_of_work_stays_at_the_best() -> None:
    work = Workload(mean_s=60.0, deadline_s=1_200.0, sigma=0.8)
    month_s = 30 * 86_400.0
    outcome = World(MACHINES["4 slots"], work, seed=1).run(seconds=month_s)
    assert outcome.auto is not None
    assert outcome.rate_per_s >= 0.95 * 4 / 60
    assert len(outcome.auto.history) <= 256


# --- any sequence of events ------------------------------------------------------------------------------------------

Events = list[tuple[str, float, float | None, int]]

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["answer", "answers", "timeout", "overload", "outage", "recovered", "pause"]),
        st.floats(0.0, 500.0),
        st.sampled_from([None, 0.0, 0.5, 30.0, 86_400.0]),
        st.integers(0, 70),
    ),
    max_size=60,
)


def play(auto: AutoConcurrency, events: Events) -> float:
    """Whatever may come, in any order. Returns the time after."""
    now, is_out = 0.0, False
    for kind, span_s, wait_s, count in events:
        match kind:
            case "answer":
                auto.on_completion(now, started=now - span_s, completion_tokens=count or None, in_flight=max(1, count))
            case "answers":
                for _ in range(5 * count):
                    now += span_s / 500
                    auto.on_completion(now, started=now - span_s, completion_tokens=count, in_flight=auto.limit)
            case "timeout":
                for _ in range(count):
                    auto.on_timeout(now, started=now - span_s)
            case "overload":
                auto.on_overload(now, call_started=now - span_s)
            case "outage":
                auto.on_outage(now)
                is_out = True
            case "recovered":
                auto.on_recovered(now)
                is_out = False
            case _:
                now += span_s * (wait_s or 1.0)
        assert 1 <= auto.limit <= 64
        assert auto.pace_per_s is None or 0.1 <= auto.pace_per_s < math.inf
    if is_out:
        auto.on_recovered(now)
    return now


@settings(max_examples=200)
@given(EVENTS)
def test_limit_and_pace_stay_within_bounds_whatever_happens(events: Events) -> None:
    play(AutoConcurrency(start=4, maximum=64, now=0.0), events)


#: from the slowest pace, refused at every level on the way down, to the full rate of a small server
RECOVERY_S = 2_400.0


@settings(max_examples=25)
@given(EVENTS, st.sampled_from(["4 slots", "1 slot", "8 slots"]))
def test_a_healthy_server_is_used_again_whatever_happened(events: Events, name: str) -> None:
    auto = AutoConcurrency(start=4, maximum=64, now=0.0)
    now = play(auto, events) + 1.0
    machine = MACHINES.get(name, Machine(slots=8, speed=constant))
    world = World(machine, Workload(sigma=0.2), seed=1, auto=auto, now=now)
    world.run(seconds=RECOVERY_S)
    outcome = world.run(seconds=600)
    assert outcome.rate_between(now + RECOVERY_S, now + RECOVERY_S + 600) >= 0.9 * machine.slots


# --- pacing ----------------------------------------------------------------------------------------------------------


def test_pacer_spaces_sends_evenly_and_saves_nothing_up() -> None:
    pacer = Pacer(2.0)
    assert pacer.delay_s(100.0) == 0
    pacer.record_send(100.0)
    assert 0.48 <= pacer.delay_s(100.0) <= 0.5
    pacer.record_send(160.0)  # a minute in which nothing was sent
    assert pacer.delay_s(160.0) >= 0.47


def test_pacer_makes_up_for_waking_late() -> None:
    pacer, now, sent = Pacer(100.0), 0.0, 0
    while now < 10.0:
        now += pacer.delay_s(now) + 0.003
        pacer.record_send(now)
        sent += 1
    assert sent >= 990


@pytest.mark.parametrize("rate", [0.0, -1.0, math.inf, math.nan])
def test_pacer_refuses_a_rate_that_is_none(rate: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        Pacer(rate)


def test_a_pace_that_is_not_used_does_not_grow() -> None:
    auto = AutoConcurrency(now=0.0)
    learner: PaceLearner = auto._learner
    for index in range(100):
        learner.on_accepted(index * 0.01, index * 0.01)
    learner.on_refused(1.0, 0.99, 4)
    pace = learner.rate_per_s
    for index in range(100):
        learner.on_accepted(2.0 + index, 2.0 + index)  # one call a second, far below the pace
    assert learner.rate_per_s == pace
