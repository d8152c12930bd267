"""Promises of a run against real sockets and a real database: every narrative ends as exactly one row, and rightly."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from reliability import Measured

from narrun_async.control import RunControl, StopSignal
from narrun_async.errors import ExitCode
from narrun_async.models import RawReply, Selection
from narrun_async.progress import Progress
from narrun_async.retrying import CallError, CallProblem, RetryPolicy
from narrun_async.simulation.faults import draws_of, text_digest

OpenRig = Callable[..., AbstractAsyncContextManager[Any]]

#: part of the text of narrative 7, which has rank 8
POISON = "case-00007"


@pytest.mark.parametrize("concurrency", [1, 8, 32])
async def test_every_narrative_becomes_one_row_and_no_more_than_c_calls_are_in_flight(
    open_rig: OpenRig, concurrency: int
) -> None:
    async with open_rig(120, latency_ms=2 * concurrency) as rig:
        result = await rig.run(concurrency=concurrency)
        assert (result.verdict.exit_code, result.verdict.status) == (ExitCode.COMPLETED, "completed")
        stats = rig.endpoint.stats()
        assert stats.peak_in_flight == concurrency
        assert (stats.calls, stats.probes, stats.distinct_narratives) == (120, 0, 120)
        assert [row["row_num"] for row in await rig.rows()] == list(range(1, 121))
        assert result.progress.n_saved == 120
        await rig.assert_invariants()


@pytest.mark.fault("N02", "N03", "N08")
@pytest.mark.parametrize(
    "faults",
    [
        pytest.param({"http_500": 0.1}, id="500"),
        pytest.param({"http_503": 0.1}, id="503"),
        pytest.param({"http_429": 0.1}, id="429", marks=pytest.mark.long),
        pytest.param({"reset": 0.1}, id="reset"),
        pytest.param({"timeout": 0.1}, id="timeout"),
        pytest.param({"http_500": 0.03, "http_503": 0.02, "reset": 0.03, "timeout": 0.02}, id="all"),
    ],
)
async def test_transient_faults_of_ten_percent_leave_no_error_row(open_rig: OpenRig, faults: dict[str, float]) -> None:
    async with open_rig(120, fault_rates=faults, retry_after_s=0.02, latency_ms=2) as rig:
        result = await rig.run(attempt_deadline_s=0.25, concurrency=16)
        assert result.verdict.exit_code is ExitCode.COMPLETED
        assert await rig.error_rows() == {}
        stats = rig.endpoint.stats()
        assert 120 < stats.calls <= 120 * 1.3
        failed = rig.query("SELECT COUNT(*) FROM attempts WHERE error_category IS NOT NULL")[0][0]
        assert failed == result.progress.n_failed_calls == stats.calls - 120
        assert rig.query("SELECT SUM(attempt_count) FROM narrative_results")[0][0] == stats.calls
        await rig.assert_invariants()


@pytest.mark.parametrize("concurrency", [1, 8])
@pytest.mark.parametrize("fault", ["http_500", "reset"])
async def test_a_poison_narrative_alone_is_an_error_row_and_the_run_ends(
    open_rig: OpenRig, fault: str, concurrency: int
) -> None:
    async with open_rig(24, always={POISON: fault}) as rig:
        result = await rig.run(concurrency=concurrency)
        assert (result.verdict.exit_code, result.verdict.status) == (ExitCode.COMPLETED_WITH_ERRORS, "completed")
        assert await rig.error_rows() == {8: "transient_exhausted"}
        assert rig.endpoint.stats().max_calls_per_narrative == 15
        assert [row["attempt_count"] for row in await rig.rows() if row["error_occurred"]] == [15]
        await rig.assert_invariants()


async def test_several_poison_narratives_take_nobody_with_them(open_rig: OpenRig) -> None:
    poison = {f"case-000{number}": "reset" for number in range(10, 18)}
    async with open_rig(80, always=poison, latency_ms=2) as rig:
        await rig.run(concurrency=8)
        assert await rig.error_rows() == dict.fromkeys(range(11, 19), "transient_exhausted")
        await rig.assert_invariants()


async def test_a_poison_narrative_that_is_left_over_ends_too(open_rig: OpenRig) -> None:
    async with open_rig(8, always={POISON: "http_400"}) as rig:
        await rig.run()
        rig.endpoint.change_behaviour(always={POISON: "http_500"})
        result = await rig.run(selection=Selection.ERRORS, concurrency=1)
        assert await rig.error_rows() == {8: "transient_exhausted"}
        assert result.verdict.exit_code is ExitCode.COMPLETED_WITH_ERRORS
        rig.endpoint.change_behaviour(always={})
        result = await rig.run(selection=Selection.ERRORS)
        assert result.verdict.exit_code is ExitCode.COMPLETED
        (row,) = [row for row in await rig.rows() if row["row_num"] == 8]
        assert row["first_error_message"].startswith("HTTP 400")
        assert row["attempt_count"] == 1 + 15 + 1
        await rig.assert_invariants()


async def test_one_refused_request_is_one_error_row(open_rig: OpenRig) -> None:
    async with open_rig(30, always={POISON: "http_400"}) as rig:
        result = await rig.run()
        assert result.verdict.exit_code is ExitCode.COMPLETED_WITH_ERRORS
        assert await rig.error_rows() == {8: "bad_request"}
        assert rig.endpoint.stats().calls == 30
        await rig.assert_invariants()


@pytest.mark.fault("A33")
async def test_broken_answers_become_exactly_the_error_rows_that_were_injected(open_rig: OpenRig, build: Any) -> None:
    rates = {"malformed": 0.1, "truncated": 0.05, "refusal": 0.05}
    async with open_rig(300, fault_rates=rates) as rig:
        await rig.run(concurrency=16)
        expected = dict[int, str]()
        for number in range(300):
            text = f"Read this account: {build.narrative(number).narrative_text}"
            draws = draws_of(text_digest(0, text))
            if draws.malformed < 0.1:
                expected[number + 1] = "bad_json"
            elif draws.truncated < 0.05:
                expected[number + 1] = "truncated"
            elif draws.refusal < 0.05:
                expected[number + 1] = "refusal"
        assert len(expected) > 30
        assert await rig.error_rows() == expected
        assert all(row["raw_response"] for row in await rig.rows())
        assert rig.endpoint.stats().calls == 300
        await rig.assert_invariants()


@pytest.mark.parametrize("concurrency", [1, 32])
@pytest.mark.parametrize(
    ("behaviour", "exit_words"),
    [
        pytest.param({"known_models": ("another-model",)}, "does not know the model", id="wrong model"),
        pytest.param({"unsupported_parameters": ("temperature",)}, "looks like a setting", id="unsupported parameter"),
        pytest.param({"auth_key": "another-key"}, "refuses the API key", id="wrong key"),
    ],
)
@pytest.mark.parametrize("latency_ms", [0, 30])
async def test_a_wrong_setting_stops_within_a_few_calls_and_writes_no_row(
    open_rig: OpenRig, behaviour: dict[str, Any], exit_words: str, concurrency: int, latency_ms: float
) -> None:
    async with open_rig(200, **behaviour, latency_ms=latency_ms) as rig:
        result = await rig.run(concurrency=concurrency)
        assert (result.verdict.exit_code, result.verdict.status) == (ExitCode.CONFIGURATION, "failed")
        assert exit_words in str(result.problem)
        assert await rig.rows() == []
        assert rig.endpoint.stats().calls <= 10
        assert (await rig.reload()).status == "failed"
        await rig.assert_invariants()


async def test_a_key_that_is_withdrawn_in_mid_run_keeps_what_was_saved(open_rig: OpenRig) -> None:
    async with open_rig(200, latency_ms=8) as rig:

        async def withdraw(progress: Progress, control: RunControl) -> None:
            while progress.snapshot().n_saved < 40:
                await asyncio.sleep(0.005)
            rig.endpoint.change_behaviour(auth_key="another-key")

        result = await rig.run(watch=withdraw)
        assert result.verdict.exit_code is ExitCode.CONFIGURATION
        assert await rig.error_rows() == {}
        assert 40 <= len(await rig.rows()) == result.progress.n_saved < 200
        rig.endpoint.change_behaviour(auth_key=None)
        assert (await rig.run()).verdict.exit_code is ExitCode.COMPLETED
        await rig.assert_invariants()


async def test_errors_are_retried_alone_and_what_is_missing_stays_missing(open_rig: OpenRig) -> None:
    async with open_rig(40, always={POISON: "malformed"}) as rig:

        async def stop_soon(progress: Progress, control: RunControl) -> None:
            while progress.snapshot().n_saved < 16:
                await asyncio.sleep(0.001)
            control.stop(StopSignal(number=signal.SIGINT))

        rig.endpoint.change_behaviour(latency_ms=25)
        await rig.run(watch=stop_soon, concurrency=2)
        rows_before, calls_before = await rig.rows(), rig.endpoint.stats().calls
        assert 16 <= len(rows_before) < 40
        rig.endpoint.change_behaviour(always={}, latency_ms=0)
        result = await rig.run(selection=Selection.ERRORS)
        assert rig.endpoint.stats().calls == calls_before + 1
        assert (result.verdict.exit_code, result.verdict.status) == (ExitCode.TEMPORARY, "interrupted")
        assert len(await rig.rows()) == len(rows_before)
        assert await rig.error_rows() == {}
        result = await rig.run(selection=Selection.MISSING_AND_ERRORS)
        assert result.verdict.exit_code is ExitCode.COMPLETED
        assert rig.endpoint.stats().calls == 41
        await rig.assert_invariants()


async def test_a_run_with_nothing_to_do_calls_nobody(open_rig: OpenRig) -> None:
    async with open_rig(10) as rig:
        await rig.run()
        result = await rig.run()
        assert result.verdict.exit_code is ExitCode.COMPLETED
        assert rig.endpoint.stats().calls == 10
        assert [run.n_saved for run in await rig.store.list_runs(rig.experiment.experiment_id)] == [10, 0]


async def test_identical_errors_in_a_row_stop_the_run(open_rig: OpenRig) -> None:
    async with open_rig(120, fault_rates={"malformed": 1.0}) as rig:
        result = await rig.run(max_consecutive_errors=20)
        assert (result.verdict.exit_code, result.verdict.status) == (ExitCode.CONFIGURATION, "failed")
        assert len(await rig.rows()) == 19
        await rig.assert_invariants()


@pytest.mark.fault("D12")
async def test_a_text_that_changed_in_the_database_is_not_sent(open_rig: OpenRig) -> None:
    async with open_rig(20) as rig:
        await rig.store.writer.execute(
            "UPDATE source_narratives SET narrative_text = 'tampered' WHERE narrative_id = 3"
        )
        await rig.run()
        assert await rig.error_rows() == {3: "source_changed"}
        assert rig.endpoint.stats().calls == 19
        await rig.assert_invariants()


class BreakingProvider:
    """A provider with a defect: calls for one narrative are lost at first and then meet a programming error."""

    def __init__(self, provider: Any, *, breaks_at: int) -> None:
        self._provider = provider
        self._breaks_at = breaks_at
        self._calls = 0

    async def complete(self, body: bytes) -> RawReply:
        if POISON.encode() in body:
            self._calls += 1
            if self._calls >= self._breaks_at:
                raise LookupError("made up")
            raise CallError(CallProblem.CONNECTION_LOST, "made up")
        reply: RawReply = await self._provider.complete(body)
        return reply

    async def aclose(self) -> None:
        return None


class BreakingPolicy(RetryPolicy):
    """A policy with a defect: it does not know how long to wait."""

    def backoff_s(self, attempt: int, rng: random.Random) -> float:
        raise LookupError("made up")


@pytest.mark.fault("P11")
async def test_a_defect_between_two_calls_costs_one_narrative_and_not_the_run(
    open_rig: OpenRig, measured: Measured
) -> None:
    async with open_rig(40) as rig:
        lossy = BreakingProvider(rig.provider, breaks_at=1000)
        result = await rig.run(provider=lossy, retry=BreakingPolicy(attempts=5), concurrency=16)
        assert result.verdict.exit_code is ExitCode.COMPLETED_WITH_ERRORS
        assert await rig.error_rows() == {8: "internal"}
        await rig.assert_invariants()
    measured("a defect in the retry loop: 1 error row `internal`, 39 of 39 others are successes")


@pytest.mark.fault("P11")
@pytest.mark.parametrize("breaks_at", [1, 2, 4])
async def test_a_defect_of_ours_costs_one_narrative_and_not_the_run(
    open_rig: OpenRig, breaks_at: int, measured: Measured
) -> None:
    async with open_rig(40) as rig:
        result = await rig.run(provider=BreakingProvider(rig.provider, breaks_at=breaks_at))
        assert result.verdict.exit_code is ExitCode.COMPLETED_WITH_ERRORS
        assert await rig.error_rows() == {8: "internal"}
        (row,) = [row for row in await rig.rows() if row["error_occurred"]]
        assert row["error_message"] == "defect in narrun: LookupError"
        await rig.assert_invariants()
    measured(f"a defect at call {breaks_at} of a narrative: 1 error row `internal`, 39 of 39 others are successes")
