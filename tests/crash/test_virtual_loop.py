"""What the loop with virtual time promises to those who test with it."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from virtual.loop import Crash, OutsideWorldError, VirtualLoop
from virtual.memory_store import MemoryStore
from virtual.tables import Tables

from narrun_async.errors import StorageError
from narrun_async.stores import open_sqlite_writer


async def five_workers() -> list[tuple[int, int]]:
    seen: list[tuple[int, int]] = []

    async def work(number: int) -> None:
        for turn in range(4):
            seen.append((number, turn))
            await asyncio.sleep(0)

    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(work, number)
    return seen


def test_time_jumps_to_the_next_timer_and_a_year_takes_no_time() -> None:
    async def year() -> float:
        await asyncio.sleep(365 * 86_400)
        return asyncio.get_running_loop().time()

    began = time.monotonic()
    assert VirtualLoop(0, start_s=7.0, most_s=400 * 86_400).run(year()) == pytest.approx(365 * 86_400 + 7, abs=0.001)
    assert time.monotonic() - began < 5


def test_one_seed_is_one_order_and_another_seed_another() -> None:
    orders = [VirtualLoop(seed).run(five_workers()) for seed in (1, 1, 2, 3)]
    assert orders[0] == orders[1]
    assert len({tuple(order) for order in orders}) == 3
    assert all(sorted(order) == sorted(orders[0]) for order in orders)


def test_timers_run_in_their_order_whatever_the_seed() -> None:
    async def main() -> list[float]:
        seen: list[float] = []
        for seconds in (3.0, 1.0, 2.0):
            asyncio.get_running_loop().call_later(seconds, seen.append, seconds)
        await asyncio.sleep(4)
        return seen

    assert all(VirtualLoop(seed).run(main()) == [1.0, 2.0, 3.0] for seed in range(10))


def test_a_crash_stops_dead_at_its_step_and_runs_nothing_more() -> None:
    whole = VirtualLoop(5)
    whole.run(five_workers())
    ends: list[int] = []

    async def main(steps: list[int]) -> None:
        try:
            steps += [number for number, _ in await five_workers()]
            await asyncio.sleep(1)
        finally:
            await asyncio.sleep(0)
            ends.append(1)

    for step in range(1, whole.steps):
        loop = VirtualLoop(5, crash_at=step)
        with pytest.raises(Crash) as crash:
            loop.run(main([]))
        assert crash.value.step == loop.steps == step
    assert not ends


def test_a_dead_process_writes_nothing_when_its_remains_are_cleared_away() -> None:
    tables = Tables()

    async def main() -> None:
        store = MemoryStore(tables, pause=lambda: asyncio.sleep(1))
        async with store._transaction() as draft:
            draft.put("sources", "b", (1,))

    loop = VirtualLoop(0)
    loop.run(main())
    assert tables.n_commits == 1
    commits = []
    for step in range(1, loop.steps):
        tables = Tables()
        with pytest.raises(Crash):
            VirtualLoop(0, crash_at=step).run(main())
        commits.append(tables.n_commits)
    assert commits == sorted(commits)
    assert {*commits} == {0, 1}


async def test_a_database_that_was_opened_again_takes_nothing_from_the_earlier_process(build: object) -> None:
    tables = Tables()
    earlier = MemoryStore(tables)
    await earlier.add_source(build.source(2), on_conflict="error")  # type: ignore[attr-defined]
    MemoryStore(tables)
    with pytest.raises(StorageError, match="opened again"):
        await earlier.create_experiment(build.new_experiment())  # type: ignore[attr-defined]


def test_signals_reach_the_handler_of_the_process() -> None:
    async def main() -> list[signal.Signals]:
        seen = []
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            loop = asyncio.get_running_loop()
            loop.deliver(signal.SIGTERM)  # type: ignore[attr-defined]
            loop.deliver(signal.SIGINT)  # type: ignore[attr-defined]
            async for number in signals:
                seen.append(number)
                if len(seen) == 2:
                    return seen
        return seen

    assert {*VirtualLoop(3).run(main())} == {signal.SIGINT, signal.SIGTERM}


# --- the outside world -----------------------------------------------------------------------------------------------


async def a_thread() -> None:
    threading.Thread(target=print).start()


async def a_swallowed_thread() -> None:
    try:
        threading.Thread(target=print).start()
    except RuntimeError:
        await asyncio.sleep(1)


async def the_default_executor() -> None:
    await asyncio.to_thread(print)


async def a_worker_of_anyio() -> None:
    await anyio.to_thread.run_sync(print)


async def a_socket() -> None:
    socket.socket().close()


async def a_connection() -> None:
    await asyncio.open_connection("127.0.0.1", 9)


async def a_server() -> None:
    await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)


async def a_name() -> None:
    await asyncio.get_running_loop().getaddrinfo("localhost", 80)


async def a_process() -> None:
    subprocess.run([sys.executable, "-c", ""], check=True)


async def a_wait_for_nothing() -> None:
    await asyncio.get_running_loop().create_future()


async def a_wait_beside_a_clock() -> None:
    while True:
        await asyncio.sleep(10)


@pytest.mark.parametrize(
    ("main", "says"),
    [
        (a_thread, "real thread"),
        (a_swallowed_thread, "real thread"),
        (the_default_executor, "real thread"),
        (a_worker_of_anyio, "real thread"),
        (a_socket, "real socket"),
        (a_connection, "real socket"),
        (a_server, "real socket"),
        (a_name, "real socket"),
        (a_process, "real process"),
        (a_wait_for_nothing, "outside of the virtual loop"),
        (a_wait_beside_a_clock, "on and on"),
    ],
)
def test_whoever_leaves_the_virtual_world_is_told(main: Callable[[], Awaitable[None]], says: str) -> None:
    with pytest.raises(OutsideWorldError, match=says):
        VirtualLoop(0).run(main())  # type: ignore[arg-type]


def test_the_thread_of_aiosqlite_is_told_too(tmp_path: Path) -> None:
    with pytest.raises(OutsideWorldError, match="real thread"):
        VirtualLoop(0).run(open_sqlite_writer(tmp_path / "experiments.db"))


def test_outside_of_its_runs_everything_is_allowed() -> None:
    VirtualLoop(0).run(asyncio.sleep(1))
    thread = threading.Thread(target=print)
    thread.start()
    thread.join()
    socket.socket().close()


def test_tasks_that_are_left_behind_fail_the_run() -> None:
    async def main() -> None:
        keep.append(asyncio.create_task(asyncio.sleep(5)))

    keep: list[asyncio.Task[None]] = []
    with pytest.raises(AssertionError, match="left behind"):
        VirtualLoop(0).run(main())
