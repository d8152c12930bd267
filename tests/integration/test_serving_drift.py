"""Promises about an endpoint that does not stay the same: who answered is known, a change is told or ends the run."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, closing
from dataclasses import dataclass, replace
from typing import Any

import pytest

from narrun_async.control import RunControl, StopSignal
from narrun_async.errors import ExitCode
from narrun_async.models import CanaryCounts, RawReply
from narrun_async.planner import CanaryPlan
from narrun_async.ports import ChatProvider
from narrun_async.progress import Progress
from narrun_async.stores import open_sqlite_writer

OpenRig = Callable[..., AbstractAsyncContextManager[Any]]


@dataclass(kw_only=True)
class Replaced:
    """The endpoint behind a provider, replaced by another one after so many answers."""

    provider: ChatProvider
    after: int
    fingerprint: str = "fp-new"
    server: str | None = None
    is_contrary: bool = False
    n_replies: int = 0

    async def complete(self, body: bytes) -> RawReply:
        reply = await self.provider.complete(body)
        self.n_replies += 1
        if self.n_replies <= self.after or reply.status != 200:
            return reply
        document = json.loads(reply.body)
        document["system_fingerprint"] = self.fingerprint
        if self.is_contrary:
            message = document["choices"][0]["message"]
            swapped = {"true": "false", "false": "true"}
            message["content"] = re.sub(r"\b(true|false)\b", lambda found: swapped[found[0]], message["content"])
        headers = {**reply.headers} if self.server is None else {**reply.headers, "server": self.server}
        return replace(reply, body=json.dumps(document).encode(), headers=headers)

    async def aclose(self) -> None:
        await self.provider.aclose()


async def test_who_answers_is_recorded_once(open_rig: OpenRig) -> None:
    async with open_rig(60, latency_ms=1) as rig:
        result = await rig.run()
        (known,) = await rig.store.list_servings(rig.experiment.experiment_id)
        assert (known.model, known.system_fingerprint) == ("simulated-keyword-rule", "simulated")
        assert result.summary.servings == [known]
        assert rig.query("SELECT COUNT(*), MIN(run_id) FROM servings") == [(1, 1)]


@pytest.mark.parametrize("changed", [{"fingerprint": "fp-new"}, {"fingerprint": "", "server": "other/2"}])
async def test_a_change_in_mid_run_is_told_and_both_are_recorded(open_rig: OpenRig, changed: dict[str, str]) -> None:
    async with open_rig(80, latency_ms=1) as rig:
        told: list[str | None] = []

        async def watch(progress: Progress, control: RunControl) -> None:
            while progress.notice is None:
                await control.sleep(0.001)
            told.append(progress.notice)

        result = await rig.run(provider=Replaced(provider=rig.provider, after=30, **changed), watch=watch)
        assert result.verdict.exit_code is ExitCode.COMPLETED
        before, now = result.summary.servings
        assert told == [f"the endpoint changed: {before} answered so far, {now} answers now"]
        assert before != now
        await rig.assert_invariants()


async def test_on_stop_nothing_of_the_new_one_is_stored_and_the_old_one_can_finish(open_rig: OpenRig) -> None:
    async with open_rig(80, latency_ms=1) as rig:
        result = await rig.run(provider=Replaced(provider=rig.provider, after=30), stops_on_model_change=True)
        assert (result.verdict.exit_code, result.verdict.status) == (ExitCode.TEMPORARY, "interrupted")
        assert "the endpoint changed" in result.verdict.why
        rows = await rig.rows()
        assert len(rows) == 30
        assert "fp-new" not in {row["system_fingerprint"] for row in rows}

        still_new = await rig.run(provider=Replaced(provider=rig.provider, after=0), stops_on_model_change=True)
        assert still_new.verdict.exit_code is ExitCode.TEMPORARY
        assert len(await rig.rows()) == 30

        result = await rig.run(stops_on_model_change=True)
        assert result.verdict.exit_code is ExitCode.COMPLETED
        assert len(await rig.store.list_servings(rig.experiment.experiment_id)) == 1
        await rig.assert_invariants()


async def test_canaries_are_counted_beside_the_results_and_never_among_them(open_rig: OpenRig) -> None:
    async with open_rig(200, latency_ms=25) as rig:
        result = await rig.run(canaries=CanaryPlan(count=5, every=60))
        assert result.summary.canaries == CanaryCounts(n_asked=15, n_answered=15, n_flipped=0)
        assert result.progress.n_saved == result.summary.counts.n_success == 200
        assert rig.endpoint.stats().calls == 215
        asked = rig.query("SELECT narrative_id, COUNT(*) FROM canary_answers GROUP BY narrative_id")
        assert asked == [(number, 3) for number in range(1, 6)]
        assert rig.query("SELECT COUNT(*) FROM narrative_results") == [(200,)]
        tokens = rig.query("SELECT SUM(prompt_tokens) FROM attempts")[0][0]
        assert result.summary.prompt_tokens == tokens + rig.query("SELECT SUM(prompt_tokens) FROM canary_answers")[0][0]
        await rig.assert_invariants()


async def test_canaries_of_a_resumed_run_come_first_and_show_that_answers_flip(open_rig: OpenRig) -> None:
    async with open_rig(200, latency_ms=5) as rig:

        async def stop_at_thirty(progress: Progress, control: RunControl) -> None:
            while progress.snapshot().n_saved < 30:
                await control.sleep(0.001)
            control.stop(StopSignal(number=signal.SIGINT))

        await rig.run(watch=stop_at_thirty)
        contrary = Replaced(provider=rig.provider, after=0, is_contrary=True)
        result = await rig.run(provider=contrary, canaries=CanaryPlan(count=4, every=500))
        assert result.verdict.exit_code is ExitCode.COMPLETED
        assert result.summary.canaries == CanaryCounts(n_asked=4, n_answered=4, n_flipped=4)
        before = [row["detected"] for row in (await rig.rows())[:4]]
        assert rig.query("SELECT 1 - detected FROM canary_answers ORDER BY narrative_id") == [(one,) for one in before]
        await rig.assert_invariants()


async def test_a_canary_that_gets_no_answer_costs_nothing_but_itself(open_rig: OpenRig) -> None:
    async with open_rig(100, latency_ms=25, fault_rates={"malformed": 0.3, "http_500": 0.1}) as rig:
        result = await rig.run(canaries=CanaryPlan(count=10, every=20))
        counts = result.summary.canaries
        assert counts.n_asked > 0
        assert counts.n_flipped == 0
        assert result.summary.counts.n_missing == 0
        assert set((await rig.error_rows()).values()) <= {"bad_json", "schema", "empty", "no_content", "ambiguous"}
        await rig.assert_invariants()


async def test_who_answered_before_that_was_recorded_is_known_after_the_migration(open_rig: OpenRig) -> None:
    async with open_rig(20, latency_ms=1) as rig:
        await rig.run()
        (known,) = await rig.store.list_servings(rig.experiment.experiment_id)
    with closing(sqlite3.connect(rig.path)) as database:
        database.executescript(
            "DROP TABLE servings; DROP TABLE canary_answers; DROP TABLE scrubs; PRAGMA user_version = 1"
        )
    store = await open_sqlite_writer(rig.path)
    try:
        servings = await store.list_servings(rig.experiment.experiment_id)
    finally:
        await store.aclose()
    # the header was not kept at that time
    assert servings == [replace(known, server=None)]


async def test_a_server_that_was_not_noted_is_noted_with_its_name_when_it_says_it(open_rig: OpenRig) -> None:
    async with open_rig(30, latency_ms=1) as rig:
        result = await rig.run(
            provider=Replaced(provider=rig.provider, after=10, fingerprint="simulated", server="u/1")
        )
        (serving,) = result.summary.servings
        assert serving.server == "u/1"
