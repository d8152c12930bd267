"""Promises of a run whose database refuses: the calls stop, nothing that was called saved is lost, it can go on."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, closing
from typing import Any

import pytest

from narrun_async.control import RunControl, StopSignal
from narrun_async.errors import ExitCode
from narrun_async.progress import Progress
from narrun_async.runner import OUTCOME_QUEUE_ITEMS
from narrun_async.writer import BatchPolicy

OpenRig = Callable[..., AbstractAsyncContextManager[Any]]
CONCURRENCY = 8


async def until_saved(progress: Progress, n_rows: int) -> None:
    while progress.snapshot().n_saved < n_rows:
        await asyncio.sleep(0.002)


async def fill_the_disk(rig: Any) -> None:
    """A real SQLITE_FULL at the next page that SQLite would add."""
    async with rig.store.writer.execute("PRAGMA page_count") as cursor:
        (pages,) = [row[0] async for row in cursor]
    await rig.store.writer.execute(f"PRAGMA max_page_count = {pages}")


async def free_the_disk(rig: Any) -> None:
    await rig.store.writer.execute("PRAGMA max_page_count = 1073741823")


@pytest.mark.fault("D01")
async def test_a_full_disk_stops_the_calls_and_loses_nothing_that_was_saved(open_rig: OpenRig) -> None:
    async with open_rig(400, latency_ms=4) as rig:
        seen = dict[str, Any]()

        async def fill(progress: Progress, control: RunControl) -> None:
            await until_saved(progress, 50)
            await fill_the_disk(rig)
            while True:
                seen["saved"] = progress.snapshot().n_saved
                await asyncio.sleep(0.001)

        result = await rig.run(watch=fill, concurrency=CONCURRENCY)
        assert (result.verdict.exit_code, result.verdict.status) == (ExitCode.STORAGE, "failed")
        assert "disk is full" in str(result.problem)
        rows = await rig.rows()
        assert len(rows) == result.progress.n_saved >= seen["saved"]
        assert not any(row["error_occurred"] for row in rows)
        # what still fitted into pages that were there, and then what C workers, the queue and one batch hold
        room = CONCURRENCY + OUTCOME_QUEUE_ITEMS + BatchPolicy().max_rows
        assert rig.endpoint.stats().calls <= len(rows) + room

        await free_the_disk(rig)
        result = await rig.run()
        assert result.verdict.exit_code is ExitCode.COMPLETED
        after = {row["row_num"]: row for row in await rig.rows()}
        assert [after[row["row_num"]] for row in rows] == rows
        await rig.assert_invariants()


@pytest.mark.fault("D01")
async def test_a_disk_that_is_freed_in_time_costs_nothing(open_rig: OpenRig) -> None:
    async with open_rig(300, latency_ms=4) as rig:

        async def fill_and_free(progress: Progress, control: RunControl) -> None:
            await until_saved(progress, 50)
            await fill_the_disk(rig)
            calls, still_s = -1, time.monotonic()
            while time.monotonic() - still_s < 0.1:  # until no call has been made for a while
                if rig.endpoint.stats().calls != calls:
                    calls, still_s = rig.endpoint.stats().calls, time.monotonic()
                await asyncio.sleep(0.005)
            await free_the_disk(rig)

        result = await rig.run(watch=fill_and_free, storage_pauses_s=(0.1,) * 40)
        assert result.verdict.exit_code is ExitCode.COMPLETED
        assert rig.endpoint.stats().calls == 300
        await rig.assert_invariants()


async def test_a_signal_ends_the_wait_for_a_full_disk(open_rig: OpenRig) -> None:
    async with open_rig(300, latency_ms=4) as rig:
        signalled_s = list[float]()

        async def fill_and_interrupt(progress: Progress, control: RunControl) -> None:
            await until_saved(progress, 50)
            await fill_the_disk(rig)
            await asyncio.sleep(0.5)
            await free_the_disk(rig)
            signalled_s.append(time.monotonic())
            control.stop(StopSignal(number=signal.SIGINT))

        result = await rig.run(watch=fill_and_interrupt, storage_pauses_s=(30.0, 30.0))
        assert time.monotonic() - signalled_s[0] < 2.0
        assert (result.verdict.exit_code, result.verdict.status) == (ExitCode.SIGINT, "interrupted")
        assert len(await rig.rows()) == rig.endpoint.stats().calls  # the last try took the waiting batch, too
        await rig.assert_invariants()


@pytest.mark.fault("D07")
async def test_a_database_that_another_process_locks_for_a_while_costs_nothing(open_rig: OpenRig) -> None:
    async with open_rig(200, latency_ms=4) as rig:
        await rig.store.writer.execute("PRAGMA busy_timeout = 20")

        async def lock(progress: Progress, control: RunControl) -> None:
            await until_saved(progress, 40)
            with closing(sqlite3.connect(rig.path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                await asyncio.sleep(0.4)
                other.execute("ROLLBACK")

        result = await rig.run(watch=lock, storage_pauses_s=(0.05,) * 40)
        assert result.verdict.exit_code is ExitCode.COMPLETED
        assert rig.endpoint.stats().calls == 200
        await rig.assert_invariants()


@pytest.mark.fault("D09")
async def test_a_database_that_is_deleted_under_the_run_stops_it_within_a_flush(open_rig: OpenRig) -> None:
    async with open_rig(400, latency_ms=4) as rig:
        calls = list[int]()

        async def delete(progress: Progress, control: RunControl) -> None:
            await until_saved(progress, 50)
            rig.path.rename(rig.path.with_name("moved.db"))
            calls.append(rig.endpoint.stats().calls)

        result = await rig.run(watch=delete, concurrency=CONCURRENCY)
        assert (result.verdict.exit_code, result.verdict.status) == (ExitCode.STORAGE, "failed")
        assert "moved, deleted or replaced" in str(result.problem)
        assert rig.endpoint.stats().calls <= calls[0] + CONCURRENCY + OUTCOME_QUEUE_ITEMS + BatchPolicy().max_rows
