"""Promises of the limits over real sockets: auto finds its level, rates and budgets hold, and bursts are recovered."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal

import pytest

from narrun_async.control import LiveSettings, RunControl, StopSignal, write_live_settings
from narrun_async.errors import BudgetSpentError, ExitCode
from narrun_async.limits import Budget, BudgetLimits
from narrun_async.models import Prices
from narrun_async.progress import Progress
from narrun_async.retrying import RetryPolicy

OpenRig = Callable[..., AbstractAsyncContextManager[Any]]
PRICES = Prices(prompt_per_million=2.0, completion_per_million=10.0)


async def until_saved(progress: Progress, n_rows: int) -> None:
    while progress.snapshot().n_saved < n_rows:
        await asyncio.sleep(0.005)


class Arrivals:
    """How many calls the endpoint has seen, at short intervals."""

    def __init__(self, endpoint: Any) -> None:
        self._endpoint = endpoint
        #: seconds of the loop's clock, calls so far, answers so far
        self.points = list[tuple[float, int, int]]()

    async def watch(self, progress: Progress, control: RunControl) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            stats = self._endpoint.stats()
            self.points.append((clock(), stats.calls, stats.calls_by_status.get("200", 0)))
            await asyncio.sleep(0.02)

    def most_calls_within(self, seconds: float) -> int:
        most = 0
        for at, calls, _ in self.points:
            later = [found for when, found, _ in self.points if at <= when <= at + seconds]
            most = max(most, later[-1] - calls)
        return most

    def answered_per_s(self, since_s: float, until_s: float) -> float:
        within = [(when, answered) for when, _, answered in self.points if since_s <= when <= until_s]
        return (within[-1][1] - within[0][1]) / (within[-1][0] - within[0][0])


# --- auto ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "behaviour",
    [{"latency_model": "slots", "slots": 24}, {"latency_model": "batching", "batch_slowdown": 0.01}],
    ids=["slots", "batching"],
)
async def test_auto_climbs_to_what_the_endpoint_serves_and_costs_no_narrative_anything(
    open_rig: OpenRig, behaviour: dict[str, Any]
) -> None:
    async with open_rig(1000, latency_ms=80, **behaviour) as rig:
        result = await rig.run(concurrency=None, max_concurrency=64)
        stats = rig.endpoint.stats()
        assert result.verdict.exit_code is ExitCode.COMPLETED
        assert await rig.error_rows() == {}
        assert 16 <= stats.peak_in_flight <= 64
        assert stats.calls == 1000
        await rig.assert_invariants()


async def test_auto_does_not_pass_its_maximum(open_rig: OpenRig) -> None:
    async with open_rig(300, latency_ms=100) as rig:
        result = await rig.run(concurrency=None, max_concurrency=6)
        assert result.verdict.exit_code is ExitCode.COMPLETED
        assert rig.endpoint.stats().peak_in_flight == 6


@pytest.mark.slow
@pytest.mark.long
async def test_auto_finds_the_rate_that_is_permitted_with_few_refusals(open_rig: OpenRig) -> None:
    """Ten minutes of it are in virtual time, in tests/unit; the first half minute is spent on learning the rate."""
    permitted_per_s, n_narratives = 20, 250
    async with open_rig(n_narratives, latency_ms=50, requests_per_s=permitted_per_s) as rig:
        arrivals = Arrivals(rig.endpoint)
        result = await rig.run(concurrency=None, watch=arrivals.watch)
        assert result.verdict.exit_code is ExitCode.COMPLETED
        assert await rig.error_rows() == {}
        ended_s = arrivals.points[-1][0]
        refused = rig.endpoint.stats().calls_by_status.get("429", 0)
        share = arrivals.answered_per_s(ended_s - 4.0, ended_s) / permitted_per_s
        print(
            f"{share:.3f} of the permitted rate at the end, {refused} refused, {ended_s - arrivals.points[0][0]:.1f} s"
        )
        assert 0.65 <= share <= 1.05
        assert 1 <= refused <= 0.05 * n_narratives


# --- rates that the user sets ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [None, 16])
async def test_requests_a_minute_are_kept(open_rig: OpenRig, concurrency: int | None) -> None:
    async with open_rig(60, latency_ms=30) as rig:
        arrivals = Arrivals(rig.endpoint)
        result = await rig.run(concurrency=concurrency, rpm=1200, watch=arrivals.watch)
        assert result.verdict.exit_code is ExitCode.COMPLETED
        took_s = arrivals.points[-1][0] - arrivals.points[0][0]
        assert 1.8 <= took_s <= 4.0  # (60 - 20 at once) at 20 a second
        assert arrivals.most_calls_within(1.0) <= 41  # a second's worth saved up, and a second's worth
        await rig.assert_invariants()


async def test_requests_a_minute_count_failed_calls_too(open_rig: OpenRig) -> None:
    async with open_rig(40, latency_ms=5, fault_rates={"http_500": 0.3}) as rig:
        arrivals = Arrivals(rig.endpoint)
        result = await rig.run(rpm=1200, watch=arrivals.watch)
        assert result.verdict.exit_code is ExitCode.COMPLETED
        assert rig.endpoint.stats().calls > 40
        assert arrivals.most_calls_within(1.0) <= 41


async def test_tokens_a_minute_are_kept_roughly(open_rig: OpenRig) -> None:
    async with open_rig(100, latency_ms=20) as rig:

        async def a_few(progress: Progress, control: RunControl) -> None:
            await until_saved(progress, 30)
            control.stop(BudgetSpentError(what="a sample", limit=1, spent=1))

        await rig.run(watch=a_few)
        n_rows = len(await rig.rows())
        twenty_calls = 20 * sum(await spent(rig)) / n_rows
        arrivals = Arrivals(rig.endpoint)
        result = await rig.run(tpm=60 * twenty_calls, watch=arrivals.watch)
        assert result.verdict.exit_code is ExitCode.COMPLETED
        took_s = arrivals.points[-1][0] - arrivals.points[0][0]
        ideal_s = (100 - n_rows - 20) / 20
        assert 0.8 * ideal_s <= took_s <= 1.5 * ideal_s + 0.5


async def test_a_signal_ends_a_run_that_waits_for_its_turn_at_once(open_rig: OpenRig) -> None:
    async with open_rig(50) as rig:

        async def interrupt(progress: Progress, control: RunControl) -> None:
            await until_saved(progress, 1)
            control.stop(BudgetSpentError(what="patience", limit=1, spent=1))

        async with asyncio.timeout(5):
            result = await rig.run(rpm=6, watch=interrupt)
        assert result.verdict.exit_code is ExitCode.TEMPORARY
        assert rig.endpoint.stats().calls == len(await rig.rows()) <= 2


# --- budgets ---------------------------------------------------------------------------------------------------------


async def spent(rig: Any) -> tuple[int, int]:
    prompt, completion = await rig.store.sum_tokens(rig.experiment.experiment_id)
    return prompt, completion


def a_budget(limits: BudgetLimits, already: tuple[int, int]) -> Budget:
    return Budget(limits, prompt_tokens=already[0], completion_tokens=already[1])


@pytest.mark.parametrize("kind", ["tokens", "cost"])
async def test_a_budget_stops_the_run_cleanly_counts_earlier_runs_and_is_hardly_passed(
    open_rig: OpenRig, kind: str
) -> None:
    async with open_rig(200, latency_ms=5) as rig:

        def measure(used: tuple[int, int]) -> float:
            return sum(used) if kind == "tokens" else PRICES.cost(prompt_tokens=used[0], completion_tokens=used[1])

        def limits(amount: float) -> BudgetLimits:
            if kind == "tokens":
                return BudgetLimits(max_tokens=int(amount))
            return BudgetLimits(max_cost=amount, prices=PRICES)

        async def a_few(progress: Progress, control: RunControl) -> None:
            await until_saved(progress, 40)
            control.stop(BudgetSpentError(what="a sample", limit=1, spent=1))

        await rig.run(watch=a_few)
        n_before = len(await rig.rows())
        before = measure(await spent(rig))
        per_row = before / n_before
        limit = before + 60 * per_row

        result = await rig.run(budget=a_budget(limits(limit), await spent(rig)))
        assert isinstance(result.problem, BudgetSpentError)
        assert (result.verdict.exit_code, result.verdict.status) == (ExitCode.TEMPORARY, "interrupted")
        n_more = len(await rig.rows()) - n_before
        assert 50 <= n_more <= 62
        assert measure(await spent(rig)) <= limit + 2 * per_row
        assert await rig.error_rows() == {}
        await rig.assert_invariants()

        calls = rig.endpoint.stats().calls
        result = await rig.run(budget=a_budget(limits(limit), await spent(rig)))
        assert isinstance(result.problem, BudgetSpentError)
        assert rig.endpoint.stats().calls <= calls + 8

        result = await rig.run(budget=a_budget(limits(1000 * limit), await spent(rig)))
        assert result.verdict.exit_code is ExitCode.COMPLETED
        assert rig.endpoint.stats().calls == 200
        await rig.assert_invariants()


async def test_a_budget_that_is_just_enough_does_not_stop_the_run(open_rig: OpenRig) -> None:
    async with open_rig(40, latency_ms=5) as rig:
        result = await rig.run(budget=Budget(BudgetLimits(max_tokens=10_000_000)))
        assert result.verdict.exit_code is ExitCode.COMPLETED
        assert result.problem is None


# --- retries ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_narratives", [pytest.param(1, marks=pytest.mark.long), 60])
async def test_a_narrative_that_is_always_refused_for_overload_ends_as_one_error_row(
    open_rig: OpenRig, n_narratives: int
) -> None:
    poison = "case-00000" if n_narratives == 1 else "case-00020"
    async with open_rig(n_narratives, latency_ms=4, retry_after_s=0.01, always={poison: "http_503"}) as rig:
        result = await rig.run(max_wait_s=12, max_passes=2)
        assert result.verdict.exit_code is ExitCode.COMPLETED_WITH_ERRORS
        assert [*(await rig.error_rows()).values()] == ["transient_exhausted"]
        assert len(await rig.rows()) == n_narratives
        await rig.assert_invariants()


async def test_an_endpoint_that_fails_half_of_the_time_costs_no_narrative_anything(open_rig: OpenRig) -> None:
    """The purse of retries empties, items are deferred, and the last pass may retry as it likes."""
    async with open_rig(400, latency_ms=3, fault_rates={"http_500": 0.5}) as rig:
        result = await rig.run(concurrency=16, retry=RetryPolicy(attempts=8, base_s=0.001, cap_s=0.01))
        assert result.verdict.exit_code is ExitCode.COMPLETED
        assert await rig.error_rows() == {}
        await rig.assert_invariants()


# --- bursts ----------------------------------------------------------------------------------------------------------

IN_FLIGHT, LATENCY_S = 128, 0.6


@pytest.mark.long
async def test_after_a_gate_over_everything_the_rate_comes_back_and_the_restart_is_staggered(
    open_rig: OpenRig,
) -> None:
    async with open_rig(1400, latency_ms=1000 * LATENCY_S, latency_spread=0.3, retry_after_s=1.0) as rig:
        arrivals = Arrivals(rig.endpoint)
        reopened_s = list[float]()

        async def gate(progress: Progress, control: RunControl) -> None:
            watching = asyncio.create_task(arrivals.watch(progress, control))
            try:
                await until_saved(progress, 300)
                rig.endpoint.change_behaviour(fault_rates={"http_503": 1.0})
                while not rig.endpoint.stats().calls_by_status.get("503"):
                    await asyncio.sleep(0.002)
                while rig.endpoint.stats().in_flight:
                    await asyncio.sleep(0.002)
                rig.endpoint.change_behaviour(fault_rates={})
                calls = rig.endpoint.stats().calls
                while rig.endpoint.stats().calls == calls:
                    await asyncio.sleep(0.002)
                reopened_s.append(asyncio.get_running_loop().time())
                await asyncio.Event().wait()
            finally:
                watching.cancel()

        result = await rig.run(watch=gate, concurrency=IN_FLIGHT)
        assert result.verdict.exit_code is ExitCode.COMPLETED
        assert await rig.error_rows() == {}
        (start_s,) = reopened_s
        share = arrivals.answered_per_s(start_s + 1.0, start_s + 1.0 + 4 * LATENCY_S) * LATENCY_S / IN_FLIGHT
        print(f"{share:.3f} of the ideal rate")
        assert share >= 0.9
        restart = [(when, calls) for when, calls, _ in arrivals.points if start_s - 0.1 <= when <= start_s + 0.3]
        assert max(later[1] - earlier[1] for earlier, later in pairwise(restart)) <= IN_FLIGHT / 2


@pytest.mark.long
async def test_after_a_restart_of_the_server_the_rate_comes_back_within_few_calls(open_rig: OpenRig) -> None:
    async with open_rig(1500, latency_ms=1000 * LATENCY_S, latency_spread=0.3) as rig:
        arrivals = Arrivals(rig.endpoint)
        began_again_s = list[float]()

        async def restart(progress: Progress, control: RunControl) -> None:
            watching = asyncio.create_task(arrivals.watch(progress, control))
            try:
                await until_saved(progress, 300)
                await rig.endpoint.go_down()
                await asyncio.sleep(0.2)
                await rig.endpoint.come_up()
                answered = rig.endpoint.stats().calls_by_status["200"]
                while rig.endpoint.stats().calls_by_status["200"] == answered:
                    await asyncio.sleep(0.002)
                began_again_s.append(asyncio.get_running_loop().time())
                await asyncio.Event().wait()
            finally:
                watching.cancel()

        result = await rig.run(watch=restart, concurrency=IN_FLIGHT)
        assert result.verdict.exit_code is ExitCode.COMPLETED
        assert await rig.error_rows() == {}
        # The probe opens the window, so the first round of calls is a full one, if a little apart.
        start_s = began_again_s[0] + LATENCY_S
        share = arrivals.answered_per_s(start_s, start_s + 4 * LATENCY_S) * LATENCY_S / IN_FLIGHT
        print(f"{share:.3f} of the ideal rate")
        assert share >= 0.9


# --- changes by hand -------------------------------------------------------------------------------------------------


@pytest.mark.long
async def test_the_number_of_calls_may_be_changed_in_any_order_while_it_runs(open_rig: OpenRig) -> None:
    """Through the control file, as `narrun set` writes it."""
    async with open_rig(900, latency_ms=120) as rig:
        log_dir = rig.path.parent / "logs"
        log_dir.mkdir()
        rig.experiment = replace(rig.experiment, log_dir=str(log_dir))
        most = dict[Literal["auto"] | int, int]()

        async def steer(progress: Progress, control: RunControl) -> None:
            wishes: tuple[Literal["auto"] | int, ...] = (2, 40, "auto", 1, 24)
            for concurrency in wishes:
                write_live_settings(log_dir / "control.json", LiveSettings(pid=os.getpid(), concurrency=concurrency))
                await asyncio.sleep(0.8)
                looks = list[int]()
                for _ in range(20):
                    looks.append(progress.snapshot().in_flight)
                    await asyncio.sleep(0.01)
                most[concurrency] = max(looks)
            control_files.extend(one.name for one in log_dir.iterdir())

        control_files = list[str]()
        result = await rig.run(watch=steer, concurrency=8)
        assert result.verdict.exit_code is ExitCode.COMPLETED
        assert len(await rig.rows()) == 900
        assert 4 <= most.pop("auto") <= 64
        assert most == {2: 2, 40: 40, 1: 1, 24: 24}
        assert {"control.json", "live.json"} <= set(control_files)
        assert [*log_dir.iterdir()] == []
        await rig.assert_invariants()


@pytest.mark.parametrize("first", [pytest.param("pause", marks=pytest.mark.long), "outage"])
async def test_a_pause_and_an_outage_that_overlap_both_end_and_nothing_is_sent_meanwhile(
    open_rig: OpenRig, first: str
) -> None:
    async with open_rig(300, latency_ms=100) as rig:
        log_dir = rig.path.parent / "logs"
        log_dir.mkdir()
        rig.experiment = replace(rig.experiment, log_dir=str(log_dir))

        def ask(*, is_paused: bool) -> None:
            write_live_settings(log_dir / "control.json", LiveSettings(pid=os.getpid(), is_paused=is_paused))

        async def trouble(progress: Progress, control: RunControl) -> None:
            await until_saved(progress, 40)
            if first == "outage":
                await rig.endpoint.go_down()
            ask(is_paused=True)
            await asyncio.sleep(0.7)
            await rig.endpoint.go_down()
            calls = rig.endpoint.stats().calls
            await asyncio.sleep(0.3)
            await rig.endpoint.come_up()
            await asyncio.sleep(1.0)
            assert rig.endpoint.stats().calls == calls
            assert progress.snapshot().in_flight == 0
            ask(is_paused=False)

        result = await rig.run(watch=trouble, max_wait_s=5)
        assert result.verdict.exit_code is ExitCode.COMPLETED
        assert await rig.error_rows() == {}
        assert 1.5 <= result.progress.downtime_s <= result.progress.runtime_s
        await rig.assert_invariants()


async def test_a_paused_run_drains_at_a_signal_and_sends_nothing_more(open_rig: OpenRig) -> None:
    async with open_rig(300, latency_ms=100) as rig:
        log_dir = rig.path.parent / "logs"
        log_dir.mkdir()
        rig.experiment = replace(rig.experiment, log_dir=str(log_dir))

        async def pause_and_stop(progress: Progress, control: RunControl) -> None:
            await until_saved(progress, 20)
            write_live_settings(log_dir / "control.json", LiveSettings(pid=os.getpid(), is_paused=True))
            await asyncio.sleep(0.8)
            calls.append(rig.endpoint.stats().calls)
            control.stop(StopSignal(number=signal.SIGINT))

        calls = list[int]()
        result = await rig.run(watch=pause_and_stop, rpm=100_000)
        assert result.verdict.exit_code is ExitCode.SIGINT
        assert rig.endpoint.stats().calls == calls[0] == len(await rig.rows()) < 300
        assert (await rig.run()).verdict.exit_code is ExitCode.COMPLETED
        await rig.assert_invariants()
