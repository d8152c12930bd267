"""Promises of the circuit breaker: an outage costs no narrative anything, a poison narrative pays for itself."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from narrun_async.errors import FatalEndpointError, RunStopping, WaitedTooLongError
from narrun_async.limits import EndpointLimits, LimitSettings
from narrun_async.limits.breaker import FAILURES_IN_A_ROW, FALLS_TO_ONE_BY_ONE, FIRST_PAUSE_S, LONGEST_PAUSE_S
from narrun_async.limits.endpoint import OVERLOADS_IN_A_ROW
from narrun_async.limits.turns import OPENING_AFTER_OUTAGE_S
from narrun_async.models import NO_USAGE, ErrorCategory, NarrativeId
from narrun_async.retrying import CallFailure, FailureClass

#: (the attempt counts against the narrative, the narrative is a suspect)
CHARGED, SPARED, CHARGED_SUSPECT, SPARED_SUSPECT = (True, False), (False, False), (True, True), (False, True)


def failure(failure_class: FailureClass = FailureClass.TRANSIENT, *, retry_after_s: float | None = None) -> CallFailure:
    category = {
        FailureClass.UNREACHABLE: ErrorCategory.UNREACHABLE,
        FailureClass.FATAL: ErrorCategory.FATAL,
        FailureClass.OVERLOAD: ErrorCategory.OVERLOADED,
        FailureClass.PERMANENT: ErrorCategory.BAD_REQUEST,
    }.get(failure_class, ErrorCategory.SERVER_ERROR)
    return CallFailure(
        failure_class=failure_class, category=category, message=f"a {failure_class}", retry_after_s=retry_after_s
    )


class World:
    """An endpoint that is well or not, a clock that sleeping moves, and the limits between them."""

    def __init__(self, *, concurrency: int = 8, max_wait_s: float = 3600.0) -> None:
        self.now_s = 1000.0
        self.pauses_s = list[float]()
        self.n_probes = 0
        self.probing = 0
        self.most_probing = 0
        #: what a probe finds now
        self.problem: Callable[[], CallFailure | None] = lambda: None
        self.stopping = False
        self.limits = EndpointLimits(
            LimitSettings(concurrency=concurrency, max_wait_s=max_wait_s),
            probe=self.probe,
            clock=lambda: self.now_s,
            sleep=self.sleep,
            rng=random.Random(3),
        )
        self.breaker, self.slots = self.limits.breaker, self.limits.slots
        while self.slots.is_narrowed:
            self.record_success()

    def record_success(self) -> None:
        self.limits.record_success(taken_tokens=0.0, started=self.now_s, usage=NO_USAGE, headers=None, in_flight=1)

    def record_refusal(self) -> None:
        self.limits.record_refusal()

    async def probe(self) -> CallFailure | None:
        self.n_probes += 1
        self.probing += 1
        self.most_probing = max(self.most_probing, self.probing)
        await asyncio.sleep(0)
        self.probing -= 1
        return self.problem()

    async def sleep(self, seconds: float) -> None:
        if self.stopping:
            raise RunStopping
        self.pauses_s.append(seconds)
        self.now_s += seconds
        await asyncio.sleep(0)

    def down_for(self, seconds: float, what: FailureClass = FailureClass.UNREACHABLE) -> None:
        until_s = self.now_s + seconds
        self.problem = lambda: failure(what) if self.now_s < until_s else None

    async def fail(
        self, failed: CallFailure | None = None, *, alone: bool = False, n_overloads: int = 0
    ) -> tuple[bool, bool]:
        return await self.limits.charge(
            failed or failure(), call_started=self.now_s, in_flight=1 if alone else 2, n_overloads=n_overloads
        )

    async def fail_until_open(self) -> tuple[bool, bool]:
        for _ in range(FAILURES_IN_A_ROW - 1):
            assert await self.fail() == CHARGED
        return await self.fail()


async def test_a_few_failures_are_charged_at_once_and_nobody_is_asked() -> None:
    world = World()
    for _ in range(FAILURES_IN_A_ROW - 1):
        assert await world.fail() == CHARGED
    assert (world.n_probes, world.slots.window) == (0, 8)


@pytest.mark.parametrize("between", ["record_success", "record_refusal"])
async def test_an_answer_in_between_starts_the_count_again(between: str) -> None:
    world = World()
    for number in range(40):
        assert await world.fail() == CHARGED
        if number % 4 == 3:
            getattr(world, between)()
    assert world.n_probes == 0


async def test_many_failures_in_a_row_are_charged_when_the_endpoint_answers_a_probe() -> None:
    world = World()
    assert await world.fail_until_open() == CHARGED_SUSPECT
    assert (world.n_probes, world.pauses_s, world.breaker.is_open) == (1, [], False)


async def test_many_failures_in_a_row_are_the_endpoints_when_the_probe_fails_too() -> None:
    world = World()
    world.down_for(20, FailureClass.TRANSIENT)
    assert await world.fail_until_open() == SPARED_SUSPECT
    assert world.n_probes > 2
    assert world.limits.patience.downtime_s >= 20


async def test_an_unreachable_endpoint_opens_the_breaker_at_once_and_nobody_pays() -> None:
    world = World()
    world.down_for(100)
    failing = [asyncio.create_task(world.fail(failure(FailureClass.UNREACHABLE))) for _ in range(8)]
    await asyncio.sleep(0)
    assert world.breaker.is_open
    assert world.limits.waiting_for == "the endpoint is not well (a unreachable)"
    assert await asyncio.gather(*failing) == [SPARED] * 8
    assert (world.breaker.is_open, world.limits.waiting_for is None) == (False, True)


async def test_one_sends_the_probes_one_at_a_time_and_all_others_wait() -> None:
    world = World()
    world.down_for(120, FailureClass.TRANSIENT)
    settled = await asyncio.gather(*(world.fail() for _ in range(32)))
    assert settled == [CHARGED] * 4 + [SPARED_SUSPECT] * 28
    assert world.most_probing == 1
    assert world.n_probes <= 15


async def test_pauses_between_probes_double_with_jitter_up_to_a_cap() -> None:
    world = World()
    world.down_for(300)
    await world.fail(failure(FailureClass.UNREACHABLE))
    bound_s = FIRST_PAUSE_S
    for pause_s in world.pauses_s:
        assert bound_s / 2 <= pause_s <= bound_s
        bound_s = min(LONGEST_PAUSE_S, bound_s * 2)
    assert bound_s == LONGEST_PAUSE_S


@pytest.mark.fault("N01")
async def test_five_minutes_down_take_few_probes_and_work_goes_on_soon_after(measured: Callable[[str], None]) -> None:
    world = World()
    world.down_for(300)
    await world.fail(failure(FailureClass.UNREACHABLE))
    assert world.n_probes <= 60
    assert world.now_s <= 1000 + 300 + 35
    measured(
        f"5 virtual minutes down: {world.n_probes} probes, work goes on {world.now_s - 1300:.0f} s after the return"
    )


async def test_an_endpoint_that_stays_down_runs_out_of_patience() -> None:
    world = World(max_wait_s=600)
    world.down_for(1e9)
    with pytest.raises(WaitedTooLongError):
        await world.fail(failure(FailureClass.UNREACHABLE))
    assert 1000 + 500 < world.now_s <= 1000 + 600


async def test_a_probe_that_is_refused_for_good_ends_the_run() -> None:
    world = World()
    world.problem = lambda: failure(FailureClass.FATAL)
    others = [asyncio.create_task(world.fail()) for _ in range(6)]
    results = await asyncio.gather(*others, return_exceptions=True)
    assert results[:4] == [CHARGED] * 4
    assert isinstance(results[4], FatalEndpointError)
    assert isinstance(results[5], RunStopping)


async def test_a_probe_that_is_turned_down_as_a_request_shows_an_endpoint_that_is_well() -> None:
    world = World()
    world.problem = lambda: failure(FailureClass.PERMANENT)
    assert await world.fail_until_open() == CHARGED_SUSPECT


async def test_whoever_waits_for_the_breaker_is_let_go_when_the_run_stops() -> None:
    world = World()
    world.down_for(1e9)
    prober = asyncio.create_task(world.fail(failure(FailureClass.UNREACHABLE)))
    await asyncio.sleep(0)
    waiting = [asyncio.create_task(world.limits.wait_open()), asyncio.create_task(world.fail())]
    await asyncio.sleep(0)
    world.stopping = True
    results = await asyncio.gather(prober, *waiting, return_exceptions=True)
    assert [type(result) for result in results] == [RunStopping] * 3


async def test_after_an_outage_all_go_again_a_little_apart_although_there_are_suspects() -> None:
    world = World(concurrency=128)
    world.down_for(60, FailureClass.TRANSIENT)
    suspects = sum(is_suspect for _, is_suspect in await asyncio.gather(*(world.fail() for _ in range(128))))
    assert (suspects, world.slots.window) == (124, 128)
    sent_s = list[float]()
    while len(sent_s) < 128:
        await world.limits.wait_turn(400, in_flight=lambda: 0)
        sent_s.append(world.now_s)
    assert OPENING_AFTER_OUTAGE_S / 2 <= sent_s[-1] - sent_s[0] <= OPENING_AFTER_OUTAGE_S


async def test_when_the_endpoint_goes_down_in_recovery_each_success_doubles_the_calls() -> None:
    world = World(concurrency=128)
    for _ in range(2):
        world.down_for(60, FailureClass.TRANSIENT)
        await asyncio.gather(*(world.fail() for _ in range(128)))
    windows = [world.slots.window]
    for _ in range(8):
        world.breaker.release_suspect()
        world.record_success()
        windows.append(world.slots.window)
    assert windows == [1, 2, 4, 8, 16, 32, 64, 128, 128]


async def test_when_it_goes_down_once_more_suspects_go_one_by_one_until_they_are_through() -> None:
    world = World(concurrency=16)
    world.down_for(60, FailureClass.TRANSIENT)
    suspects = sum(is_suspect for _, is_suspect in await asyncio.gather(*(world.fail() for _ in range(8))))
    assert suspects == 4
    for _ in range(FALLS_TO_ONE_BY_ONE):
        world.breaker.release_suspect()
        world.down_for(60, FailureClass.TRANSIENT)
        assert await world.fail() == SPARED_SUSPECT
    windows = list[int]()
    for _ in range(suspects):
        world.record_success()
        windows.append(world.slots.window)
        world.breaker.release_suspect()
    for _ in range(5):
        world.record_success()
        windows.append(world.slots.window)
    assert windows == [1, 1, 1, 1, 2, 4, 8, 16, 16]


async def test_after_an_unreachable_endpoint_there_are_no_suspects_to_wait_for() -> None:
    world = World(concurrency=4)
    world.down_for(10)
    await world.fail(failure(FailureClass.UNREACHABLE))
    assert world.slots.window == 4
    world.record_success()
    n_probes = world.n_probes
    assert await world.fail() == CHARGED  # recovery is over: one failure is nobody's but the narrative's
    assert world.n_probes == n_probes


async def test_a_narrative_that_takes_the_endpoint_down_pays_when_it_was_alone() -> None:
    world = World()
    world.down_for(30, FailureClass.TRANSIENT)
    assert await world.fail_until_open() == SPARED_SUSPECT
    world.breaker.release_suspect()
    world.down_for(30, FailureClass.TRANSIENT)
    assert await world.fail(alone=True) == SPARED_SUSPECT  # others may have joined it, for the window was open
    for _ in range(5):
        world.breaker.release_suspect()
        world.down_for(30, FailureClass.TRANSIENT)
        assert await world.fail(alone=True) == CHARGED_SUSPECT
    world.breaker.release_suspect()
    for window in (2, 4, 8):
        world.record_success()
        assert world.slots.window == window


async def test_a_lost_connection_makes_a_suspect_although_it_is_charged() -> None:
    world = World()
    lost = replace(failure(), category=ErrorCategory.CONNECTION_LOST)
    assert await world.fail(lost) == CHARGED_SUSPECT
    assert world.n_probes == 0


async def test_only_a_crash_alone_in_recovery_is_put_on_record() -> None:
    world = World()
    culprits, narrative_id = world.breaker.culprits, NarrativeId(5)

    async def fail(*, alone: bool) -> None:
        await world.limits.charge(
            failure(), call_started=world.now_s, in_flight=1 if alone else 2, n_overloads=0, narrative_id=narrative_id
        )

    for _ in range(FAILURES_IN_A_ROW - 1):
        await fail(alone=True)
    world.down_for(30, FailureClass.TRANSIENT)
    await fail(alone=True)
    assert culprits.crashes_of(narrative_id) == 0  # the endpoint had not answered a probe before
    world.down_for(30, FailureClass.TRANSIENT)
    await fail(alone=True)
    assert culprits.crashes_of(narrative_id) == 0  # the window was open: others may have joined it
    for alone, n_crashes in ((True, 1), (False, 1), (True, 2)):
        world.down_for(30, FailureClass.TRANSIENT)
        await fail(alone=alone)
        assert culprits.crashes_of(narrative_id) == n_crashes
    await fail(alone=True)  # the endpoint answers a probe at once: it did not go down
    assert culprits.crashes_of(narrative_id) == 2


async def test_in_recovery_whoever_was_not_alone_is_spared_while_the_endpoint_is_unwell() -> None:
    world = World()
    world.down_for(30, FailureClass.TRANSIENT)
    await world.fail_until_open()
    world.down_for(30, FailureClass.TRANSIENT)
    assert await world.fail(alone=False) == SPARED_SUSPECT


async def test_at_concurrency_one_recovery_ends_with_a_success() -> None:
    world = World(concurrency=1)
    world.down_for(30, FailureClass.TRANSIENT)
    await world.fail_until_open()
    world.breaker.release_suspect()
    n_probes = world.n_probes
    world.record_success()
    assert await world.fail(alone=True) == CHARGED
    assert world.n_probes == n_probes


async def test_an_overload_closes_the_gate_and_is_never_charged() -> None:
    world = World()
    for _ in range(20):
        assert await world.fail(failure(FailureClass.OVERLOAD, retry_after_s=3)) == SPARED
        assert not world.limits.is_open_for_calls
        assert world.limits.waiting_for
        before_s = world.now_s
        await world.limits.wait_open()
        assert world.now_s - before_s >= 3
    assert (world.n_probes, world.slots.window) == (0, 8)


async def test_overloads_that_keep_coming_for_one_item_are_its_own_when_the_endpoint_answers_a_probe() -> None:
    world = World()
    overload = failure(FailureClass.OVERLOAD, retry_after_s=3)
    assert await world.fail(overload, n_overloads=OVERLOADS_IN_A_ROW - 1) == SPARED
    await world.limits.wait_open()
    assert await world.fail(overload, n_overloads=OVERLOADS_IN_A_ROW) == CHARGED
    assert world.limits.is_open_for_calls
    world.problem = lambda: failure(FailureClass.OVERLOAD)
    assert await world.fail(overload, n_overloads=OVERLOADS_IN_A_ROW) == SPARED
    assert not world.limits.is_open_for_calls


async def test_a_charged_failure_is_progress_towards_the_narratives_end() -> None:
    world = World(max_wait_s=60)
    for _ in range(50):
        charged, is_suspect = await world.fail(alone=True)
        assert charged
        if is_suspect:
            world.breaker.release_suspect()
        world.now_s += 30


async def test_a_confirmation_is_one_probe() -> None:
    world = World()
    assert await world.breaker.confirm() is None
    world.down_for(1e9)
    assert await world.breaker.confirm() is not None
    assert (world.n_probes, world.pauses_s) == (2, [])
