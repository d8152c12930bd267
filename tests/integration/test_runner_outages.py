"""Promises of a run whose endpoint goes away, pushes back or falls silent: it waits, and nobody pays for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from narrun_async.control import RunControl
from narrun_async.errors import ExitCode, WaitedTooLongError
from narrun_async.progress import Progress
from narrun_async.retrying import RetryPolicy

OpenRig = Callable[..., AbstractAsyncContextManager[Any]]


async def until_saved(progress: Progress, n_rows: int) -> None:
    while progress.snapshot().n_saved < n_rows:
        await asyncio.sleep(0.005)


@pytest.mark.fault("N01")
@pytest.mark.parametrize("concurrency", [1, 16])
async def test_an_endpoint_that_goes_down_in_mid_run_costs_no_narrative_anything(
    open_rig: OpenRig, concurrency: int
) -> None:
    n_narratives = 60 + 20 * concurrency
    async with open_rig(n_narratives, latency_ms=6) as rig:
        waited_for = list[str | None]()

        async def outage(progress: Progress, control: RunControl) -> None:
            await until_saved(progress, 30)
            await rig.endpoint.go_down()
            await asyncio.sleep(0.8)
            waited_for.append(progress.snapshot().waiting_for)
            await rig.endpoint.come_up()

        result = await rig.run(watch=outage, concurrency=concurrency)
        assert result.verdict.exit_code is ExitCode.COMPLETED
        assert await rig.error_rows() == {}
        assert len(await rig.rows()) == n_narratives
        assert waited_for[0]
        assert result.progress.downtime_s >= 0.5
        assert rig.endpoint.stats().calls <= n_narratives + 2 * concurrency
        await rig.assert_invariants()


@pytest.mark.parametrize("fault", ["http_500", "reset", "http_503", "http_429", "timeout"])
async def test_an_endpoint_that_fails_at_everything_for_a_while_costs_no_narrative_anything(
    open_rig: OpenRig, fault: str
) -> None:
    async with open_rig(200, latency_ms=8, retry_after_s=0.1) as rig:

        async def outage(progress: Progress, control: RunControl) -> None:
            await until_saved(progress, 30)
            rig.endpoint.change_behaviour(fault_rates={fault: 1.0})
            await asyncio.sleep(0.6)
            rig.endpoint.change_behaviour(fault_rates={})

        result = await rig.run(watch=outage, attempt_deadline_s=0.25)
        assert result.verdict.exit_code is ExitCode.COMPLETED
        assert await rig.error_rows() == {}
        assert 1 < rig.endpoint.stats().max_calls_per_narrative < 15
        await rig.assert_invariants()


async def test_before_a_narrative_is_given_up_the_endpoint_is_asked_whether_it_is_well(open_rig: OpenRig) -> None:
    """So few attempts that every narrative in flight would be given up before the breaker sees enough failures."""
    async with open_rig(120, latency_ms=10) as rig:

        async def outage(progress: Progress, control: RunControl) -> None:
            await until_saved(progress, 20)
            rig.endpoint.change_behaviour(fault_rates={"http_500": 1.0})
            await asyncio.sleep(0.5)
            rig.endpoint.change_behaviour(fault_rates={})

        few = RetryPolicy(attempts=1, base_s=0.0, cap_s=0.0)
        result = await rig.run(watch=outage, retry=few, max_passes=1, concurrency=2)
        assert result.verdict.exit_code is ExitCode.COMPLETED
        assert rig.endpoint.stats().calls > 120
        await rig.assert_invariants()


async def test_a_poison_narrative_does_not_hide_in_an_outage(open_rig: OpenRig) -> None:
    async with open_rig(200, latency_ms=6, always={"case-00040": "reset"}) as rig:

        async def outage(progress: Progress, control: RunControl) -> None:
            await until_saved(progress, 30)
            await rig.endpoint.go_down()
            await asyncio.sleep(0.7)
            await rig.endpoint.come_up()

        result = await rig.run(watch=outage, concurrency=8)
        assert result.verdict.exit_code is ExitCode.COMPLETED_WITH_ERRORS
        assert await rig.error_rows() == {41: "transient_exhausted"}
        await rig.assert_invariants()


async def test_an_endpoint_that_is_down_from_the_start_runs_out_of_patience_without_a_row(open_rig: OpenRig) -> None:
    async with open_rig(20) as rig:
        await rig.endpoint.go_down()
        result = await rig.run(max_wait_s=1.0)
        assert isinstance(result.problem, WaitedTooLongError)
        assert (result.verdict.exit_code, result.verdict.status) == (ExitCode.TEMPORARY, "interrupted")
        assert await rig.rows() == []
        await rig.endpoint.come_up()
        assert (await rig.run()).verdict.exit_code is ExitCode.COMPLETED
        await rig.assert_invariants()


async def test_an_endpoint_that_goes_down_for_good_leaves_what_was_saved_and_no_error(open_rig: OpenRig) -> None:
    async with open_rig(200, latency_ms=6) as rig:

        async def end(progress: Progress, control: RunControl) -> None:
            await until_saved(progress, 25)
            rig.endpoint.change_behaviour(fault_rates={"http_500": 1.0})

        result = await rig.run(watch=end, max_wait_s=1.0)
        assert result.verdict.exit_code is ExitCode.TEMPORARY
        assert 25 <= len(await rig.rows()) < 200
        assert await rig.error_rows() == {}
        await rig.assert_invariants()


@pytest.mark.fault("N06")
async def test_a_rate_limit_is_waited_out_and_never_an_error_row(open_rig: OpenRig) -> None:
    async with open_rig(120, requests_per_s=60) as rig:
        result = await rig.run(concurrency=16)
        assert result.verdict.exit_code is ExitCode.COMPLETED
        stats = rig.endpoint.stats()
        assert stats.calls_by_status["200"] == 120
        charged = rig.query("SELECT COUNT(*), COALESCE(SUM(charged), 0) FROM attempts WHERE http_status = 429")
        assert charged == [(stats.calls_by_status["429"], 0)]
        assert stats.calls_by_status["429"] > 0
        await rig.assert_invariants()


@pytest.mark.fault("N06")
async def test_retry_after_is_kept_by_everybody(open_rig: OpenRig) -> None:
    async with open_rig(400, latency_ms=4, retry_after_s=0.6) as rig:
        calls = list[int]()

        async def wave(progress: Progress, control: RunControl) -> None:
            await until_saved(progress, 16)
            rig.endpoint.change_behaviour(fault_rates={"http_429": 1.0})
            while not rig.endpoint.stats().calls_by_status.get("429"):
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.1)  # those in flight are through
            calls.append(rig.endpoint.stats().calls)
            rig.endpoint.change_behaviour(fault_rates={})
            await asyncio.sleep(0.35)
            calls.append(rig.endpoint.stats().calls)

        result = await rig.run(watch=wave)
        assert calls[0] == calls[1]
        assert result.verdict.exit_code is ExitCode.COMPLETED
        await rig.assert_invariants()


async def test_the_window_is_wide_open_again_after_an_outage(open_rig: OpenRig) -> None:
    async with open_rig(160, latency_ms=30) as rig:
        most_later = [0]

        async def outage(progress: Progress, control: RunControl) -> None:
            await until_saved(progress, 30)
            await rig.endpoint.go_down()
            await asyncio.sleep(0.2)
            await rig.endpoint.come_up()
            while True:
                most_later[0] = max(most_later[0], progress.snapshot().in_flight)
                await asyncio.sleep(0.002)

        await rig.run(watch=outage, concurrency=16)
        assert most_later[0] == 16
        assert rig.endpoint.stats().peak_in_flight == 16
