"""The remaining set and the results in SQLite: pages out by key, batches in, rows counted."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace

from narrun_async.clock import local_now, utc_now, utc_text
from narrun_async.metrics import ConfusionCounts
from narrun_async.models import (
    Attempt,
    CanaryCounts,
    Experiment,
    ExperimentId,
    NarrativeId,
    Outcome,
    PageCursor,
    ProgressMark,
    ResultCounts,
    RunId,
    Selection,
    Serving,
    WorkItem,
    WriterMessage,
)
from narrun_async.stores.sqlite import statements
from narrun_async.stores.sqlite.connection import transact, wrap_sqlite_errors
from narrun_async.stores.sqlite.database import Database
from narrun_async.stores.sqlite.result_rows import attempt_row, canary_row, result_row, serving_row

_PAGES = {
    Selection.MISSING: statements.PAGE_MISSING,
    Selection.ERRORS: statements.PAGE_ERRORS,
    Selection.MISSING_AND_ERRORS: statements.PAGE_MISSING_AND_ERRORS,
}

#: rows fetched at once while iterating over results
EXPORT_CHUNK_ROWS = 500


class ResultsPart(Database):
    """`ports.RemainingStore`, `ports.OutcomeStore` and `ports.ResultStore`."""

    # --- the remaining set ---

    async def load_page(
        self, experiment: Experiment, selection: Selection, *, run_id: RunId, after: PageCursor, limit: int
    ) -> Sequence[WorkItem]:
        cohort = experiment.cohort
        parameters = {
            "experiment_id": experiment.experiment_id,
            "data_checksum": cohort.data_checksum,
            "last_narrative_id": cohort.last_narrative_id,
            "after": after.narrative_id,
            "limit": limit,
            "run_id": run_id,
        }
        rows = list(await self.fetch_all(_PAGES[selection], parameters))
        if not rows:
            return []
        until = rows[-1]["narrative_id"]
        between = await self.fetch_all(
            statements.IDS_BETWEEN,
            {"data_checksum": cohort.data_checksum, "after": after.narrative_id, "until": until},
        )
        ranks = {row[0]: rank for rank, row in enumerate(between, after.row_num + 1)}
        return [_work_item(row, ranks[row["narrative_id"]]) for row in rows]

    async def load_canaries(self, experiment: Experiment, *, limit: int) -> Sequence[WorkItem]:
        cohort = experiment.cohort
        parameters = {
            "experiment_id": experiment.experiment_id,
            "data_checksum": cohort.data_checksum,
            "last_narrative_id": cohort.last_narrative_id,
            "after": 0,
            "limit": limit,
        }
        rows = await self.fetch_all(statements.LOAD_CANARIES, parameters)
        return [replace(_work_item(row, 0), is_canary=True) for row in rows]

    async def count_remaining(self, experiment: Experiment, selection: Selection) -> int:
        return (await self.count_results(experiment)).remaining(selection)

    # --- writing ---

    async def write_batch(
        self, experiment_id: ExperimentId, run_id: RunId, messages: Sequence[WriterMessage], mark: ProgressMark
    ) -> None:
        attempts: list[tuple[object, ...]] = []
        servings: list[tuple[object, ...]] = []
        canaries: list[tuple[object, ...]] = []
        rows: dict[tuple[bool, bool], list[tuple[object, ...]]] = {}
        for message in messages:
            if isinstance(message, Serving):
                servings.append(serving_row(experiment_id, run_id, message))
                continue
            if isinstance(message, Outcome) and message.item.is_canary:
                canaries.append(canary_row(experiment_id, run_id, message))
                continue
            attempt = message if isinstance(message, Attempt) else message.attempt
            if attempt is not None:
                attempts.append(attempt_row(experiment_id, run_id, attempt))
            if isinstance(message, Outcome):
                row, is_error = result_row(experiment_id, run_id, message)
                rows.setdefault((message.item.replaces_error, is_error), []).append(row)

        def write(connection: sqlite3.Connection) -> None:
            for row in servings:
                connection.execute(statements.COMPLETE_SERVING, row[:5])
                connection.execute(statements.INSERT_SERVING, row)
            connection.executemany(statements.INSERT_CANARY_ANSWER, canaries)
            connection.executemany(statements.INSERT_ATTEMPT, attempts)
            _write_rows(connection, experiment_id, run_id, rows, mark)
            self.require_in_place()

        with self.wrap_errors():
            await transact(self.writer, write)

    # --- counting and reading ---

    async def count_results(self, experiment: Experiment) -> ResultCounts:
        row = await self.fetch_exactly_one(statements.COUNT_RESULTS, {"experiment_id": experiment.experiment_id})
        return ResultCounts(
            n_total=experiment.cohort.n_narratives,
            n_success=row["n_rows"] - row["n_errors"],
            n_errors=row["n_errors"],
        )

    async def count_confusion(self, experiment_id: ExperimentId) -> ConfusionCounts:
        row = await self.fetch_exactly_one(statements.COUNT_CONFUSION, {"experiment_id": experiment_id})
        return ConfusionCounts(tp=row["tp"], fp=row["fp"], fn=row["fn"], tn=row["tn"])

    async def count_detected(self, experiment_id: ExperimentId) -> tuple[int, int]:
        row = await self.fetch_exactly_one(statements.COUNT_DETECTED, {"experiment_id": experiment_id})
        return row["n_detected"], row["n_not_detected"]

    async def count_errors(self, experiment_id: ExperimentId) -> Mapping[str, int]:
        rows = await self.fetch_all(statements.COUNT_ERRORS, {"experiment_id": experiment_id})
        return {row["category"]: row["n"] for row in rows}

    async def sum_tokens(self, experiment_id: ExperimentId) -> tuple[int, int]:
        row = await self.fetch_exactly_one(statements.SUM_TOKENS, {"experiment_id": experiment_id})
        return row["prompt_tokens"], row["completion_tokens"]

    async def list_servings(self, experiment_id: ExperimentId) -> Sequence[Serving]:
        rows = await self.fetch_all(statements.LIST_SERVINGS, {"experiment_id": experiment_id})
        return [Serving(**{name: row[name] or None for name in row.keys()}) for row in rows]  # noqa: SIM118 - sqlite3.Row

    async def count_canaries(self, experiment_id: ExperimentId) -> CanaryCounts:
        row = await self.fetch_exactly_one(statements.COUNT_CANARIES, {"experiment_id": experiment_id})
        return CanaryCounts(n_asked=row["n_asked"], n_answered=row["n_answered"], n_flipped=row["n_flipped"])

    async def iter_results(self, experiment_id: ExperimentId) -> AsyncIterator[Mapping[str, object]]:
        with wrap_sqlite_errors(self.path):
            async with self._reader.execute(statements.ITER_RESULTS, {"experiment_id": experiment_id}) as cursor:
                while chunk := await cursor.fetchmany(EXPORT_CHUNK_ROWS):
                    for row in chunk:
                        yield dict(row)


def _write_rows(
    connection: sqlite3.Connection,
    experiment_id: ExperimentId,
    run_id: RunId,
    rows: Mapping[tuple[bool, bool], Sequence[tuple[object, ...]]],
    mark: ProgressMark,
) -> None:
    new_rows = new_errors = saved = 0
    for (replaces_error, is_error), group in rows.items():
        statement = statements.REPLACE_ERROR if replaces_error else statements.INSERT_RESULT
        changed = connection.executemany(statement, group).rowcount
        saved += changed
        if replaces_error:
            new_errors -= 0 if is_error else changed
        else:
            new_rows += changed
            new_errors += changed if is_error else 0
    counted = {
        "experiment_id": experiment_id,
        "run_id": run_id,
        "new_rows": new_rows,
        "new_errors": new_errors,
        "saved": saved,
        "now_local": local_now(),
        "now_utc": utc_text(utc_now()),
        "runtime_s": mark.runtime_s,
        "estimated_completion_time": mark.estimated_completion_time,
    }
    connection.execute(statements.COUNT_UP_EXPERIMENT, counted)
    connection.execute(statements.COUNT_UP_RUN, counted)


def _work_item(row: sqlite3.Row, row_num: int) -> WorkItem:
    return WorkItem(
        narrative_id=NarrativeId(row["narrative_id"]),
        row_num=row_num,
        incident_id=row["incident_id"],
        narrative_type=row["narrative_type"],
        narrative_text=row["narrative_text"],
        text_sha256=row["text_sha256"],
        manual_flag_ind=row["manual_flag_ind"],
        manual_flag=row["manual_flag"],
        replaces_error=bool(row["replaces_error"]),
    )
