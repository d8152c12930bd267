"""Owns the rig of the runner's tests: a real database, a real provider, a simulated endpoint on a real socket."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from narrun_async.caller import CallSpec, FormatChoice
from narrun_async.control import RunControl
from narrun_async.limits import Budget, LimitSettings
from narrun_async.models import Experiment, Selection
from narrun_async.ports import ChatProvider
from narrun_async.progress import Progress
from narrun_async.prompting import RequestFields, RequestTemplate
from narrun_async.providers.openai_compatible import OpenAICompatibleProvider
from narrun_async.retrying import RetryPolicy
from narrun_async.runner import Runner, RunResult, RunSettings
from narrun_async.simulation.behaviour import Behaviour
from narrun_async.simulation.endpoint import SimulatedEndpoint
from narrun_async.stores import SqliteStore, open_sqlite_writer
from narrun_async.writer import BatchPolicy

Watch = Callable[[Progress, RunControl], Awaitable[None]]
LIMITS = LimitSettings(concurrency=8, max_wait_s=60)
SETTINGS = RunSettings(limits=LIMITS, max_passes=3, max_consecutive_errors=50, page_size=100)
FIELDS = RequestFields(model="model-of-tests", user_template="Read this account: <<TEXT>>", temperature=0.2)
#: waits so short that a test with retries stays quick
RETRY = RetryPolicy(attempts=5, base_s=0.002, cap_s=0.02)


@dataclass(kw_only=True)
class Rig:
    """One experiment, its database and its endpoint."""

    path: Path
    store: SqliteStore
    endpoint: SimulatedEndpoint
    provider: ChatProvider
    experiment: Experiment
    run_start: Callable[..., Any]

    async def run(
        self,
        *,
        selection: Selection = Selection.MISSING,
        watch: Watch | None = None,
        attempt_deadline_s: float = 20.0,
        fields: RequestFields = FIELDS,
        choice: FormatChoice | None = None,
        retry: RetryPolicy = RETRY,
        second_try: bool = False,
        provider: ChatProvider | None = None,
        storage_pauses_s: tuple[float, ...] = (0.02, 0.02),
        budget: Budget | None = None,
        **settings: Any,
    ) -> RunResult:
        """One run; `settings` are fields of RunSettings and LimitSettings, `watch` runs beside it."""

        async def nothing(progress: Progress, control: RunControl) -> None:
            return None

        of_limits = {name: settings.pop(name) for name in [*settings] if name in LimitSettings.__dataclass_fields__}
        chosen = replace(SETTINGS, limits=replace(LIMITS, **of_limits), **settings)
        runner = Runner(
            self.store,
            provider or self.provider,
            self.experiment,
            spec=CallSpec(
                template=RequestTemplate.build(fields),
                retry=retry,
                attempt_deadline_s=attempt_deadline_s,
                second_try=second_try,
                choice=choice,
            ),
            settings=chosen,
            budget=budget,
            batches=BatchPolicy(storage_pauses_s=storage_pauses_s),
            rng=random.Random(11),
        )
        start = self.run_start(self.experiment, selection)
        async with asyncio.timeout(50):
            return await runner.run(start, watch or nothing)  # type: ignore[arg-type]  # an Awaitable is enough

    async def reload(self) -> Experiment:
        return await self.store.load_experiment(self.experiment.experiment_id)

    async def rows(self) -> list[dict[str, Any]]:
        return [dict(row) async for row in self.store.iter_results(self.experiment.experiment_id)]

    async def error_rows(self) -> dict[int, str]:
        """Rank → category."""
        return {row["row_num"]: row["error_category"] for row in await self.rows() if row["error_occurred"]}

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """What another process reads of the file now."""
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as db:
            return db.execute(statement).fetchall()

    async def assert_invariants(self) -> None:
        """Faults §2: I1, I2, I4, I5, I7, I10 and I13, as far as rows alone show them."""
        experiment_id = self.experiment.experiment_id
        rows, experiment = await self.rows(), await self.reload()
        assert self.query("PRAGMA integrity_check") == [("ok",)]
        assert self.query("PRAGMA foreign_key_check") == []
        keys = {(row["incident_id"], row["narrative_type"]) for row in rows}
        assert len(keys) == len(rows) <= experiment.cohort.n_narratives == self.experiment.cohort.n_narratives
        for row in rows:
            if row["error_occurred"]:
                assert row["error_category"]
                assert row["error_message"]
                assert row["detected"] is None
            else:
                assert row["detected"] in (0, 1)
                assert row["error_category"] is None
        if experiment.status == "completed":
            assert len(rows) == experiment.cohort.n_narratives
        columns = experiment.columns
        assert columns["n_narratives_processed"] == columns["n_narratives_completed"] == len(rows)
        assert columns["n_errors"] == sum(row["error_occurred"] for row in rows)
        repeated = self.query(
            "SELECT narrative_id FROM attempts WHERE error_category IS NULL"
            f" AND experiment_id = '{experiment_id}' GROUP BY narrative_id HAVING COUNT(*) > 1"
        )
        assert repeated == []


OpenRig = Callable[..., AbstractAsyncContextManager[Rig]]


@pytest.fixture
def open_rig(tmp_path: Path, build: Any) -> OpenRig:
    """`open_rig(n_narratives, **behaviour)`; to be opened inside the test, as task groups must be."""

    @asynccontextmanager
    async def opened(n_narratives: int, **behaviour: Any) -> AsyncIterator[Rig]:
        path = tmp_path / "experiments.db"
        store = await open_sqlite_writer(path)
        try:
            source = build.source(n_narratives)
            await store.add_source(source, on_conflict="error")
            experiment = await build.experiment(store, source.checksum)
            async with SimulatedEndpoint(Behaviour(**behaviour)) as endpoint:
                provider = OpenAICompatibleProvider(url=endpoint.url, api_key="key-of-tests")
                try:
                    yield Rig(
                        path=path,
                        store=store,
                        endpoint=endpoint,
                        provider=provider,
                        experiment=experiment,
                        run_start=build.run_start,
                    )
                finally:
                    await provider.aclose()
        finally:
            await store.aclose()

    return opened
