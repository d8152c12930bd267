"""Experiments and runs in SQLite: created once, their derived columns filled again from rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from narrun_async.clock import local_now, utc_text
from narrun_async.errors import UnknownExperimentError
from narrun_async.models import (
    AnswerFormat,
    Cohort,
    Experiment,
    ExperimentId,
    ExperimentStatus,
    NarrativeId,
    NewExperiment,
    RunEnd,
    RunId,
    RunRecord,
    RunStart,
    Sweep,
    SweepId,
)
from narrun_async.stores.sqlite import statements
from narrun_async.stores.sqlite.connection import transaction
from narrun_async.stores.sqlite.database import Database
from narrun_async.stores.sqlite.experiment_rows import PROMPT_COLUMNS, experiment_columns
from narrun_async.stores.sqlite.schema import EXPERIMENTS


class ExperimentsPart(Database):
    """`ports.ExperimentStore` and `ports.SweepStore`."""

    async def create_experiment(self, new: NewExperiment) -> None:
        with self.wrap_errors():
            async with transaction(self.writer):
                await self._insert_experiment(new)
            await self._checkpoint()

    async def create_sweep(self, sweep: Sweep, experiments: Sequence[NewExperiment]) -> None:
        with self.wrap_errors():
            async with transaction(self.writer):
                await self.writer.execute(statements.INSERT_SWEEP, asdict(sweep))
                for new in experiments:
                    await self._insert_experiment(new)
            await self._checkpoint()

    async def find_sweep(self, name: str) -> Sweep | None:
        row = await self.fetch_one(statements.FIND_SWEEP, {"name": name})
        return Sweep(**dict(row)) if row else None

    async def list_sweep(self, sweep_id: SweepId) -> Sequence[Experiment]:
        return [_experiment(row) for row in await self.fetch_all(statements.LIST_SWEEP, {"sweep_id": sweep_id})]

    async def _insert_experiment(self, new: NewExperiment) -> None:
        columns = experiment_columns(new)
        names = ", ".join(columns)
        values = ", ".join(f":{name}" for name in columns)
        await self.writer.execute(f"INSERT INTO experiments ({names}) VALUES ({values})", columns)
        prompts = [(columns[f"{role}_sha256"], columns[role], new.created_at) for role in PROMPT_COLUMNS]
        await self.writer.executemany(statements.INSERT_PROMPT, [one for one in prompts if one[0] is not None])

    async def _checkpoint(self) -> None:
        """The file itself knows the experiment from now on; were its -wal lost, the journal could be asked."""
        await self.writer.execute_fetchall("PRAGMA wal_checkpoint(PASSIVE)")

    async def load_experiment(self, experiment_id: ExperimentId) -> Experiment:
        row = await self.fetch_one(statements.LOAD_EXPERIMENT, {"experiment_id": experiment_id})
        if row is None:
            raise UnknownExperimentError(experiment_id)
        return _experiment(row)

    async def list_experiments(self) -> Sequence[Experiment]:
        return [_experiment(row) for row in await self.fetch_all(statements.LIST_EXPERIMENTS, {})]

    async def begin_run(self, start: RunStart) -> RunId:
        columns = asdict(start) | {
            "started_at": utc_text(start.started_at),
            "now_local": local_now(),
            "mode": start.mode.value,
            "selection": start.selection.value,
        }
        with self.wrap_errors():
            async with transaction(self.writer):
                cursor = await self.writer.execute(statements.INSERT_RUN, columns)
                await self.writer.execute(statements.MARK_RUNNING, columns)
        assert cursor.lastrowid is not None
        return RunId(cursor.lastrowid)

    async def end_run(self, experiment_id: ExperimentId, run_id: RunId, end: RunEnd) -> None:
        columns = asdict(end) | {
            "experiment_id": experiment_id,
            "run_id": run_id,
            "ended_at": utc_text(end.ended_at),
            "status": end.status.value,
            "now_local": local_now(),
        }
        with self.wrap_errors():
            async with transaction(self.writer):
                await self.writer.execute(statements.END_RUN, columns)
                await self.writer.execute(statements.END_EXPERIMENT, columns)

    async def list_runs(self, experiment_id: ExperimentId) -> Sequence[RunRecord]:
        rows = await self.fetch_all(statements.LIST_RUNS, {"experiment_id": experiment_id})
        return [RunRecord(**dict(row) | {"api_url_overridden": bool(row["api_url_overridden"])}) for row in rows]

    async def update_experiment(self, experiment_id: ExperimentId, columns: Mapping[str, object]) -> None:
        unknown = columns.keys() - EXPERIMENTS.keys()
        if unknown:
            raise KeyError(f"not columns of experiments: {sorted(unknown)}")
        assignments = ", ".join(f"{name} = :{name}" for name in columns)
        with self.wrap_errors():
            async with transaction(self.writer):
                await self.writer.execute(
                    f"UPDATE experiments SET {assignments} WHERE experiment_id = :experiment_id",
                    dict(columns) | {"experiment_id": experiment_id},
                )


def _experiment(row: sqlite3.Row) -> Experiment:
    return Experiment(
        experiment_id=ExperimentId(row["experiment_id"]),
        name=row["experiment_name"] or "",
        status=_status(row["status"]),
        cohort=Cohort(
            data_checksum=row["data_checksum"] or "",
            last_narrative_id=NarrativeId(row["cohort_last_narrative_id"] or 0),
            n_narratives=row["n_narratives_total"] or 0,
        ),
        config_json=row["config_json"],
        config_sha256=row["config_sha256"],
        log_dir=row["log_dir"],
        skips_placeholders=bool(row["skip_placeholders"]),
        asks_identical_once=bool(row["ask_identical_once"]),
        created_at=row["created_at"] or "",
        columns=dict(row),
        answer_format=_answer_format(row["answer_format"]),
    )


def _answer_format(stored: str | None) -> AnswerFormat | None:
    """A verdict that nobody knows is none; the endpoint is asked again."""
    try:
        return AnswerFormat(stored or "")
    except ValueError:
        return None


def _status(stored: str | None) -> ExperimentStatus:
    """A status that the predecessor left blank or that nobody knows is that of work that was not finished."""
    try:
        return ExperimentStatus(stored or "")
    except ValueError:
        return ExperimentStatus.INTERRUPTED
