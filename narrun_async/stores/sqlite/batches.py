"""Batches in SQLite: recorded when their file is whole, and brought from state to state one step at a time."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from narrun_async.batching.states import TRANSITIONS
from narrun_async.clock import utc_now, utc_text
from narrun_async.errors import BatchChangedError
from narrun_async.models import (
    Batch,
    BatchId,
    BatchItem,
    BatchState,
    ExperimentId,
    NarrativeId,
    NewBatch,
    Selection,
    WorkItem,
)
from narrun_async.stores.sqlite import batch_statements as statements
from narrun_async.stores.sqlite.connection import transact, transaction
from narrun_async.stores.sqlite.database import Database
from narrun_async.stores.sqlite.results import work_item
from narrun_async.stores.sqlite.schema import BATCHES


class BatchesPart(Database):
    """`ports.BatchStore`."""

    async def add_batch(self, new: NewBatch, items: Sequence[BatchItem]) -> Batch:
        columns = asdict(new) | {
            "selection": new.selection.value,
            "input_path": str(new.input_path),
            "exported_at": utc_text(utc_now()),
        }
        batch_ids: list[int | None] = []

        def write(connection: sqlite3.Connection) -> None:
            batch_id = connection.execute(statements.INSERT_BATCH, columns).lastrowid
            batch_ids.append(batch_id)
            rows = [(batch_id, one.narrative_id, one.row_num, one.replaces_error) for one in items]
            connection.executemany(statements.INSERT_BATCH_ITEM, rows)
            self.require_in_place()

        with self.wrap_errors():
            await transact(self.writer, write)
        return await self._load_batch(batch_ids[0])

    async def list_batches(self, experiment_id: ExperimentId | None = None) -> Sequence[Batch]:
        rows = await self.fetch_all(statements.LIST_BATCHES, {"experiment_id": experiment_id})
        return [_batch(row) for row in rows]

    async def advance_batch(self, batch: Batch, state: BatchState, changes: Mapping[str, object]) -> Batch:
        if state not in TRANSITIONS[batch.state]:
            raise ValueError(f"a batch that is {batch.state} cannot become {state}")
        if unknown := changes.keys() - BATCHES.keys():
            raise KeyError(f"not columns of batches: {sorted(unknown)}")
        values = {name: utc_text(one) if isinstance(one, datetime) else one for name, one in changes.items()}
        assignments = ", ".join(f"{name} = :{name}" for name in ("state", *values))
        values |= {"state": state.value, "batch_id": batch.batch_id, "was": batch.state.value}
        statement = statements.ADVANCE_BATCH.format(assignments=assignments)
        with self.wrap_errors():
            async with transaction(self.writer):
                cursor = await self.writer.execute(statement, values)
                self.require_in_place()
        if not cursor.rowcount:
            raise BatchChangedError(batch.number, was=batch.state.value)
        return await self._load_batch(batch.batch_id)

    async def list_spoken_for(
        self, experiment_id: ExperimentId, *, after: NarrativeId, until: NarrativeId
    ) -> Collection[NarrativeId]:
        parameters = {"experiment_id": experiment_id, "after": after, "until": until}
        return {NarrativeId(row[0]) for row in await self.fetch_all(statements.LIST_SPOKEN_FOR, parameters)}

    async def load_members(self, batch_id: BatchId) -> Mapping[NarrativeId, bool]:
        rows = await self.fetch_all(statements.LOAD_MEMBERS, {"batch_id": batch_id})
        return {NarrativeId(narrative_id): bool(is_done) for narrative_id, is_done in rows}

    async def load_batch_items(self, batch_id: BatchId, narrative_ids: Sequence[NarrativeId]) -> Sequence[WorkItem]:
        parameters = {"batch_id": batch_id, "narrative_ids": json.dumps(narrative_ids)}
        rows = await self.fetch_all(statements.LOAD_BATCH_ITEMS, parameters)
        return [work_item(row, row["row_num"]) for row in rows]

    async def count_recorded(self, experiment_id: ExperimentId | None = None) -> Mapping[BatchId, int]:
        rows = await self.fetch_all(statements.COUNT_RECORDED, {"experiment_id": experiment_id})
        return {BatchId(row["batch_id"]): row["n"] for row in rows}

    async def _load_batch(self, batch_id: int | None) -> Batch:
        return _batch(await self.fetch_exactly_one(statements.LOAD_BATCH, {"batch_id": batch_id}))


def _batch(row: sqlite3.Row) -> Batch:
    columns = dict(row)
    moments = {name: _moment(columns[name]) for name in ("intended_at", "polled_at", "closed_at")}
    return Batch(
        **columns
        | moments
        | {
            "selection": Selection(columns["selection"]),
            "state": BatchState(columns["state"]),
            "input_path": Path(columns["input_path"]),
            "exported_at": datetime.fromisoformat(columns["exported_at"]),
            "keeps_files": bool(columns["keeps_files"]),
        }
    )


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
