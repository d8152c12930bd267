"""Promises of a run that asks once more, with something changed, where an answer cannot be used."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

import pytest

from narrun_async.control import RunControl, StopSignal
from narrun_async.errors import ExitCode
from narrun_async.limits import Budget
from narrun_async.limits.budget import BudgetLimits
from narrun_async.models import CanaryCounts, RawReply, Selection
from narrun_async.planner import CanaryPlan
from narrun_async.ports import ChatProvider
from narrun_async.progress import Progress
from narrun_async.prompting import REMINDER, RequestFields
from narrun_async.retrying import CallError, CallProblem, RetryPolicy
from narrun_async.simulation.behaviour import Behaviour
from narrun_async.simulation.faults import fault_for, text_digest

pytestmark = pytest.mark.fault("A34")
OpenRig = Callable[..., AbstractAsyncContextManager[Any]]

FIELDS = RequestFields(
    model="model-of-tests", user_template="Read this account: <<TEXT>>", temperature=0.2, max_tokens=200, seed=7
)
#: part of the text of narrative 7, which has rank 8
PART = "case-00007"
BAD = {"malformed": 0.2, "truncated": 0.1, "refusal": 0.1}


@dataclass(kw_only=True)
class Watched:
    """A provider that keeps what is asked about one narrative, and may stand in the way of some of the calls."""

    provider: ChatProvider
    #: (number of the call about this narrative, from 1) → what happens instead of it; None: nothing
    instead: Callable[[int], RawReply | Exception | None] = lambda number: None
    requests: list[dict[str, Any]] = field(default_factory=list)

    async def complete(self, body: bytes) -> RawReply:
        if PART.encode() in body:
            self.requests.append(json.loads(body))
            happens = self.instead(len(self.requests))
            if isinstance(happens, TimeoutError):
                await asyncio.sleep(30)
            if isinstance(happens, Exception):
                raise happens
            if happens is not None:
                return happens
        return await self.provider.complete(body)

    async def aclose(self) -> None:
        return None


def error(status: int) -> RawReply:
    return RawReply(
        status=status, headers={"retry-after": "0.02"}, body=b'{"error": {"message": "m", "type": "made_up"}}'
    )


LOST = CallError(CallProblem.CONNECTION_LOST, "made up")
TOO_LARGE = CallError(CallProblem.TOO_LARGE, "made up")


async def row_of_part(rig: Any) -> dict[str, Any]:
    (row,) = [row for row in await rig.rows() if row["row_num"] == 8]
    return row  # type: ignore[no-any-return]


# --- what comes of it ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 16])
async def test_answers_that_a_second_try_mends_become_successes_that_say_so(
    open_rig: OpenRig, concurrency: int
) -> None:
    async with open_rig(120, fault_rates=BAD, mend_rate=0.5, enough_tokens=400) as rig:
        result = await rig.run(second_try=True, fields=FIELDS, concurrency=concurrency)
        assert result.verdict.exit_code is ExitCode.COMPLETED_WITH_ERRORS
        rows = await rig.rows()
        kinds = Counter(row["error_category"] or (row["parse_method"] or "").partition("+")[2] for row in rows)
        # Some answers stay bad, refusals are not argued with, all that were cut short come whole with twice the tokens.
        assert kinds.keys() == {"", "second_try", "bad_json", "refusal"}
        assert min(kinds.values()) > 2
        for row in rows:
            asked_twice = row["error_category"] == "bad_json" or "second_try" in (row["parse_method"] or "")
            assert row["attempt_count"] == 1 + asked_twice
        n_twice = kinds["second_try"] + kinds["bad_json"]
        stats = rig.endpoint.stats()
        assert (stats.calls, stats.distinct_narratives, stats.max_calls_per_narrative) == (120 + n_twice, 120, 2)
        assert (stats.probes, result.progress.n_failed_calls) == (0, n_twice)
        await rig.assert_invariants()


async def test_both_calls_are_in_the_ledger_and_in_the_token_counts(open_rig: OpenRig) -> None:
    async with open_rig(30, always={PART: "malformed"}, mend_rate=1.0) as rig:
        result = await rig.run(second_try=True)
        assert result.verdict.exit_code is ExitCode.COMPLETED
        calls = rig.query(
            "SELECT error_category, charged, http_status, prompt_tokens, completion_tokens FROM attempts"
            " WHERE narrative_id = 8 ORDER BY attempt_id"
        )
        assert [call[:3] for call in calls] == [("bad_json", 1, 200), (None, 1, 200)]
        assert all(tokens > 0 for call in calls for tokens in call[3:])
        row = await row_of_part(rig)
        assert (row["prompt_tokens"], row["completion_tokens"]) == calls[1][3:]
        assert row["parse_method"].endswith("+second_try")
        all_tokens = rig.query("SELECT SUM(prompt_tokens), SUM(completion_tokens) FROM attempts")[0]
        assert (result.summary.prompt_tokens, result.summary.completion_tokens) == all_tokens
        assert (result.progress.prompt_tokens, result.progress.completion_tokens) == all_tokens


async def test_an_answer_that_stays_bad_is_one_error_row_after_two_calls(open_rig: OpenRig) -> None:
    async with open_rig(30, always={PART: "malformed"}) as rig:
        result = await rig.run(second_try=True)
        assert result.verdict.exit_code is ExitCode.COMPLETED_WITH_ERRORS
        assert await rig.error_rows() == {8: "bad_json"}
        row = await row_of_part(rig)
        assert (row["attempt_count"], row["parse_method"]) == (2, None)
        assert "Simulated answer without JSON" in row["raw_response"]
        assert rig.endpoint.stats().calls == 31
        await rig.assert_invariants()


@pytest.mark.parametrize("fault", ["refusal", "truncated"])
async def test_a_refusal_and_a_cut_without_a_limit_to_raise_are_asked_about_once(open_rig: OpenRig, fault: str) -> None:
    async with open_rig(30, always={PART: fault}) as rig:
        await rig.run(second_try=True)
        assert await rig.error_rows() == {8: fault}
        assert rig.endpoint.stats().calls == 30


async def test_without_the_setting_the_first_answer_decides(open_rig: OpenRig) -> None:
    async with open_rig(30, always={PART: "malformed"}, mend_rate=1.0) as rig:
        await rig.run(second_try=False)
        assert await rig.error_rows() == {8: "bad_json"}
        assert rig.endpoint.stats().calls == 30


async def test_a_second_try_does_not_depend_on_how_often_failed_calls_are_tried_again(open_rig: OpenRig) -> None:
    async with open_rig(30, always={PART: "malformed"}, mend_rate=1.0) as rig:
        await rig.run(second_try=True, retry=RetryPolicy(attempts=1), max_passes=1)
        assert await rig.error_rows() == {}
        await rig.assert_invariants()


# --- what is asked ---------------------------------------------------------------------------------------------------


async def test_the_second_request_ends_with_the_reminder_and_has_the_next_seed(open_rig: OpenRig) -> None:
    async with open_rig(10, always={PART: "malformed"}, mend_rate=1.0) as rig:
        watched = Watched(provider=rig.provider)
        await rig.run(second_try=True, fields=FIELDS, provider=watched)
        first, second = watched.requests
        prompt = first["messages"][-1]["content"]
        assert second["messages"][-1].pop("content") == f"{prompt}\n\n{REMINDER}"
        first["messages"][-1].pop("content")
        assert (first.pop("seed"), second.pop("seed")) == (7, 8)
        assert first == second


async def test_the_second_request_after_a_cut_allows_twice_the_tokens_and_is_the_same_otherwise(
    open_rig: OpenRig,
) -> None:
    async with open_rig(10, always={PART: "truncated"}, enough_tokens=400) as rig:
        watched = Watched(provider=rig.provider)
        await rig.run(second_try=True, fields=FIELDS, provider=watched)
        first, second = watched.requests
        assert (first.pop("max_tokens"), second.pop("max_tokens")) == (200, 400)
        assert first == second
        assert (await row_of_part(rig))["parse_method"].endswith("+second_try")


# --- when the second call fails --------------------------------------------------------------------------------------


@pytest.mark.parametrize("happens", [error(500), error(503), error(429), LOST], ids=["500", "503", "429", "lost"])
async def test_a_second_call_that_fails_is_made_again_as_any_other(open_rig: OpenRig, happens: Any) -> None:
    async with open_rig(20, always={PART: "malformed"}, mend_rate=1.0) as rig:
        watched = Watched(provider=rig.provider, instead=lambda number: happens if number in (2, 3) else None)
        result = await rig.run(second_try=True, provider=watched)
        assert result.verdict.exit_code is ExitCode.COMPLETED
        assert (await row_of_part(rig))["attempt_count"] == len(watched.requests) == 4
        assert [REMINDER in str(request) for request in watched.requests] == [False, True, True, True]
        await rig.assert_invariants()


@pytest.mark.parametrize("happens", [error(400), error(413), TOO_LARGE], ids=["400", "413", "too large"])
async def test_where_the_second_request_is_refused_for_good_the_first_answer_stands(
    open_rig: OpenRig, happens: Any
) -> None:
    """As vLLM refuses twice the tokens where they do not fit beside the prompt."""
    async with open_rig(20, always={PART: "truncated"}) as rig:
        watched = Watched(provider=rig.provider, instead=lambda number: happens if number == 2 else None)
        await rig.run(second_try=True, fields=FIELDS, provider=watched)
        row = await row_of_part(rig)
        assert (row["error_category"], row["finish_reason"], row["attempt_count"]) == ("truncated", "length", 2)
        assert json.loads(row["raw_response"])["choices"]
        assert rig.query("SELECT COUNT(*) FROM attempts WHERE narrative_id = 8") == [(2,)]
        await rig.assert_invariants()


async def test_where_the_second_call_never_comes_through_the_first_answer_stands_after_every_pass(
    open_rig: OpenRig,
) -> None:
    async with open_rig(20, always={PART: "malformed"}) as rig:
        watched = Watched(provider=rig.provider, instead=lambda number: None if number % 6 == 1 else error(500))
        result = await rig.run(second_try=True, provider=watched)
        assert result.verdict.exit_code is ExitCode.COMPLETED_WITH_ERRORS
        row = await row_of_part(rig)
        assert (row["error_category"], row["attempt_count"]) == ("bad_json", 3 * 6)
        assert row["last_attempt_at"] is not None
        assert "Simulated answer without JSON" in row["raw_response"]
        await rig.assert_invariants()


async def test_a_longer_answer_that_outlasts_the_deadline_is_not_waited_for_again_and_again(
    open_rig: OpenRig,
) -> None:
    async with open_rig(20, always={PART: "truncated"}) as rig:
        watched = Watched(provider=rig.provider, instead=lambda number: None if number == 1 else TimeoutError())
        await rig.run(second_try=True, fields=FIELDS, provider=watched, attempt_deadline_s=0.2)
        row = await row_of_part(rig)
        assert (row["error_category"], row["attempt_count"]) == ("truncated", 2)
        assert len(watched.requests) == 2
        await rig.assert_invariants()


async def test_transient_faults_around_second_tries_change_no_result(open_rig: OpenRig, build: Any) -> None:
    """I19, over sockets: what becomes of a narrative does not depend on what failed on the way."""
    calm = Behaviour(fault_rates={"malformed": 0.3}, mend_rate=0.5)
    expected = dict[int, str]()
    for number in range(80):
        text = f"Read this account: {build.narrative(number).narrative_text}"
        asked = {"text": text, "digest": text_digest(0, text), "attempt": 1}
        if fault_for(calm, **asked) is not None:
            is_mended = fault_for(calm, **asked, is_reminded=True) is None
            expected[number + 1] = "mended" if is_mended else "bad_json"
    faults = {"malformed": 0.3, "http_500": 0.1, "reset": 0.1, "http_503": 0.05}
    async with open_rig(80, fault_rates=faults, mend_rate=0.5, retry_after_s=0.02) as rig:
        await rig.run(second_try=True, concurrency=16)
        found = {
            row["row_num"]: row["error_category"] or "mended"
            for row in await rig.rows()
            if row["error_occurred"] or "second_try" in row["parse_method"]
        }
        assert found == expected
        assert set(expected.values()) == {"mended", "bad_json"}
        await rig.assert_invariants()


# --- beside everything else ------------------------------------------------------------------------------------------


async def test_a_stop_between_the_two_calls_leaves_the_narrative_missing_and_it_is_asked_from_the_beginning(
    open_rig: OpenRig,
) -> None:
    async with open_rig(20, always={PART: "malformed"}, mend_rate=1.0) as rig:
        controls: list[RunControl] = []

        async def hold(progress: Progress, control: RunControl) -> None:
            controls.append(control)

        def stop(number: int) -> None:
            if number == 1:
                asyncio.get_running_loop().call_soon(controls[0].stop, StopSignal(number=signal.SIGINT))

        watched = Watched(provider=rig.provider, instead=stop)
        result = await rig.run(second_try=True, provider=watched, watch=hold, concurrency=1)
        assert (result.verdict.exit_code, result.verdict.status) == (ExitCode.SIGINT, "interrupted")
        assert len(watched.requests) == 1
        assert [row["row_num"] for row in await rig.rows()] == list(range(1, 8))
        # what was paid for is in the ledger all the same
        assert rig.query("SELECT error_category FROM attempts WHERE narrative_id = 8") == [("bad_json",)]
        await rig.run(second_try=True, provider=watched)
        assert [REMINDER in str(request) for request in watched.requests] == [False, False, True]
        assert (await row_of_part(rig))["attempt_count"] == 3
        await rig.assert_invariants()


async def test_identical_errors_in_a_row_are_counted_once_a_narrative(open_rig: OpenRig) -> None:
    async with open_rig(120, fault_rates={"malformed": 1.0}) as rig:
        result = await rig.run(second_try=True, max_consecutive_errors=20)
        assert (result.verdict.exit_code, result.verdict.status) == (ExitCode.CONFIGURATION, "failed")
        assert len(await rig.rows()) == 19
        await rig.assert_invariants()


async def test_bad_answers_are_no_failures_of_the_endpoint(open_rig: OpenRig) -> None:
    async with open_rig(60, fault_rates={"malformed": 1.0}, mend_rate=1.0) as rig:
        result = await rig.run(second_try=True, concurrency=8, max_consecutive_errors=5)
        assert result.verdict.exit_code is ExitCode.COMPLETED
        stats = rig.endpoint.stats()
        assert (stats.calls, stats.probes, result.progress.downtime_s) == (120, 0, 0)


async def test_error_rows_that_are_tried_again_get_their_second_try_too(open_rig: OpenRig) -> None:
    async with open_rig(20, always={PART: "malformed"}) as rig:
        await rig.run(second_try=True)
        rig.endpoint.change_behaviour(mend_rate=1.0)
        result = await rig.run(second_try=True, selection=Selection.ERRORS)
        assert result.verdict.exit_code is ExitCode.COMPLETED
        row = await row_of_part(rig)
        assert (row["error_occurred"], row["attempt_count"]) == (0, 4)
        assert row["first_error_message"] == "the answer holds no JSON object with 'detected'"
        await rig.assert_invariants()


async def test_canaries_are_asked_as_the_narratives_are_and_both_calls_count(open_rig: OpenRig) -> None:
    async with open_rig(40, fault_rates={"malformed": 1.0}, mend_rate=1.0, latency_ms=5) as rig:

        async def stop_at_ten(progress: Progress, control: RunControl) -> None:
            while progress.snapshot().n_saved < 10:
                await control.sleep(0.001)
            control.stop(StopSignal(number=signal.SIGINT))

        await rig.run(second_try=True, watch=stop_at_ten)
        result = await rig.run(second_try=True, canaries=CanaryPlan(count=4, every=500))
        assert result.verdict.exit_code is ExitCode.COMPLETED
        assert result.summary.canaries == CanaryCounts(n_asked=4, n_answered=4, n_flipped=0)
        ledger, canaries = (
            rig.query(f"SELECT SUM(prompt_tokens), SUM(completion_tokens) FROM {table} WHERE narrative_id = 1")
            for table in ("attempts", "canary_answers")
        )
        assert ledger == canaries
        await rig.assert_invariants()


async def test_a_budget_counts_both_calls(open_rig: OpenRig) -> None:
    async with open_rig(60, fault_rates={"malformed": 1.0}, mend_rate=1.0) as rig:
        budget = Budget(BudgetLimits(max_tokens=2_000))
        result = await rig.run(second_try=True, budget=budget, concurrency=1)
        assert (result.verdict.exit_code, result.verdict.status) == (ExitCode.TEMPORARY, "interrupted")
        spent = rig.query("SELECT SUM(prompt_tokens + completion_tokens) FROM attempts")[0][0]
        assert spent == budget.tokens <= 2_000
        await rig.assert_invariants()
