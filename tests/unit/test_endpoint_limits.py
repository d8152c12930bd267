"""Promises of the limits put together, in virtual time: what holds a call back, and that everything lets go again."""

from __future__ import annotations

import asyncio
import random

import pytest

from narrun_async.errors import BudgetSpentError, RunStopping, WaitedTooLongError
from narrun_async.limits import Budget, BudgetLimits, EndpointLimits, LimitSettings
from narrun_async.limits.auto import Phase
from narrun_async.limits.breaker import SUCCESSES_TO_OPEN
from narrun_async.limits.endpoint import BY_THE_DISK, HISTORY, LOOK_AGAIN_S, OVERLOADS_IN_A_ROW
from narrun_async.limits.slots import FIRST_WINDOW
from narrun_async.limits.turns import OPENING_S
from narrun_async.models import ErrorCategory, Usage
from narrun_async.retrying import CallFailure, FailureClass

CALL = Usage(prompt_tokens=90, completion_tokens=10)
BODY_BYTES = 400


def overload(*, status: int = 429, retry_after_s: float | None = None) -> CallFailure:
    return CallFailure(
        failure_class=FailureClass.OVERLOAD,
        category=ErrorCategory.OVERLOADED,
        message=f"HTTP {status}",
        http_status=status,
        retry_after_s=retry_after_s,
    )


UNREACHABLE = CallFailure(failure_class=FailureClass.UNREACHABLE, category=ErrorCategory.UNREACHABLE, message="refused")
TIMED_OUT = CallFailure(failure_class=FailureClass.TRANSIENT, category=ErrorCategory.TIMEOUT, message="too late")


