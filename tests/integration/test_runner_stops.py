"""Promises of a run that is stopped: a first request drains it, a second ends it at once, and it can go on later."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from reliability import Measured

from narrun_async.control import RunControl, StopSignal
from narrun_async.errors import ExitCode
from narrun_async.models import RawReply, Selection
from narrun_async.progress import Progress
from narrun_async.retrying import CallError, CallProblem

OpenRig = Callable[..., AbstractAsyncContextManager[Any]]


async def until_saved(progress: Progress, n_rows: int) -> None:
    while progress.snapshot().n_saved < n_rows:
        await asyncio.sleep(0.002)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_drains_the_run_and_every_answer_that_arrived_is_saved(
    open_rig: OpenRig, number: signal.Signals
) -> None:
    async with open_rig(200, latency_ms=30) as rig:

        async def interrupt(progress: Progress, control: RunControl) -> None:
            await until_saved(progress, 40)
            os.kill(os.getpid(), number)

        result = await rig.run(watch=interrupt)
        assert (int(result.verdict.exit_code), result.verdict.status) == (128 + number, "interrupted")
        stats = rig.endpoint.stats()
        assert stats.calls_by_status == {"200": stats.calls}
        assert len(await rig.rows()) == stats.calls == result.progress.n_saved < 200
        assert rig.query("SELECT ended_why FROM runs") == [(f"stopped by {number.name}",)]
        await rig.assert_invariants()

        result = await rig.run()
        assert result.verdict.exit_code is ExitCode.COMPLETED
        assert rig.endpoint.stats().calls == 200
        assert [row["row_num"] for row in await rig.rows()] == list(range(1, 201))
        await rig.assert_invariants()


async def test_twenty_interrupted_runs_add_up_to_one(open_rig: OpenRig) -> None:
    async with open_rig(200, latency_ms=2, fault_rates={"http_500": 0.05, "reset": 0.05}) as rig:
        for turn in range(20):

            async def interrupt(progress: Progress, control: RunControl, turn: int = turn) -> None:
                await until_saved(progress, turn % 5)
                control.stop(StopSignal(number=signal.SIGINT))

            await rig.run(watch=interrupt)
            await rig.assert_invariants()
        result = await rig.run()
        assert result.verdict.exit_code is ExitCode.COMPLETED
        assert await rig.error_rows() == {}
        runs = await rig.store.list_runs(rig.experiment.experiment_id)
        assert sum(run.n_saved for run in runs) == 200
        columns = (await rig.reload()).columns
        assert columns["total_runtime_sec"] == pytest.approx(sum(run.runtime_s for run in runs))
        assert columns["n_narratives_total"] == 200


async def test_a_second_signal_ends_the_run_at_once(open_rig: OpenRig) -> None:
    async with open_rig(60, fault_rates={"timeout": 1.0}) as rig:
        signalled_s = list[float]()

        async def interrupt_twice(progress: Progress, control: RunControl) -> None:
            while progress.snapshot().in_flight < 4:
                await asyncio.sleep(0.002)
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(0.2)
            assert progress.snapshot().in_flight == 4
            signalled_s.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

        result = await rig.run(watch=interrupt_twice)
        assert time.monotonic() - signalled_s[0] < 1.0
        assert (result.verdict.exit_code, result.verdict.status) == (ExitCode.SIGINT, "interrupted")
        rig.endpoint.change_behaviour(fault_rates={})
        assert (await rig.run()).verdict.exit_code is ExitCode.COMPLETED
        await rig.assert_invariants()


@pytest.mark.parametrize("trouble", ["down", "overloaded", "failing"])
async def test_a_signal_is_obeyed_at_once_while_the_run_waits_for_the_endpoint(open_rig: OpenRig, trouble: str) -> None:
    async with open_rig(60, latency_ms=5, retry_after_s=30) as rig:
        signalled_s = list[float]()

        async def interrupt(progress: Progress, control: RunControl) -> None:
            await until_saved(progress, 10)
            if trouble == "down":
                await rig.endpoint.go_down()
            else:
                fault = "http_429" if trouble == "overloaded" else "http_500"
                rig.endpoint.change_behaviour(fault_rates={fault: 1.0})
            while not progress.snapshot().waiting_for:
                await asyncio.sleep(0.002)
            await asyncio.sleep(0.3)
            signalled_s.append(time.monotonic())
            control.stop(StopSignal(number=signal.SIGTERM))

        result = await rig.run(watch=interrupt)
        assert time.monotonic() - signalled_s[0] < 1.0
        assert result.verdict.exit_code is ExitCode.SIGTERM
        assert await rig.error_rows() == {}
        await rig.assert_invariants()


class DumbEndpoint:
    """A provider whose calls are lost, and whose probe is taken and never answered."""

    def __init__(self) -> None:
        self.is_probed = asyncio.Event()

    async def complete(self, body: bytes) -> RawReply:
        if b"Read this account" in body:
            raise CallError(CallProblem.CONNECTION_LOST, "made up")
        self.is_probed.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def aclose(self) -> None:
        return None


@pytest.mark.fault("P05")
@pytest.mark.parametrize("n_narratives", [1, 40], ids=["the probe that confirms", "the probe of the breaker"])
async def test_a_first_signal_does_not_wait_for_a_probe_that_hangs(
    open_rig: OpenRig, n_narratives: int, measured: Measured
) -> None:
    async with open_rig(n_narratives) as rig:
        endpoint, signalled_s = DumbEndpoint(), list[float]()

        async def interrupt(progress: Progress, control: RunControl) -> None:
            await endpoint.is_probed.wait()
            signalled_s.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

        result = await rig.run(provider=endpoint, watch=interrupt, max_passes=1)
        stopped_after_s = time.monotonic() - signalled_s[0]
        assert stopped_after_s < 1.0
        measured(f"SIGINT while a probe hangs: stopped after {stopped_after_s:.2f} s")
        assert (result.verdict.exit_code, result.verdict.status) == (ExitCode.SIGINT, "interrupted")
        assert await rig.rows() == []
        # each call that was made is in the ledger, and none of them was the narrative's fault
        assert rig.query("SELECT COUNT(*) > 0 FROM attempts") == [(1,)]
        await rig.assert_invariants()


async def test_a_stop_while_errors_are_retried_is_no_completion(open_rig: OpenRig) -> None:
    async with open_rig(40, fault_rates={"malformed": 1.0}) as rig:
        await rig.run()
        rig.endpoint.change_behaviour(fault_rates={}, latency_ms=20)

        async def interrupt(progress: Progress, control: RunControl) -> None:
            await until_saved(progress, 5)
            control.stop(StopSignal(number=signal.SIGINT))

        result = await rig.run(selection=Selection.ERRORS, watch=interrupt, concurrency=2)
        assert (result.verdict.exit_code, result.verdict.status) == (ExitCode.SIGINT, "interrupted")
        n_left = len(await rig.error_rows())
        assert 0 < n_left <= 35
        calls_before = rig.endpoint.stats().calls
        result = await rig.run(selection=Selection.ERRORS)
        assert result.verdict.exit_code is ExitCode.COMPLETED
        assert rig.endpoint.stats().calls == calls_before + n_left
        await rig.assert_invariants()


async def test_tasks_are_bounded_by_concurrency_and_not_by_the_number_of_narratives(open_rig: OpenRig) -> None:
    async with open_rig(2000) as rig:
        before, most = len(asyncio.all_tasks()), [0]

        async def count(progress: Progress, control: RunControl) -> None:
            while True:
                most[0] = max(most[0], len(asyncio.all_tasks()))
                await asyncio.sleep(0.005)

        result = await rig.run(watch=count, concurrency=16)
        assert result.verdict.exit_code is ExitCode.COMPLETED
        # workers, a connection that is being made for each slot, stages and watchers
        assert most[0] <= before + 3 * 16 + 10
        assert len(asyncio.all_tasks()) == before
        assert len(await rig.rows()) == 2000
        await rig.assert_invariants()
