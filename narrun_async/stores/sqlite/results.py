"""The remaining set and the results in SQLite: pages out by key, batches in, rows counted."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace

from narrun_async.clock import local_now, utc_now, utc_text
from narrun_async.metrics import ConfusionCounts
from narrun_async.models import (
    Attempt,
    CanaryCounts,
    CohortRow,
    Copy,
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
    Skip,
    SkipReason,
    UncalledCounts,
    WorkItem,
    WriterMessage,
)
from narrun_async.stores.sqlite import statements
from narrun_async.stores.sqlite.connection import transact, wrap_sqlite_errors
from narrun_async.stores.sqlite.database import Database
from narrun_async.stores.sqlite.result_rows import (
    attempt_row,
    canary_row,
    copy_row,
    result_row,
    serving_row,
    skip_row,
)

_PAGES = {
    Selection.MISSING: statements.PAGE_MISSING,
    Selection.ERRORS: statements.PAGE_ERRORS,
    Selection.MISSING_AND_ERRORS: statements.PAGE_MISSING_AND_ERRORS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RowKind:
    """Rows that one statement writes, and what each of them changes in the counters of its experiment."""

    statement: str
    new_rows: int = 1
    new_errors: int = 0
    new_skipped: int = 0


SKIPS = RowKind(statement=statements.INSERT_SKIP, new_skipped=1)


def _kinds(insert: str, replace_error: str) -> Mapping[tuple[bool, bool], RowKind]:
    """Whether an error row is replaced, and whether the new one is an error → the kind."""
    return {
        (False, False): RowKind(statement=insert),
        (False, True): RowKind(statement=insert, new_errors=1),
        (True, False): RowKind(statement=replace_error, new_rows=0, new_errors=-1),
        (True, True): RowKind(statement=replace_error, new_rows=0),
    }


_OUTCOMES = _kinds(statements.INSERT_RESULT, statements.REPLACE_ERROR)
_COPIES = _kinds(statements.INSERT_COPY, statements.REPLACE_COPY)

#: rows fetched at once while iterating over results
EXPORT_CHUNK_ROWS = 500
#: the rows of a cohort hold no texts
COHORT_CHUNK_ROWS = 5000


class ResultsPart(Database):
    """`ports.RemainingStore`, `ports.OutcomeStore` and `ports.ResultStore`."""

    # --- the remaining set ---

    async def load_page(
        self, experiment: Experiment, selection: Selection, *, run_id: RunId, after: PageCursor, limit: int
    ) -> Sequence[WorkItem]:
        page = _in_cohort(experiment, after=after, limit=limit) | {"run_id": run_id}
        rows = list(await self.fetch_all(_PAGES[selection], page))
        ranks = await self._load_ranks(experiment, rows, after)
        return [work_item(row, ranks[row["narrative_id"]]) for row in rows]

    async def load_skips(self, experiment: Experiment, *, after: PageCursor, limit: int) -> Sequence[Skip]:
        rows = list(await self.fetch_all(statements.PAGE_SKIPS, _in_cohort(experiment, after=after, limit=limit)))
        ranks = await self._load_ranks(experiment, rows, after)
        return [
            Skip(narrative_id=row["narrative_id"], row_num=ranks[row["narrative_id"]], reason=SkipReason.PLACEHOLDER)
            for row in rows
        ]

    async def load_copies(
        self, experiment: Experiment, selection: Selection, *, after: PageCursor, limit: int
    ) -> Sequence[Copy]:
        page = _in_cohort(experiment, after=after, limit=limit)
        page["takes_missing"] = selection is not Selection.ERRORS
        rows = list(await self.fetch_all(statements.PAGE_COPIES, page))
        ranks = await self._load_ranks(experiment, rows, after)
        return [
            Copy(
                narrative_id=row["narrative_id"],
                row_num=ranks[row["narrative_id"]],
                original_id=row["original_id"],
                error_category=row["error_category"] if row["error_occurred"] else None,
                replaces_error=bool(row["replaces_error"]),
            )
            for row in rows
        ]

    async def _load_ranks(
        self, experiment: Experiment, rows: Sequence[sqlite3.Row], after: PageCursor
    ) -> Mapping[int, int]:
        """Narrative → rank in the cohort, for the rows of a page."""
        if not rows:
            return {}
        between = await self.fetch_all(
            statements.IDS_BETWEEN,
            {
                "data_checksum": experiment.cohort.data_checksum,
                "after": after.narrative_id,
                "until": rows[-1]["narrative_id"],
            },
        )
        return {row[0]: rank for rank, row in enumerate(between, after.row_num + 1)}

    async def load_canaries(self, experiment: Experiment, *, limit: int) -> Sequence[WorkItem]:
        rows = await self.fetch_all(statements.LOAD_CANARIES, _in_cohort(experiment, after=PageCursor(), limit=limit))
        return [replace(work_item(row, 0), is_canary=True) for row in rows]

    async def count_uncalled(self, experiment: Experiment, selection: Selection) -> UncalledCounts:
        n_to_skip = n_to_copy = 0
        if selection is not Selection.ERRORS and (experiment.skips_placeholders or experiment.asks_identical_once):
            whole = _in_cohort(experiment, after=PageCursor(), limit=0)
            missing = await self.fetch_exactly_one(statements.COUNT_UNCALLED, whole)
            n_to_skip, n_to_copy = missing["n_to_skip"], missing["n_to_copy"]
        if experiment.asks_identical_once:
            copied = await self._count_copied_errors(experiment)
            n_to_copy += copied["n_behind" if selection is Selection.MISSING else "n_errors"]
        return UncalledCounts(n_to_skip=n_to_skip, n_to_copy=n_to_copy)

    async def _count_copied_errors(self, experiment: Experiment) -> sqlite3.Row:
        return await self.fetch_exactly_one(statements.COUNT_COPIED_ERRORS, {"experiment_id": experiment.experiment_id})

    async def count_remaining(self, experiment: Experiment, selection: Selection) -> int:
        n_remaining = (await self.count_results(experiment)).remaining(selection)
        if selection is Selection.MISSING and experiment.asks_identical_once:
            n_remaining += int((await self._count_copied_errors(experiment))["n_behind"])
        return n_remaining

    # --- writing ---

    async def write_batch(
        self, experiment_id: ExperimentId, run_id: RunId, messages: Sequence[WriterMessage], mark: ProgressMark
    ) -> None:
        attempts: list[tuple[object, ...]] = []
        servings: list[tuple[object, ...]] = []
        canaries: list[tuple[object, ...]] = []
        rows: dict[RowKind, list[tuple[object, ...]]] = {}
        for message in messages:
            if isinstance(message, Serving):
                servings.append(serving_row(experiment_id, run_id, message))
                continue
            if isinstance(message, Skip):
                rows.setdefault(SKIPS, []).append(skip_row(experiment_id, run_id, message))
                continue
            if isinstance(message, Copy):
                rows.setdefault(_COPIES[message.replaces_error, message.error_category is not None], []).append(
                    copy_row(experiment_id, run_id, message)
                )
                continue
            if isinstance(message, Outcome) and message.item.is_canary:
                canaries.append(canary_row(experiment_id, run_id, message))
                continue
            attempt = message if isinstance(message, Attempt) else message.attempt
            if attempt is not None:
                attempts.append(attempt_row(experiment_id, run_id, attempt))
            if isinstance(message, Outcome):
                row, is_error = result_row(experiment_id, run_id, message)
                rows.setdefault(_OUTCOMES[message.item.replaces_error, is_error], []).append(row)

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
            n_success=row["n_rows"] - row["n_errors"] - row["n_skipped"],
            n_errors=row["n_errors"],
            n_skipped=row["n_skipped"],
            n_copied=row["n_copied"],
        )

    async def count_confusion(self, experiment_id: ExperimentId) -> ConfusionCounts:
        row = await self.fetch_exactly_one(statements.COUNT_CONFUSION, {"experiment_id": experiment_id})
        return ConfusionCounts(tp=row["tp"], fp=row["fp"], fn=row["fn"], tn=row["tn"])

    async def count_detected(self, experiment_id: ExperimentId) -> tuple[int, int]:
        row = await self.fetch_exactly_one(statements.COUNT_DETECTED, {"experiment_id": experiment_id})
        return row["n_detected"], row["n_not_detected"]

    async def count_second_tries(self, experiment_id: ExperimentId) -> int:
        row = await self.fetch_exactly_one(statements.COUNT_SECOND_TRIES, {"experiment_id": experiment_id})
        return int(row[0])

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

    async def iter_cohort(self, experiment: Experiment) -> AsyncIterator[CohortRow]:
        parameters = {
            "experiment_id": experiment.experiment_id,
            "data_checksum": experiment.cohort.data_checksum,
            "last_narrative_id": experiment.cohort.last_narrative_id,
        }
        is_recorded = experiment.cohort.last_narrative_id > 0
        statement = statements.ITER_COHORT if is_recorded else statements.ITER_ROWS_AS_COHORT
        with wrap_sqlite_errors(self.path):
            async with self._reader.execute(statement, parameters) as cursor:
                while chunk := await cursor.fetchmany(COHORT_CHUNK_ROWS):
                    for row in chunk:
                        yield _cohort_row(row)


def _write_rows(
    connection: sqlite3.Connection,
    experiment_id: ExperimentId,
    run_id: RunId,
    rows: Mapping[RowKind, Sequence[tuple[object, ...]]],
    mark: ProgressMark,
) -> None:
    new_rows = new_errors = new_skipped = saved = 0
    for kind, group in rows.items():
        changed = connection.executemany(kind.statement, group).rowcount
        saved += changed
        new_rows += changed * kind.new_rows
        new_errors += changed * kind.new_errors
        new_skipped += changed * kind.new_skipped
    counted = {
        "experiment_id": experiment_id,
        "run_id": run_id,
        "new_rows": new_rows,
        "new_errors": new_errors,
        "new_skipped": new_skipped,
        "saved": saved,
        "now_local": local_now(),
        "now_utc": utc_text(utc_now()),
        "runtime_s": mark.runtime_s,
        "estimated_completion_time": mark.estimated_completion_time,
    }
    connection.execute(statements.COUNT_UP_EXPERIMENT, counted)
    connection.execute(statements.COUNT_UP_RUN, counted)


def _cohort_row(row: sqlite3.Row) -> CohortRow:
    return CohortRow(
        incident_id=row["incident_id"],
        narrative_type=row["narrative_type"],
        manual_flag_ind=row["manual_flag_ind"],
        manual_flag=row["manual_flag"],
        text_chars=row["text_chars"],
        text_flags=row["text_flags"],
        has_result=bool(row["has_result"]),
        detected=row["detected"],
        confidence=row["confidence"],
        error_category=row["error_category"],
        skip_reason=row["skip_reason"],
        copied_from=row["copied_from"],
        incident_year=row["incident_year"],
    )


def _in_cohort(experiment: Experiment, *, after: PageCursor, limit: int) -> dict[str, object]:
    """What the statements over a cohort are asked with."""
    return {
        "experiment_id": experiment.experiment_id,
        "data_checksum": experiment.cohort.data_checksum,
        "last_narrative_id": experiment.cohort.last_narrative_id,
        "skips_placeholders": experiment.skips_placeholders,
        "asks_identical_once": experiment.asks_identical_once,
        "after": after.narrative_id,
        "limit": limit,
    }


def work_item(row: sqlite3.Row, row_num: int) -> WorkItem:
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