class World:
    """Limits over a clock that only `pass_time` moves; whoever sleeps wakes in the order of time."""

    def __init__(
        self,
        *,
        concurrency: int | None = 8,
        max_wait_s: float = 3600.0,
        rpm: float | None = None,
        tpm: float | None = None,
        max_concurrency: int = 64,
        budget: Budget | None = None,
        after: World | None = None,
    ) -> None:
        self.now_s = 1000.0 if after is None else after.now_s
        self._sleepers = list[tuple[float, asyncio.Future[None]]]()
        self.is_stopping = False
        #: what a probe finds
        self.problem: CallFailure | None = None
        self.n_probes = 0
        self.in_flight = 0
        #: when each call went, and which
        self.sent = list[tuple[float, str]]()
        self.limits = EndpointLimits(
            LimitSettings(
                concurrency=concurrency, max_concurrency=max_concurrency, max_wait_s=max_wait_s, rpm=rpm, tpm=tpm
            ),
            probe=self._probe,
            clock=lambda: self.now_s,
            sleep=self._sleep,
            rng=random.Random(5),
            budget=budget,
            after=None if after is None else after.limits,
        )

    async def _probe(self) -> CallFailure | None:
        self.n_probes += 1
        return self.problem

    async def _sleep(self, seconds: float) -> None:
        if self.is_stopping:
            raise RunStopping
        waking: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.now_s + seconds, waking))
        await waking

    async def pass_time(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        await self._let_run()
        while (due := [one for one in self._sleepers if one[0] <= until_s]) and not self.is_stopping:
            earliest = min(due, key=lambda one: one[0])
            self._sleepers.remove(earliest)
            self.now_s = max(self.now_s, earliest[0])
            if not earliest[1].done():
                earliest[1].set_result(None)
            await self._let_run()
        self.now_s = until_s
        await self._let_run()

    async def _let_run(self) -> None:
        for _ in range(30):
            await asyncio.sleep(0)

    async def stop(self) -> None:
        """As `RunControl.stop` does it."""
        self.is_stopping = True
        for _, waking in self._sleepers:
            if not waking.done():
                waking.set_exception(RunStopping())
        self.limits.close()
        await self._let_run()

    def start_call(self, name: str = "") -> asyncio.Task[float]:
        async def call() -> float:
            taken_tokens = await self.limits.wait_turn(BODY_BYTES, in_flight=lambda: self.in_flight)
            self.sent.append((self.now_s, name))
            return taken_tokens

        return asyncio.create_task(call())

    def succeed(self, *, started_s: float | None = None, headers: dict[str, str] | None = None) -> None:
        self.limits.record_success(
            taken_tokens=0.0,
            started=self.now_s if started_s is None else started_s,
            usage=CALL,
            headers=headers,
            in_flight=max(1, self.in_flight),
        )

    async def refuse(self, *, retry_after_s: float | None = 0.1, n_overloads: int = 0, status: int = 429) -> bool:
        """A call that began now was refused. Returns whether it was charged."""
        charged, _ = await self.limits.charge(
            overload(status=status, retry_after_s=retry_after_s),
            call_started=self.now_s,
            in_flight=max(1, self.in_flight),
            n_overloads=n_overloads,
        )
        return charged

    async def learn_pace(self) -> float:
        """A burst that is refused; the gate is open again afterwards."""
        for _ in range(10):
            self.succeed()
            await self.pass_time(0.2)
        await self.refuse()
        await self.pass_time(2.0)
        pace = self.limits.pace_per_s
        assert pace is not None
        return pace


async def all_stopped(*calls: asyncio.Task[float]) -> bool:
    found = await asyncio.gather(*calls, return_exceptions=True)
    return all(isinstance(one, RunStopping) for one in found)


# --- turns -----------------------------------------------------------------------------------------------------------


async def test_without_limits_a_turn_is_had_without_waiting() -> None:
    world = World()
    assert await world.limits.wait_turn(BODY_BYTES, in_flight=lambda: 0) == 0.0
    assert world._sleepers == []


async def test_turns_are_given_one_at_a_time_in_the_order_of_asking() -> None:
    world = World(rpm=60)
    calls = [world.start_call(str(number)) for number in range(4)]
    await world.pass_time(10)
    await asyncio.gather(*calls)
    assert [name for _, name in world.sent] == ["0", "1", "2", "3"]
    assert [at_s - 1000 for at_s, _ in world.sent] == pytest.approx([0, 1, 2, 3], abs=0.01)


async def test_whoever_is_cancelled_in_front_of_the_line_lets_the_next_one_go() -> None:
    world = World(rpm=60)
    calls = [world.start_call(str(number)) for number in range(4)]
    await world.pass_time(0.5)
    calls[1].cancel()
    calls[2].cancel()
    await world.pass_time(1.0)
    assert [name for _, name in world.sent] == ["0", "3"]


async def test_a_gate_that_closes_while_one_waits_for_its_turn_holds_it_back() -> None:
    world = World(rpm=60)
    calls = [world.start_call(str(number)) for number in range(2)]
    await world.pass_time(0.5)
    await world.refuse(retry_after_s=30.0)
    await world.pass_time(29)
    assert len(world.sent) == 1
    await world.pass_time(5)
    await asyncio.gather(*calls)
    assert world.sent[1][0] >= 1030.5


async def test_a_pace_that_is_taken_back_lets_whoever_waits_go_soon() -> None:
    world = World()
    await world.learn_pace()
    world.limits.turns.set_pace(0.1)
    calls = [world.start_call(str(number)) for number in range(5)]
    await world.pass_time(0.1)
    assert len(world.sent) == 1
    world.limits.turns.set_pace(None)
    await world.pass_time(LOOK_AGAIN_S)
    assert len(world.sent) == 5
    await asyncio.gather(*calls)


async def test_the_line_moves_on_when_the_budget_ends_the_call_in_front() -> None:
    budget = Budget(BudgetLimits(max_tokens=100), prompt_tokens=101)
    world = World(rpm=600, budget=budget)
    calls = [world.start_call() for _ in range(3)]
    await world.pass_time(1)
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(one) for one in found] == [BudgetSpentError] * 3
    assert world.sent == []


async def test_a_budget_is_asked_for_what_is_in_flight_too() -> None:
    world = World(budget=Budget(BudgetLimits(max_tokens=1000)))
    for _ in range(5):
        world.succeed()
    world.in_flight = 4
    await world.limits.wait_turn(BODY_BYTES, in_flight=lambda: world.in_flight)
    world.in_flight = 5
    with pytest.raises(BudgetSpentError):
        await world.limits.wait_turn(BODY_BYTES, in_flight=lambda: world.in_flight)


