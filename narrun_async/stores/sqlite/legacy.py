"""The predecessor's work in SQLite: its odd ids, and its experiments, taken up in one transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict

import aiosqlite

from narrun_async import __version__
from narrun_async.clock import utc_now, utc_text
from narrun_async.errors import UnknownExperimentError
from narrun_async.models import (
    AdoptionRecord,
    ExperimentId,
    IdRepair,
    IdRow,
    Inheritance,
    LegacySurvey,
    PastRun,
    RunMode,
    Selection,
    read_odd_id,
)
from narrun_async.stores.sqlite import legacy_statements as statements
from narrun_async.stores.sqlite.connection import transaction, wrap_sqlite_errors
from narrun_async.stores.sqlite.database import Database
from narrun_async.stores.sqlite.inheritance import list_reports, set_outside_aside
from narrun_async.stores.sqlite.schema import EXPERIMENTS
from narrun_async.stores.sqlite.statements import LOAD_EXPERIMENT


class LegacyPart(Database):
    """`ports.LegacyStore`."""

    async def list_rows_of_odd_ids(self) -> Sequence[IdRow]:
        with wrap_sqlite_errors(self.path):
            return await list_rows_of_odd_ids(self._reader)

    async def repair_ids(self, repairs: Sequence[IdRepair]) -> None:
        with self.wrap_errors():
            async with transaction(self.writer):
                for repair in repairs:
                    await self._repair_id(repair)

    async def _repair_id(self, repair: IdRepair) -> None:
        row = repair.row
        statement, table = (
            (statements.REPAIR_NARRATIVE_ID, "source_narratives")
            if row.is_narrative
            else (statements.REPAIR_RESULT_ID, "narrative_results")
        )
        change = {
            "why": "id repaired",
            "table_name": table,
            "row_key": row.row_id,
            "column_name": "incident_id",
            "old_value": row.incident_id,
            "new_value": repair.stands_for,
        }
        await self.writer.execute(statement, change)
        await self._note_change(change)

    async def survey_results(self, experiment_id: ExperimentId, data_checksum: str) -> LegacySurvey:
        scope = {"experiment_id": experiment_id, "data_checksum": data_checksum}
        counted = dict(await self.fetch_exactly_one(statements.SURVEY_RESULTS, scope))
        until = {"data_checksum": data_checksum, "last_narrative_id": counted["last_narrative_id"]}
        (rank,) = await self.fetch_exactly_one(statements.COUNT_UP_TO, until)
        return LegacySurvey(**counted, last_rank=rank)

    async def adopt_experiment(self, record: AdoptionRecord) -> None:
        cohort = record.cohort
        with self.wrap_errors():
            async with transaction(self.writer):
                before = await self._load_row(record.experiment_id)
                await set_outside_aside(
                    self.writer,
                    record.experiment_id,
                    data_checksum=cohort.data_checksum,
                    last_narrative_id=cohort.last_narrative_id,
                )
                await self.writer.execute(statements.INSERT_PAST_RUN, _past_run(record.experiment_id, record.past))
                await self._overwrite_experiment(record, before)
            # As for a new experiment: were the -wal lost, the journal could be asked.
            await self.writer.execute_fetchall("PRAGMA wal_checkpoint(PASSIVE)")

    async def _load_row(self, experiment_id: ExperimentId) -> sqlite3.Row:
        async with self.writer.execute(LOAD_EXPERIMENT, {"experiment_id": experiment_id}) as cursor:
            row = await cursor.fetchone()
        if row is None:
            raise UnknownExperimentError(experiment_id)
        return row

    async def _overwrite_experiment(self, record: AdoptionRecord, before: sqlite3.Row) -> None:
        unknown = record.columns.keys() - EXPERIMENTS.keys()
        if unknown:
            raise KeyError(f"not columns of experiments: {sorted(unknown)}")
        for name, value in record.columns.items():
            if before[name] is not None and before[name] != value:
                await self._note_change(
                    {
                        "why": "experiment taken up",
                        "table_name": "experiments",
                        "row_key": record.experiment_id,
                        "column_name": name,
                        "old_value": before[name],
                        "new_value": value,
                    }
                )
        assignments = ", ".join(f"{name} = :{name}" for name in record.columns)
        await self.writer.execute(
            f"UPDATE experiments SET {assignments} WHERE experiment_id = :experiment_id",
            {**record.columns, "experiment_id": record.experiment_id},
        )

    async def _note_change(self, change: dict[str, object]) -> None:
        stamp = {"changed_at": utc_text(utc_now()), "narrun_version": __version__}
        await self.writer.execute(statements.INSERT_CHANGE, change | stamp)

    async def load_inheritance(self, experiment_id: ExperimentId | None) -> Inheritance:
        scope = {"experiment_id": experiment_id, "mode": RunMode.LEGACY.value}
        counted = await self.fetch_exactly_one(statements.COUNT_INHERITED, scope)
        with wrap_sqlite_errors(self.path):
            set_aside = await list_reports(self._reader, experiment_id)
        return Inheritance(**dict(counted), set_aside=set_aside)


async def list_rows_of_odd_ids(connection: aiosqlite.Connection) -> Sequence[IdRow]:
    """As `ports.LegacyStore` says, of a file of any version."""
    async with connection.execute(statements.LIST_ODD_IDS) as cursor:
        odd = [found async for row in cursor if (found := read_odd_id(row[0])) is not None]
    ids = {one.written for one in odd} | {one.stands_for for one in odd if one.stands_for is not None}
    if not ids:
        return ()
    async with connection.execute(statements.LIST_ROWS_OF_IDS, {"ids": json.dumps(sorted(ids))}) as cursor:
        return [IdRow(**{**dict(row), "is_narrative": bool(row["is_narrative"])}) async for row in cursor]


def _past_run(experiment_id: ExperimentId, past: PastRun) -> dict[str, object]:
    return asdict(past) | {
        "experiment_id": experiment_id,
        "mode": RunMode.LEGACY.value,
        "selection": Selection.MISSING.value,
        "started_at": utc_text(past.started_at),
        "ended_at": None if past.ended_at is None else utc_text(past.ended_at),
    }
