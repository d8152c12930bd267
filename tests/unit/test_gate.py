"""Promises of the overload gate: it honours what the endpoint asks, invents a growing pause, and never spins."""

from __future__ import annotations

import random

import pytest

from narrun_async.errors import WaitedTooLongError
from narrun_async.limits.gate import LONGEST_WAIT_S, SHORTEST_WAIT_S, STAGGER_CAP_S, OverloadGate
from narrun_async.limits.patience import Patience


class World:
    """A clock that only sleeping moves, and a gate in it."""

    def __init__(self, *, max_wait_s: float = 1e9) -> None:
        self.now_s = 1000.0
        self.slept_s = list[float]()
        self.patience = Patience(max_wait_s, clock=lambda: self.now_s)
        self.gate = OverloadGate(self.patience, clock=lambda: self.now_s, sleep=self.sleep, rng=random.Random(7))

    async def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.now_s += seconds

    def refuse(self, *, started_s: float | None = None, retry_after_s: float | None = None) -> None:
        self.gate.close(
            call_started=self.now_s if started_s is None else started_s, retry_after_s=retry_after_s, problem="HTTP 429"
        )

    async def pause(self) -> float:
        """Seconds from now until the gate lets us through."""
        before_s = self.now_s
        await self.gate.wait_open()
        assert not self.gate.is_closed
        return self.now_s - before_s


async def test_it_is_open_until_somebody_is_refused() -> None:
    world = World()
    assert not world.gate.is_closed
    assert await world.pause() == 0


@pytest.mark.parametrize("retry_after_s", [0.5, 7.0, 120.0])
async def test_it_stays_closed_as_long_as_the_endpoint_asks_and_a_little_longer(retry_after_s: float) -> None:
    world = World()
    world.refuse(retry_after_s=retry_after_s)
    assert world.gate.is_closed
    assert retry_after_s <= await world.pause() <= retry_after_s + min(STAGGER_CAP_S, retry_after_s / 4)


async def test_without_a_hint_the_pause_doubles_with_every_wave_up_to_a_cap() -> None:
    world, pauses = World(), list[float]()
    for _ in range(8):
        world.refuse()
        pauses.append(world.gate._opens_at - world.now_s)
        await world.pause()
    assert pauses == pytest.approx([1, 2, 4, 8, 16, 30, 30, 30])


async def test_a_success_starts_the_pauses_anew() -> None:
    world = World()
    for _ in range(5):
        world.refuse()
        await world.pause()
    world.gate.record_success()
    world.refuse()
    assert await world.pause() <= 1.25


async def test_refusals_of_one_wave_count_once() -> None:
    world = World()
    sent_s = world.now_s
    world.now_s += 0.1
    opens_s = world.now_s + 1.0
    for _ in range(32):
        world.refuse(started_s=sent_s)
        world.now_s += 0.001
    assert world.gate._opens_at == opens_s
    await world.pause()
    world.refuse()
    assert world.gate._opens_at - world.now_s == pytest.approx(2.0)


async def test_a_longer_wish_of_the_same_wave_is_honoured_and_a_shorter_one_changes_nothing() -> None:
    world = World()
    sent_s = world.now_s
    world.refuse(started_s=sent_s, retry_after_s=2)
    world.refuse(started_s=sent_s, retry_after_s=10)
    world.refuse(started_s=sent_s, retry_after_s=1)
    world.refuse(started_s=sent_s)
    assert await world.pause() >= 10


async def test_an_endpoint_that_says_at_once_for_ever_is_not_called_in_a_tight_loop() -> None:
    world, n_calls = World(), 0
    while world.now_s < 1600:
        n_calls += 1
        world.refuse(retry_after_s=0.0)
        assert await world.pause() >= SHORTEST_WAIT_S
    assert n_calls < 40


@pytest.mark.parametrize("retry_after_s", [None, 1.0])
async def test_thousands_of_waves_change_nothing(retry_after_s: float | None) -> None:
    world = World()
    for _ in range(3000):
        world.refuse(retry_after_s=retry_after_s)
        assert await world.pause() <= LONGEST_WAIT_S + STAGGER_CAP_S
    world.refuse()


async def test_waiters_start_again_one_after_the_other() -> None:
    starts = set()
    for seed in range(20):
        world = World()
        world.gate._rng.seed(seed)
        world.refuse(retry_after_s=4)
        starts.add(round(await world.pause(), 3))
    assert len(starts) == 20
    assert max(starts) - min(starts) > 0.5


async def test_a_wait_beyond_max_wait_ends_the_run_instead() -> None:
    world = World(max_wait_s=60)
    with pytest.raises(WaitedTooLongError, match="429"):
        world.refuse(retry_after_s=61)


async def test_overload_without_end_runs_out_of_patience() -> None:
    world = World(max_wait_s=600)
    with pytest.raises(WaitedTooLongError):
        for _ in range(1000):
            world.refuse(retry_after_s=5)
            await world.pause()
    assert world.now_s < 1000 + 600