async def test_tokens_a_minute_are_kept_on_average() -> None:
    world = World(tpm=6000)  # of 100 tokens a call: one a second

    async def call() -> None:
        taken_tokens = await world.limits.wait_turn(BODY_BYTES, in_flight=lambda: 0)
        world.sent.append((world.now_s, ""))
        started_s = world.now_s
        await world._sleep(0.3)
        world.limits.record_success(taken_tokens=taken_tokens, started=started_s, usage=CALL, headers=None, in_flight=1)

    calls = [asyncio.create_task(call()) for _ in range(60)]
    await world.pass_time(70)
    await asyncio.gather(*calls)
    assert world.sent[-1][0] - world.sent[0][0] == pytest.approx(59, abs=2)


# --- stopping --------------------------------------------------------------------------------------------------------


async def test_a_run_that_stops_lets_everybody_go_and_sends_nothing_more() -> None:
    world = World(rpm=60)
    calls = [world.start_call() for _ in range(5)]
    await world.pass_time(0.5)
    assert len(world.sent) == 1
    await world.stop()
    assert await all_stopped(*calls[1:])
    assert len(world.sent) == 1


async def test_a_paused_run_that_stops_sends_nothing_although_there_would_be_turns() -> None:
    world = World(rpm=6000)
    world.limits.pause()
    calls = [world.start_call() for _ in range(5)]
    waiting = asyncio.create_task(world.limits.wait_open())
    await world.pass_time(5)
    await world.stop()
    assert await all_stopped(*calls)
    await asyncio.gather(waiting, return_exceptions=True)
    assert world.sent == []
    assert not world.limits.is_paused


async def test_after_the_end_nobody_waits_and_nobody_is_let_in() -> None:
    world = World(rpm=6000)
    await world.refuse(retry_after_s=60.0)
    await world.stop()
    with pytest.raises(RunStopping):
        await world.limits.wait_open()
    with pytest.raises(RunStopping):
        await world.limits.wait_turn(BODY_BYTES, in_flight=lambda: 0)
    with pytest.raises(RunStopping):
        async with world.limits.slots.new:
            pytest.fail("entered")


# --- pausing ---------------------------------------------------------------------------------------------------------


async def test_a_pause_holds_everybody_and_its_end_lets_everybody_go_however_often_it_is_said() -> None:
    world = World()
    for _ in range(3):
        world.limits.pause()
        world.limits.pause()
        waiting = [asyncio.create_task(world.limits.wait_open()) for _ in range(3)]
        await world.pass_time(60)
        assert not any(one.done() for one in waiting)
        assert world.limits.waiting_for is not None
        world.limits.unpause()
        world.limits.unpause()
        await world.pass_time(0)
        await asyncio.gather(*waiting)
        assert world.limits.waiting_for is None
    assert world.limits.downtime_s == pytest.approx(180)


async def test_a_pause_by_the_disk_and_one_by_a_person_end_each_by_itself() -> None:
    world = World()
    world.limits.pause(BY_THE_DISK)
    assert not world.limits.is_paused
    assert world.limits.waiting_for == BY_THE_DISK
    world.limits.pause()
    assert world.limits.is_paused
    waiting = asyncio.create_task(world.limits.wait_open())
    world.limits.unpause(BY_THE_DISK)
    await world.pass_time(60)
    assert not waiting.done()
    world.limits.pause(BY_THE_DISK)
    world.limits.unpause()
    await world.pass_time(60)
    assert not waiting.done()
    world.limits.unpause(BY_THE_DISK)
    await waiting
    assert world.limits.downtime_s == pytest.approx(120)


async def test_a_pause_is_no_trouble_of_the_endpoint_and_counts_once() -> None:
    world = World(max_wait_s=60)
    await world.refuse(retry_after_s=5.0)
    world.limits.pause()
    await world.pass_time(3600)
    world.limits.unpause()
    assert world.limits.downtime_s == pytest.approx(3600)
    await world.pass_time(10)
    await world.refuse(retry_after_s=5.0)
    world.succeed()
    assert world.limits.downtime_s == pytest.approx(3610)
    await world.refuse(retry_after_s=5.0)
    with pytest.raises(WaitedTooLongError):
        await world.refuse(retry_after_s=61.0)


