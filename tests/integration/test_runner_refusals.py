"""Promises of a run whose endpoint refuses without saying why, as LM Studio does when its model has crashed."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from deciding_server import SOUND, deciding
from raw_server import reply

from narrun_async.errors import ExitCode

pytestmark = pytest.mark.fault("N18")
OpenRig = Callable[..., AbstractAsyncContextManager[Any]]

CRASHED = reply(json.dumps({"error": "The model has crashed. (Exit code: null)"}).encode(), status="400 Bad Request")
NO_SUCH_PATH = reply(json.dumps({"error": "Unexpected endpoint or method."}).encode())


@pytest.mark.parametrize("concurrency", [1, 16])
async def test_a_model_that_crashes_and_comes_back_leaves_no_error_row(open_rig: OpenRig, concurrency: int) -> None:
    crashed_at = math.inf

    def decide(number: int, text: str, attempt: int) -> bytes:
        nonlocal crashed_at
        if number == 20:
            crashed_at = min(crashed_at, time.monotonic())
        # It is loaded again after a time in which a narrative could be refused many times over.
        return CRASHED if crashed_at <= time.monotonic() < crashed_at + 0.4 else SOUND

    async with open_rig(60) as rig, deciding(decide) as (decider, provider):
        result = await rig.run(provider=provider, concurrency=concurrency)
        assert (result.verdict.exit_code, result.verdict.status) == (ExitCode.COMPLETED, "completed")
        assert await rig.error_rows() == {}
        assert decider.n_probes >= 2
        await rig.assert_invariants()


async def test_a_narrative_that_is_refused_without_a_reason_is_asked_again_and_then_an_error_row(
    open_rig: OpenRig,
) -> None:
    def decide(number: int, text: str, attempt: int) -> bytes:
        return CRASHED if "case-00007" in text else SOUND

    async with open_rig(30) as rig, deciding(decide) as (decider, provider):
        result = await rig.run(provider=provider)
        assert result.verdict.exit_code is ExitCode.COMPLETED_WITH_ERRORS
        assert await rig.error_rows() == {8: "bad_request"}
        (row,) = [row for row in await rig.rows() if row["error_occurred"]]
        assert (row["attempt_count"], row["error_message"]) == (5, "HTTP 400")
        assert row["last_attempt_at"] is not None
        assert decider.n_calls == 29 + 5
        await rig.assert_invariants()


@pytest.mark.parametrize("concurrency", [1, 8])
async def test_a_setting_that_is_refused_without_a_reason_stops_the_run_with_no_rows(
    open_rig: OpenRig, concurrency: int
) -> None:
    def decide(number: int, text: str, attempt: int) -> bytes:
        return CRASHED if number else SOUND  # probes are answered: they carry no such setting

    async with open_rig(100) as rig, deciding(decide) as (decider, provider):
        result = await rig.run(provider=provider, concurrency=concurrency)
        assert (result.verdict.exit_code, result.verdict.status) == (ExitCode.CONFIGURATION, "failed")
        assert await rig.rows() == []
        assert decider.n_calls <= 5 * 2 * concurrency + 25  # five for each item that is open
        await rig.assert_invariants()


async def test_an_endpoint_that_answers_nothing_with_a_completion_is_waited_for_and_makes_no_rows(
    open_rig: OpenRig,
) -> None:
    """A wrong path of LM Studio: 200, and an error in the body, to probes as well."""

    def decide(number: int, text: str, attempt: int) -> bytes:
        return NO_SUCH_PATH

    async with open_rig(30) as rig, deciding(decide) as (_, provider):
        result = await rig.run(provider=provider, max_wait_s=0.3)
        assert (result.verdict.exit_code, result.verdict.status) == (ExitCode.TEMPORARY, "interrupted")
        assert await rig.rows() == []
        await rig.assert_invariants()
