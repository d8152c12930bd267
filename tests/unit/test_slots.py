"""Promises of the limiter: never more than the window, retries first, and no slot lost to a cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narrun_async.errors import RunStopping
from narrun_async.limits.slots import Lane, Slots


async def let_others_run() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Worker:
    """Enters a lane, says so, and leaves when it is told to."""

    def __init__(self, lane: Lane, name: str, log: list[str]) -> None:
        self._leave = asyncio.Event()
        self.task = asyncio.create_task(self._work(lane, name, log))

    async def _work(self, lane: Lane, name: str, log: list[str]) -> None:
        async with lane:
            log.append(name)
            await self._leave.wait()

    async def leave(self) -> None:
        self._leave.set()
        await self.task
        await let_others_run()

    async def cancel(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await let_others_run()


@asynccontextmanager
async def workers(*made: Worker) -> AsyncIterator[None]:
    yield
    for worker in made:
        await worker.cancel()


async def test_no_more_than_the_limit_are_in() -> None:
    slots, log = Slots(3), list[str]()
    made = [Worker(slots.new, str(n), log) for n in range(10)]
    await let_others_run()
    assert (slots.held, log) == (3, ["0", "1", "2"])
    for worker in made:
        await worker.leave()
        assert slots.held <= 3
    assert (slots.held, slots.peak_held, log) == (0, 3, [str(n) for n in range(10)])


async def test_a_retry_goes_before_new_work_that_waited_longer() -> None:
    slots, log = Slots(1), list[str]()
    first = Worker(slots.new, "first", log)
    await let_others_run()
    new, retry = Worker(slots.new, "new", log), Worker(slots.retry, "retry", log)
    await let_others_run()
    for worker in (first, retry, new):
        await worker.leave()
    assert log == ["first", "retry", "new"]


async def test_a_newcomer_does_not_overtake_whoever_waits() -> None:
    slots, log = Slots(1), list[str]()
    first = Worker(slots.new, "first", log)
    await let_others_run()
    second = Worker(slots.new, "second", log)
    await let_others_run()
    await first.leave()
    third = Worker(slots.new, "third", log)
    await let_others_run()
    assert log == ["first", "second"]
    await second.leave()
    await third.leave()


async def test_whoever_is_cancelled_while_waiting_leaves_no_gap() -> None:
    slots, log = Slots(1), list[str]()
    holder = Worker(slots.new, "holder", log)
    await let_others_run()
    waiting = [Worker(slots.new, name, log) for name in "abc"]
    await let_others_run()
    await waiting[1].cancel()
    for worker in (holder, waiting[0], waiting[2]):
        await worker.leave()
    assert (slots.held, log) == (0, ["holder", "a", "c"])


async def test_whoever_is_cancelled_with_the_slot_in_hand_passes_it_on() -> None:
    slots, log = Slots(1), list[str]()
    holder = Worker(slots.new, "holder", log)
    await let_others_run()
    lucky, next_one = Worker(slots.new, "lucky", log), Worker(slots.new, "next", log)
    await let_others_run()
    holder._leave.set()
    await asyncio.sleep(0)  # the holder leaves and grants; the one it granted to has not run yet
    assert slots.held == 1
    assert log == ["holder"]
    await lucky.cancel()
    assert log == ["holder", "next"]
    await next_one.leave()
    assert slots.held == 0


async def test_an_exception_inside_gives_the_slot_back() -> None:
    slots = Slots(1)
    for lane in (slots.new, slots.retry):
        with pytest.raises(ValueError, match="made up"):
            async with lane:
                raise ValueError("made up")
    assert slots.held == 0


async def test_closing_turns_away_whoever_waits_and_whoever_comes() -> None:
    slots, log = Slots(1), list[str]()
    holder = Worker(slots.new, "holder", log)
    await let_others_run()
    waiting = [Worker(slots.new, "new", log), Worker(slots.retry, "retry", log)]
    await let_others_run()
    slots.close()
    for worker in waiting:
        with pytest.raises(RunStopping):
            await worker.task
    with pytest.raises(RunStopping):
        async with slots.new:
            pytest.fail("entered")
    await holder.leave()
    assert (slots.held, log) == (0, ["holder"])


async def test_the_window_opens_by_doubling_up_to_the_limit() -> None:
    slots, windows = Slots(20, window=4), list[int]()
    for _ in range(4):
        windows.append(slots.window)
        slots.widen()
    assert [*windows, slots.window, slots.is_narrowed] == [4, 8, 16, 20, 20, False]


async def test_widening_lets_in_as_many_as_fit() -> None:
    slots, log = Slots(8, window=1), list[str]()
    made = [Worker(slots.new, str(n), log) for n in range(8)]
    async with workers(*made):
        for expected in (1, 2, 4, 8):
            await let_others_run()
            assert slots.held == expected
            slots.widen()


async def test_narrowing_drives_nobody_out_but_lets_nobody_in() -> None:
    slots, log = Slots(3), list[str]()
    made = [Worker(slots.new, str(n), log) for n in range(5)]
    await let_others_run()
    slots.narrow()
    for worker, held in zip(made[:3], (2, 1, 1), strict=True):
        await worker.leave()
        assert slots.held == held
    assert log == ["0", "1", "2", "3"]
    for worker in made[3:]:
        await worker.leave()


async def test_at_a_limit_of_one_the_window_is_never_narrow() -> None:
    slots = Slots(1, window=4)
    slots.narrow()
    assert (slots.window, slots.is_narrowed) == (1, False)


async def test_a_larger_limit_lets_waiters_in_at_once_and_a_smaller_one_as_slots_come_back() -> None:
    slots, log = Slots(2), list[str]()
    made = [Worker(slots.new, str(n), log) for n in range(6)]
    async with workers(*made):
        await let_others_run()
        slots.resize(4)
        await let_others_run()
        assert slots.held == 4
        slots.resize(1)
        for worker, held in zip(made[:4], (3, 2, 1, 1), strict=True):
            await worker.leave()
            assert slots.held == held


async def test_a_resize_does_not_open_a_window_that_is_narrow_for_a_reason() -> None:
    slots = Slots(8)
    slots.narrow()
    slots.resize(16)
    assert (slots.window, slots.is_narrowed) == (1, True)


async def test_a_change_of_the_limit_is_noticed_once_even_if_it_came_before_the_wait() -> None:
    slots = Slots(2)
    slots.resize(4)
    slots.resize(8)
    await asyncio.wait_for(slots.wait_resized(), 1)
    waiting = asyncio.create_task(slots.wait_resized())
    await let_others_run()
    assert not waiting.done()
    slots.resize(3)
    await asyncio.wait_for(waiting, 1)


async def test_a_slot_is_wanted_back_for_a_retry_for_a_smaller_limit_and_at_the_end_and_not_for_new_work() -> None:
    slots, log = Slots(2), list[str]()
    made = [Worker(slots.new, name, log) for name in ("a", "b", "c")]
    async with workers(made[0], made[1]):
        await let_others_run()
        assert not slots.are_wanted_back
        retry = Worker(slots.retry, "retry", log)
        await let_others_run()
        assert slots.are_wanted_back
        await retry.cancel()
        assert not slots.are_wanted_back
        slots.resize(1)
        assert slots.are_wanted_back
        await made[0].leave()
        assert not slots.are_wanted_back
        slots.close()
        assert slots.are_wanted_back
        with pytest.raises(RunStopping):
            await made[2].task


async def test_a_narrowed_window_wants_back_what_is_held_beyond_it() -> None:
    slots, log = Slots(3), list[str]()
    made = [Worker(slots.new, str(number), log) for number in range(3)]
    async with workers(*made):
        await let_others_run()
        slots.narrow()
        for worker in made[:2]:
            assert slots.are_wanted_back
            await worker.leave()
        assert (slots.held, slots.are_wanted_back) == (1, False)


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["new", "retry", "leave", "cancel", "race"]), st.integers(0, 30)),
        st.tuples(st.sampled_from(["narrow", "widen"]), st.just(0)),
        st.tuples(st.just("resize"), st.integers(1, 6)),
    ),
    max_size=40,
)


@settings(max_examples=150)
@given(steps=_STEPS)
def test_whatever_happens_slots_are_counted_right_and_none_is_left_unused(steps: list[tuple[str, int]]) -> None:
    async def scenario() -> None:
        slots, log, made = Slots(3), list[str](), list[Worker]()
        for what, number in steps:
            held_before = slots.held
            match what:
                case "new" | "retry":
                    made.append(Worker(getattr(slots, what), str(len(made)), log))
                case "leave" | "cancel" | "race" if made:
                    worker = made.pop(number % len(made))
                    worker._leave.set()
                    if what == "race":
                        await asyncio.sleep(0)
                    if what != "leave":
                        worker.task.cancel()
                case "narrow":
                    slots.narrow()
                case "widen":
                    slots.widen()
                case "resize":
                    slots.resize(number)
            await let_others_run()
            assert slots.held <= max(slots.window, held_before)
            waiting = [future for future in (*slots._waiting_new, *slots._waiting_retries) if not future.done()]
            assert not waiting or slots.held >= slots.window
        for worker in made:
            worker.task.cancel()
        await asyncio.gather(*(worker.task for worker in made), return_exceptions=True)
        await let_others_run()
        assert slots.held == 0

    asyncio.run(scenario())