async def test_a_pause_and_an_outage_both_have_to_end() -> None:
    for ends_first in ("pause", "outage"):
        world = World()
        world.problem = UNREACHABLE
        charging = asyncio.create_task(
            world.limits.charge(UNREACHABLE, call_started=world.now_s, in_flight=1, n_overloads=0)
        )
        await world.pass_time(0.1)
        world.limits.pause()
        waiting = asyncio.create_task(world.limits.wait_open())
        await world.pass_time(5)
        for what in (ends_first, "outage" if ends_first == "pause" else "pause"):
            assert not waiting.done()
            if what == "pause":
                world.limits.unpause()
            else:
                world.problem = None
            await world.pass_time(60)
        assert waiting.done()
        assert await charging == (False, False)


async def test_a_pause_a_gate_and_an_outage_may_begin_and_end_in_any_order() -> None:
    rng = random.Random(17)
    for _ in range(40):
        world = World(rpm=6000)
        calls, charging = list[asyncio.Task[float]](), list[asyncio.Task[tuple[bool, bool]]]()
        for _ in range(12):
            what = rng.choice(["pause", "unpause", "gate", "down", "up", "call", "call", "wait"])
            if what == "pause":
                world.limits.pause()
            elif what == "unpause":
                world.limits.unpause()
            elif what == "gate":
                await world.refuse(retry_after_s=rng.choice([0.5, 5.0]))
            elif what == "down":
                world.problem = UNREACHABLE
                failed = world.limits.charge(UNREACHABLE, call_started=world.now_s, in_flight=1, n_overloads=0)
                charging.append(asyncio.create_task(failed))
            elif what == "up":
                world.problem = None
            elif what == "call":
                n_sent, was_open = len(world.sent), world.limits.is_open_for_calls
                calls.append(world.start_call())
                await world.pass_time(0)
                assert was_open or len(world.sent) == n_sent
            else:
                await world.pass_time(rng.choice([0.1, 3.0, 40.0]))
        world.problem = None
        world.limits.unpause()
        await world.pass_time(200)
        async with asyncio.timeout(5):
            await asyncio.gather(*calls, *charging)
        assert world.limits.is_open_for_calls
        assert len(world.sent) == len(calls)


# --- concurrency, fixed and auto -------------------------------------------------------------------------------------


async def test_a_fixed_number_is_kept_and_the_first_calls_are_few() -> None:
    slots = World(concurrency=32).limits.slots
    assert (slots.limit, slots.window) == (32, FIRST_WINDOW)


async def test_after_a_few_successes_the_window_is_open_and_the_calls_go_a_little_apart() -> None:
    world = World(concurrency=128)
    for _ in range(SUCCESSES_TO_OPEN):
        assert world.limits.slots.window < 128
        world.succeed()
    assert world.limits.slots.window == 128
    calls = [world.start_call() for _ in range(124)]
    for _ in range(50):
        await world.pass_time(OPENING_S / 100)
    assert 50 <= len(world.sent) <= 100
    for _ in range(100):
        await world.pass_time(OPENING_S / 100)
    assert len(world.sent) == 124
    await asyncio.gather(*calls)
    assert await world.limits.wait_turn(BODY_BYTES, in_flight=lambda: 0) == 0.0
    assert world.limits.turns.are_free


@pytest.mark.parametrize(("maximum", "start"), [(64, 4), (2, 2), (1, 1)])
async def test_auto_starts_low_and_never_above_its_maximum(maximum: int, start: int) -> None:
    world = World(concurrency=None, max_concurrency=maximum)
    assert world.limits.auto is not None
    assert world.limits.slots.limit == world.limits.auto.limit == start


async def test_changing_between_fixed_and_auto_again_and_again_always_leaves_the_limit_that_was_asked_for() -> None:
    world = World(concurrency=None)
    for number in (16, 1, 200, 7):
        world.limits.set_concurrency(number)
        assert world.limits.auto is None
        assert world.limits.slots.limit == number
        world.limits.set_concurrency(None)
        assert world.limits.auto is not None
        assert world.limits.slots.limit == world.limits.auto.limit == FIRST_WINDOW
        world.limits.set_concurrency(None)


async def test_asking_for_auto_again_does_not_throw_away_what_it_found() -> None:
    world = World(concurrency=None)
    found = world.limits.auto
    world.limits.set_concurrency(None)
    assert world.limits.auto is found


async def test_calls_that_were_sent_under_a_fixed_number_do_not_mislead_auto() -> None:
    world = World(concurrency=200)
    before_s = world.now_s
    await world.pass_time(1)
    world.limits.set_concurrency(None)
    for number in range(200):
        world.in_flight = 200 - number
        await world.pass_time(0.001)
        world.succeed(started_s=before_s)
    assert world.limits.slots.limit == FIRST_WINDOW
    assert [what for _, what, _ in world.limits.history] == ["200 in flight", "4 in flight"]


@pytest.mark.parametrize("first", [None, 16])
async def test_a_pace_outlives_a_change_between_fixed_and_auto_and_still_grows(first: int | None) -> None:
    """A pace that nobody adjusts any more would hold the run for ever."""
    world = World(concurrency=first)
    pace = await world.learn_pace()
    world.limits.set_concurrency(16 if first is None else None)
    assert world.limits.pace_per_s == pace
    for _ in range(300):
        call = world.start_call()
        for _ in range(1000):
            await world.pass_time(0.01)
            if call.done():
                break
        await asyncio.wait_for(call, 1)
        world.succeed()
    grown = world.limits.pace_per_s
    assert grown is not None
    assert grown > 1.2 * pace
    assert world.limits.turns._pacer is not None
    assert world.limits.turns._pacer.rate_per_s == grown


async def test_refusals_teach_a_pace_only_where_they_say_that_calls_are_too_many() -> None:
    for concurrency in (None, 8):
        world = World(concurrency=concurrency)
        world.succeed()
        await world.pass_time(2)
        for status in (503, 529):
            await world.refuse(status=status)
            await world.pass_time(5)
        assert world.limits.pace_per_s is None
        await world.refuse(status=429)
        assert world.limits.pace_per_s is not None


async def answered_many(world: World, count: int = 400) -> None:
    for _ in range(count // 8):
        await world.pass_time(0.02)
        for _ in range(8):
            world.succeed()


@pytest.mark.parametrize("status", [429, 503])
async def test_one_refusal_among_many_answers_holds_back_its_own_call_only(status: int) -> None:
    world = World()
    await answered_many(world)
    refused = asyncio.create_task(world.refuse(status=status, retry_after_s=3.0))
    await world.pass_time(2.9)
    assert not refused.done()
    assert world.limits.is_open_for_calls
    assert world.limits.pace_per_s is None
    await world.pass_time(0.2)
    assert await refused is False


async def test_a_wave_closes_the_gate_after_a_few_refusals_however_many_answers_there_were_before() -> None:
    world = World()
    await answered_many(world)
    refused = [asyncio.create_task(world.refuse(retry_after_s=3.0)) for _ in range(13)]
    await world.pass_time(0)
    assert not world.limits.is_open_for_calls
    assert world.limits.pace_per_s is not None
    await world.pass_time(3.1)
    await asyncio.gather(*refused)


async def test_a_long_wish_of_the_endpoint_is_meant_for_everybody() -> None:
    world = World()
    await answered_many(world)
    refused = asyncio.create_task(world.refuse(retry_after_s=120.0))
    await world.pass_time(0)
    assert not world.limits.is_open_for_calls
    assert refused.done()


async def test_the_controller_is_told_of_an_outage_and_of_its_end() -> None:
    world = World(concurrency=None)
    world.problem = UNREACHABLE
    charging = asyncio.create_task(
        world.limits.charge(UNREACHABLE, call_started=world.now_s, in_flight=1, n_overloads=0)
    )
    await world.pass_time(5)
    auto = world.limits.auto
    assert auto is not None
    assert auto._is_out
    world.problem = None
    await world.pass_time(60)
    await charging
    assert not auto._is_out
    for _ in range(12):
        world.in_flight = world.limits.slots.limit
        started_s = world.now_s
        await world.pass_time(0.1)
        for _ in range(world.limits.slots.limit):
            world.succeed(started_s=started_s)
            await world.pass_time(0.001)
    assert auto.limit > FIRST_WINDOW
    assert world.limits.slots.limit == auto.limit
    assert auto.phase in Phase


async def test_timeouts_lower_the_limit_of_auto_and_leave_a_fixed_one() -> None:
    for concurrency in (None, 8):
        world = World(concurrency=concurrency)
        before = world.limits.slots.limit
        for _ in range(3):
            await world.limits.charge(TIMED_OUT, call_started=world.now_s, in_flight=4, n_overloads=0)
        assert (world.limits.slots.limit < before) == (concurrency is None)


async def test_the_history_tells_each_change_once_and_forgets_the_oldest() -> None:
    world = World(concurrency=8)
    for _ in range(3):
        world.limits.set_concurrency(16)
    assert [(what, why) for _, what, why in world.limits.history] == [("8 in flight", "set"), ("16 in flight", "set")]
    for number in range(1, 2 * HISTORY):
        world.limits.set_concurrency(number)
    assert len(world.limits.history) == HISTORY
    assert world.limits.history[-1][1] == f"{2 * HISTORY - 1} in flight"


# --- a narrative that is always refused for overload -----------------------------------------------------------------


async def test_refusals_of_one_narrative_are_charged_once_there_were_many_and_the_endpoint_is_well() -> None:
    world = World()
    for n_overloads in range(OVERLOADS_IN_A_ROW):
        assert not await world.refuse(status=503, n_overloads=n_overloads)
        await world.pass_time(60)
    assert world.n_probes == 0
    assert await world.refuse(status=503, n_overloads=OVERLOADS_IN_A_ROW)
    assert world.n_probes == 1
    world.problem = overload(status=503)
    assert not await world.refuse(status=503, n_overloads=OVERLOADS_IN_A_ROW)


async def test_an_endpoint_that_is_well_for_a_probe_has_not_used_up_patience() -> None:
    """The last narrative of a run may be the one that is always refused; nothing else would end the count."""
    world = World(max_wait_s=20)
    for _ in range(5):
        for n_overloads in range(OVERLOADS_IN_A_ROW + 1):
            await world.refuse(status=503, n_overloads=n_overloads)
            await world.pass_time(1 if n_overloads == OVERLOADS_IN_A_ROW else 4)
    assert world.limits.downtime_s < 5 * (OVERLOADS_IN_A_ROW + 1) * 4


# --- a run after another on the same endpoint -------------------------------------------------------------------------


async def test_what_one_run_learned_of_an_endpoint_the_next_one_knows() -> None:
    first = World(concurrency=None)
    assert first.limits.auto is not None
    first.limits.auto.limit = 24  # as if it had been found
    first.limits.slots.resize(24)
    await first.stop()

    second = World(concurrency=None, after=first)
    assert second.limits.auto is first.limits.auto
    assert second.limits.slots.limit == 24
    assert second.limits.slots.window == FIRST_WINDOW  # another model may be a wrong setting
    assert second.limits.is_open_for_calls


async def test_requests_a_minute_hold_over_the_end_of_a_run() -> None:
    first = World(rpm=60)
    first.start_call()
    await first.pass_time(0)
    assert len(first.sent) == 1
    await first.stop()

    second, fresh = World(rpm=60, after=first), World(rpm=60)
    for world in (second, fresh):
        world.start_call()
        await world.pass_time(0)
    assert len(fresh.sent) == 1
    assert second.sent == []
    await second.pass_time(2)
    assert len(second.sent) == 1


async def test_a_number_that_a_person_has_set_holds_for_the_next_run() -> None:
    first = World(concurrency=None)
    first.limits.set_concurrency(3)
    await first.stop()
    second = World(concurrency=None, after=first)
    assert (second.limits.slots.limit, second.limits.auto) == (3, None)


async def test_what_belongs_to_a_run_begins_anew() -> None:
    first = World(max_wait_s=10, budget=Budget(BudgetLimits(max_tokens=10**6)))
    first.succeed()
    await first.stop()
    second = World(max_wait_s=10, after=first)
    assert second.limits.budget.tokens == 0
    assert second.limits.patience is not first.limits.patience
    assert second.limits.breaker is not first.limits.breaker
