"""The Store in memory: the reference that a run in virtual time works on, with the same promises as SQLite's.

It pauses where a database would, before and after every step of a transaction, so that a crash can fall between any two
of them. What a row holds comes from the production code (`result_rows`); when it may be written is decided here anew.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, replace

import anyio

from narrun_async.clock import local_now, utc_now, utc_text
from narrun_async.errors import StorageError, UnknownExperimentError
from narrun_async.metrics import ConfusionCounts
from narrun_async.models import (
    SECOND_TRY,
    AnswerFormat,
    Attempt,
    CanaryCounts,
    Cohort,
    CohortRow,
    Copy,
    DataSource,
    Experiment,
    ExperimentId,
    ExperimentStatus,
    FlagCounts,
    IngestReport,
    NarrativeId,
    NewExperiment,
    Outcome,
    PageCursor,
    ProgressMark,
    ResultCounts,
    RunEnd,
    RunId,
    RunRecord,
    RunStart,
    Screening,
    Selection,
    Serving,
    Skip,
    SkipReason,
    TextFlag,
    UncalledCounts,
    WorkItem,
    WriterMessage,
)
from narrun_async.ports import ConflictRule, NarrativeSource
from narrun_async.screening import ScreeningRules
from narrun_async.stores.sqlite.experiment_rows import experiment_columns
from narrun_async.stores.sqlite.schema import EXPERIMENTS
from virtual.ingest import count_flagged, insert_source, screen_narratives
from virtual.memory_rows import (
    insert_attempt,
    insert_canary_answer,
    insert_serving,
    key_of,
    write_copy,
    write_row,
    write_skip,
)
from virtual.tables import Draft, Row, Tables

_RUN_COLUMNS = ("run_id", "mode", "selection", "concurrency", "started_at", "ended_at", "runtime_s", "n_saved")


class MemoryStore:
    """`ports.Store`.

    :param pause: awaited wherever a database would take its time
    :param is_full: whether the disk takes nothing more
    """

    def __init__(
        self,
        tables: Tables | None = None,
        *,
        pause: Callable[[], Awaitable[None]] = lambda: asyncio.sleep(0),
        is_full: Callable[[], bool] = lambda: False,
    ) -> None:
        self._tables = tables or Tables()
        self._pause = pause
        self._is_full = is_full
        self._tables.epoch += 1
        self._epoch = self._tables.epoch
        self._is_writing = False

    async def aclose(self) -> None:
        await self._pause()

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Draft]:
        """BEGIN to COMMIT, shielded as a whole, as the one over SQLite is."""
        if self._is_writing:
            raise StorageError("SQLite refuses: cannot start a transaction within a transaction")
        with anyio.CancelScope(shield=True):
            self._is_writing = True
            try:
                await self._pause()
                draft = self._tables.draft()
                yield draft
                await self._pause()
                if self._is_full():
                    raise StorageError("the disk is full", advice="free some space, then resume", may_pass=True)
                if self._epoch != self._tables.epoch:
                    raise StorageError("the database was opened again by another process")
                self._tables.apply(draft)
                await self._pause()
            finally:
                self._is_writing = False

    # --- sources ---

    async def find_source(self, *, checksums: Sequence[str]) -> DataSource | None:
        await self._pause()
        return next((found for one in checksums if (found := self._source(one))), None)

    async def find_source_by_path(self, path: str) -> DataSource | None:
        found = [source for source in await self.list_sources() if source.path == path]
        return found[-1] if found else None

    async def list_sources(self) -> list[DataSource]:
        await self._pause()
        return [source for checksum in self._tables["sources"] if (source := self._source(checksum))]

    def _source(self, checksum: str) -> DataSource | None:
        ids = self._tables["sources"].get(checksum)
        if not ids:
            return None
        row = self._tables["source_narratives"][ids[0]]
        return DataSource(path=row["data_source"], checksum=checksum, n_narratives=len(ids), loaded_at=row["loaded_at"])

    async def add_source(
        self, source: NarrativeSource, *, on_conflict: ConflictRule, rules: ScreeningRules | None = None
    ) -> IngestReport:
        async with self._transaction() as draft:
            return await insert_source(draft, self._tables, source, on_conflict, rules, self._pause)

    async def screen_source(self, checksum: str, rules: ScreeningRules) -> Screening:
        async with self._transaction() as draft:
            return screen_narratives(draft, checksum, self._tables["sources"].get(checksum, ()), rules)

    async def load_screening(self, checksum: str) -> Screening | None:
        await self._pause()
        found: Screening | None = self._tables["latest_screenings"].get(checksum)
        return found

    async def count_flags(self, cohort: Cohort) -> FlagCounts | None:
        if await self.load_screening(cohort.data_checksum) is None:
            return None
        return count_flagged([narrative for _, narrative in self._ranked(cohort, PageCursor())])

    async def load_cohort(self, checksum: str, *, max_narratives: int | None) -> Cohort:
        await self._pause()
        ids = self._tables["sources"].get(checksum, ())[:max_narratives]
        last = NarrativeId(ids[-1] if ids else 0)
        return Cohort(data_checksum=checksum, last_narrative_id=last, n_narratives=len(ids))

    # --- experiments and runs ---

    async def create_experiment(self, new: NewExperiment) -> None:
        async with self._transaction() as draft:
            if draft.get("experiments", new.experiment_id) is not None:
                raise StorageError("SQLite refuses: UNIQUE constraint failed: experiments.experiment_id")
            draft.fill("experiments", new.experiment_id, dict(experiment_columns(new)))

    async def load_experiment(self, experiment_id: ExperimentId) -> Experiment:
        await self._pause()
        row = self._tables["experiments"].get(experiment_id)
        if row is None:
            raise UnknownExperimentError(experiment_id)
        return _experiment(row)

    async def list_experiments(self) -> list[Experiment]:
        await self._pause()
        newest_last = sorted(self._tables["experiments"].values(), key=lambda row: row["created_at"])
        return [_experiment(row) for row in reversed(newest_last)]

    async def begin_run(self, start: RunStart) -> RunId:
        columns = asdict(start) | {
            "mode": start.mode.value,
            "selection": start.selection.value,
            "started_at": utc_text(start.started_at),
            "runtime_s": 0.0,
            "n_saved": 0,
        }
        async with self._transaction() as draft:
            run_id = draft.next_number("runs")
            draft.fill("runs", run_id, columns | {"run_id": run_id})
            await self._pause()
            experiment = draft.get("experiments", start.experiment_id)
            draft.update(
                "experiments",
                start.experiment_id,
                status=ExperimentStatus.RUNNING.value,
                start_time=experiment["start_time"] or local_now(),
                end_time=None,
                narrun_version=start.narrun_version,
            )
        return RunId(run_id)

    async def end_run(self, experiment_id: ExperimentId, run_id: RunId, end: RunEnd) -> None:
        async with self._transaction() as draft:
            draft.update(
                "runs",
                run_id,
                ended_at=utc_text(end.ended_at),
                runtime_s=end.runtime_s,
                exit_code=int(end.exit_code),
                ended_why=end.ended_why,
            )
            await self._pause()
            runs = [draft.get("runs", one) for one in self._tables["runs"]]
            total_s = sum(row["runtime_s"] for row in runs if row["experiment_id"] == experiment_id)
            status = end.status.value
            forgets = {"estimated_completion_time": None} if end.status is ExperimentStatus.COMPLETED else {}
            draft.update(
                "experiments", experiment_id, status=status, end_time=local_now(), total_runtime_sec=total_s, **forgets
            )

    async def list_runs(self, experiment_id: ExperimentId) -> list[RunRecord]:
        await self._pause()
        rows = [row for row in self._tables["runs"].values() if row["experiment_id"] == experiment_id]
        return [RunRecord(**{name: row[name] for name in (*_RUN_COLUMNS, "exit_code", "ended_why")}) for row in rows]

    async def update_experiment(self, experiment_id: ExperimentId, columns: Mapping[str, object]) -> None:
        if unknown := columns.keys() - EXPERIMENTS.keys():
            raise KeyError(f"not columns of experiments: {sorted(unknown)}")
        async with self._transaction() as draft:
            draft.update("experiments", experiment_id, **columns)

    # --- the remaining set ---

    async def load_page(
        self, experiment: Experiment, selection: Selection, *, run_id: RunId, after: PageCursor, limit: int
    ) -> list[WorkItem]:
        await self._pause()
        items = list[WorkItem]()
        for rank, narrative in self._ranked(experiment.cohort, after):
            result = self._result(experiment, narrative)
            is_sent = _is_asked(experiment, narrative) and not (result is None and _is_skipped(experiment, narrative))
            if is_sent and _is_selected(result, selection, run_id):
                items.append(_work_item(narrative, rank, replaces_error=result is not None))
                if len(items) == limit:
                    break
        await self._pause()
        return items

    def _ranked(self, cohort: Cohort, after: PageCursor) -> Iterator[tuple[int, Row]]:
        """Rank and narrative of what comes after a narrative in the cohort."""
        ids = self._tables["sources"].get(cohort.data_checksum, ())
        begin, end = bisect_right(ids, after.narrative_id), bisect_right(ids, cohort.last_narrative_id)
        for rank, narrative_id in enumerate(ids[begin:end], after.row_num + 1):
            yield rank, self._tables["source_narratives"][narrative_id]

    def _result(self, experiment: Experiment, narrative: Row) -> Row | None:
        found: Row | None = self._tables["narrative_results"].get(key_of(experiment.experiment_id, narrative))
        return found

    async def load_skips(self, experiment: Experiment, *, after: PageCursor, limit: int) -> list[Skip]:
        await self._pause()
        return [
            Skip(narrative_id=narrative["narrative_id"], row_num=rank, reason=SkipReason.PLACEHOLDER)
            for rank, narrative in self._ranked(experiment.cohort, after)
            if _is_placeholder(narrative) and self._result(experiment, narrative) is None
        ][:limit]

    async def load_copies(
        self, experiment: Experiment, selection: Selection, *, after: PageCursor, limit: int
    ) -> list[Copy]:
        await self._pause()
        copies = list[Copy]()
        for rank, narrative in self._ranked(experiment.cohort, after):
            if _is_first(narrative):
                continue
            original = self._result(experiment, self._tables["source_narratives"][narrative["same_text_as"]])
            result = self._result(experiment, narrative)
            if original is None or original["skip_reason"] is not None:
                continue
            if selection is not Selection.ERRORS if result is None else _is_behind(result, original):
                copies.append(
                    Copy(
                        narrative_id=narrative["narrative_id"],
                        row_num=rank,
                        original_id=narrative["same_text_as"],
                        error_category=original["error_category"],
                        replaces_error=result is not None,
                    )
                )
        return copies[:limit]

    async def count_uncalled(self, experiment: Experiment, selection: Selection) -> UncalledCounts:
        await self._pause()
        n_to_skip = n_to_copy = 0
        for _, narrative in self._ranked(experiment.cohort, PageCursor()):
            result = self._result(experiment, narrative)
            if result is None and selection is not Selection.ERRORS:
                is_skipped = _is_skipped(experiment, narrative)
                n_to_skip += is_skipped
                n_to_copy += not is_skipped and not _is_asked(experiment, narrative)
            if result is not None and result["error_occurred"] and result["copied_from"] is not None:
                n_to_copy += selection is not Selection.MISSING or self._has_fallen_behind(experiment, result)
        return UncalledCounts(n_to_skip=n_to_skip, n_to_copy=n_to_copy)

    def _has_fallen_behind(self, experiment: Experiment, copy: Row) -> bool:
        original = self._result(experiment, self._tables["source_narratives"][copy["copied_from"]])
        return original is not None and _is_behind(copy, original)

    async def load_canaries(self, experiment: Experiment, *, limit: int) -> list[WorkItem]:
        await self._pause()
        cohort, items = experiment.cohort, list[WorkItem]()
        for narrative_id in self._tables["sources"].get(cohort.data_checksum, ()):
            narrative = self._tables["source_narratives"][narrative_id]
            result = self._tables["narrative_results"].get(key_of(experiment.experiment_id, narrative))
            was_asked = result is not None and result["copied_from"] is None and result["skip_reason"] is None
            if narrative_id <= cohort.last_narrative_id and was_asked and not result["error_occurred"]:
                items.append(replace(_work_item(narrative, 0, replaces_error=False), is_canary=True))
        return items[:limit]

    async def count_remaining(self, experiment: Experiment, selection: Selection) -> int:
        counts = await self.count_results(experiment)
        missing = counts.n_missing if selection is not Selection.ERRORS else 0
        if selection is Selection.MISSING and experiment.asks_identical_once:
            rows = await self._rows(experiment.experiment_id)
            copied_errors = [row for row in rows if row["error_occurred"] and row["copied_from"] is not None]
            missing += sum(self._has_fallen_behind(experiment, row) for row in copied_errors)
        return missing + (counts.n_errors if selection is not Selection.MISSING else 0)

    # --- writing ---

    async def write_batch(
        self, experiment_id: ExperimentId, run_id: RunId, messages: Sequence[WriterMessage], mark: ProgressMark
    ) -> None:
        async with self._transaction() as draft:
            for message in messages:
                if isinstance(message, Skip | Copy):
                    continue
                if isinstance(message, Serving):
                    insert_serving(draft, experiment_id, run_id, message)
                    continue
                if _is_canary(message):
                    insert_canary_answer(draft, experiment_id, run_id, message)
                    continue
                attempt = message if isinstance(message, Attempt) else message.attempt
                if attempt is not None:
                    insert_attempt(draft, experiment_id, run_id, attempt)
            await self._pause()
            if draft.get("experiments", experiment_id) is None:
                raise StorageError("SQLite refuses (SQLITE_CONSTRAINT_FOREIGNKEY): FOREIGN KEY constraint failed")
            changes = Counter[str]()
            for message in messages:
                if isinstance(message, Skip):
                    changes.update(write_skip(draft, experiment_id, run_id, message))
                elif isinstance(message, Copy):
                    changes.update(write_copy(draft, experiment_id, run_id, message))
                elif isinstance(message, Outcome) and not _is_canary(message):
                    changes.update(write_row(draft, experiment_id, run_id, message))
                else:
                    continue
                await self._pause()
            experiment, run = draft.get("experiments", experiment_id), draft.get("runs", run_id)
            draft.update(
                "experiments",
                experiment_id,
                n_narratives_processed=experiment["n_narratives_processed"] + changes["new_rows"],
                n_narratives_completed=experiment["n_narratives_completed"] + changes["new_rows"],
                n_narratives_skipped=experiment["n_narratives_skipped"] + changes["new_skips"],
                n_errors=experiment["n_errors"] + changes["new_errors"] - changes["fewer_errors"],
                last_progress_update=local_now(),
                estimated_completion_time=mark.estimated_completion_time,
            )
            await self._pause()
            draft.update(
                "runs",
                run_id,
                last_saved_at=utc_text(utc_now()),
                runtime_s=max(run["runtime_s"], mark.runtime_s),
                n_saved=run["n_saved"] + changes["saved"],
            )

    # --- counting and reading ---

    async def count_results(self, experiment: Experiment) -> ResultCounts:
        rows = await self._rows(experiment.experiment_id)
        n_errors = sum(row["error_occurred"] for row in rows)
        n_skipped = sum(row["skip_reason"] is not None for row in rows)
        return ResultCounts(
            n_total=experiment.cohort.n_narratives,
            n_success=len(rows) - n_errors - n_skipped,
            n_errors=n_errors,
            n_skipped=n_skipped,
            n_copied=sum(row["copied_from"] is not None for row in rows),
        )

    async def count_confusion(self, experiment_id: ExperimentId) -> ConfusionCounts:
        rows = [row for row in await self._rows(experiment_id) if not row["error_occurred"]]
        names = {"tp": "is_true_positive", "fp": "is_false_positive"}
        names |= {"fn": "is_false_negative", "tn": "is_true_negative"}
        return ConfusionCounts(**{short: sum(row[name] or 0 for row in rows) for short, name in names.items()})

    async def count_detected(self, experiment_id: ExperimentId) -> tuple[int, int]:
        found = Counter(row["detected"] for row in await self._rows(experiment_id))
        return found[1], found[0]

    async def count_errors(self, experiment_id: ExperimentId) -> Mapping[str, int]:
        found = Counter(row["error_category"] for row in await self._rows(experiment_id) if row["error_occurred"])
        return dict(sorted(found.items(), key=lambda one: (-one[1], one[0])))

    async def count_second_tries(self, experiment_id: ExperimentId) -> int:
        return sum((row["parse_method"] or "").endswith(SECOND_TRY) for row in await self._rows(experiment_id))

    async def sum_tokens(self, experiment_id: ExperimentId) -> tuple[int, int]:
        await self._pause()
        ledgers = [*self._tables["attempts"].values(), *self._tables["canary_answers"].values()]
        calls = [row for row in ledgers if row["experiment_id"] == experiment_id]
        prompt, completion = (sum(row[name] or 0 for row in calls) for name in ("prompt_tokens", "completion_tokens"))
        return prompt, completion

    async def list_servings(self, experiment_id: ExperimentId) -> list[Serving]:
        await self._pause()
        names = ("model", "system_fingerprint", "server")
        rows = [row for row in self._tables["servings"].values() if row["experiment_id"] == experiment_id]
        return [Serving(**{name: row[name] or None for name in names}) for row in rows]

    async def count_canaries(self, experiment_id: ExperimentId) -> CanaryCounts:
        results = {row["incident_id"] + row["narrative_type"]: row for row in await self._rows(experiment_id)}
        asked = [row for row in self._tables["canary_answers"].values() if row["experiment_id"] == experiment_id]
        answered = [row for row in asked if row["detected"] is not None]
        flipped = 0
        for row in answered:
            narrative = self._tables["source_narratives"][row["narrative_id"]]
            result = results[narrative["incident_id"] + narrative["narrative_type"]]
            flipped += result["detected"] is not None and result["detected"] != row["detected"]
        return CanaryCounts(n_asked=len(asked), n_answered=len(answered), n_flipped=flipped)

    async def iter_results(self, experiment_id: ExperimentId) -> AsyncIterator[Mapping[str, object]]:
        for row in sorted(await self._rows(experiment_id), key=lambda row: row["row_num"]):
            yield dict(row)

    async def iter_cohort(self, experiment: Experiment) -> AsyncIterator[CohortRow]:
        await self._pause()
        if not experiment.cohort.last_narrative_id:
            for row in sorted(await self._rows(experiment.experiment_id), key=lambda row: row["row_num"]):
                yield _cohort_row(row, row)
        for narrative_id in self._tables["sources"].get(experiment.cohort.data_checksum, ()):
            if narrative_id <= experiment.cohort.last_narrative_id:
                narrative = self._tables["source_narratives"][narrative_id]
                result = self._tables["narrative_results"].get(key_of(experiment.experiment_id, narrative))
                yield _cohort_row(narrative, result)

    async def _rows(self, experiment_id: ExperimentId) -> list[Row]:
        await self._pause()
        return [row for key, row in self._tables["narrative_results"].items() if key[0] == experiment_id]


def _is_selected(result: Row | None, selection: Selection, run_id: RunId) -> bool:
    if result is None:
        return selection is not Selection.ERRORS
    is_open_error = bool(result["error_occurred"]) and result["run_id"] != run_id
    return selection is not Selection.MISSING and is_open_error


def _is_placeholder(narrative: Row) -> bool:
    return TextFlag.PLACEHOLDER in (narrative["text_flags"] or "").split(",")


def _is_first(narrative: Row) -> bool:
    return narrative["same_text_as"] is None


def _is_skipped(experiment: Experiment, narrative: Row) -> bool:
    return experiment.skips_placeholders and _is_placeholder(narrative)


def _is_asked(experiment: Experiment, narrative: Row) -> bool:
    """Whether it stands for its text: no other narrative is asked in its place."""
    return not experiment.asks_identical_once or _is_first(narrative)


def _is_behind(copy: Row, original: Row) -> bool:
    return bool(copy["error_occurred"]) and original["run_id"] > copy["run_id"]


def _is_canary(message: WriterMessage) -> bool:
    return isinstance(message, Outcome) and message.item.is_canary


def _work_item(row: Row, rank: int, *, replaces_error: bool) -> WorkItem:
    names = ("narrative_id", "incident_id", "narrative_type", "narrative_text", "text_sha256")
    fields = {name: row[name] for name in (*names, "manual_flag_ind", "manual_flag")}
    return WorkItem(**fields, row_num=rank, replaces_error=replaces_error)


def _cohort_row(narrative: Row, result: Row | None) -> CohortRow:
    found = result or {}
    text, category = narrative["narrative_text"], found.get("error_category")
    return CohortRow(
        **{name: narrative[name] for name in ("incident_id", "narrative_type", "manual_flag_ind", "manual_flag")},
        text_chars=None if text is None else len(text),
        text_flags=narrative.get("text_flags"),
        has_result=result is not None,
        detected=found.get("detected"),
        confidence=found.get("confidence"),
        error_category=(category or "unknown") if found.get("error_occurred") else None,
        skip_reason=found.get("skip_reason"),
        copied_from=found.get("copied_from"),
        incident_year=narrative.get("incident_year"),
    )


def _experiment(row: Row) -> Experiment:
    return Experiment(
        experiment_id=row["experiment_id"],
        name=row["experiment_name"],
        status=ExperimentStatus(row["status"]),
        cohort=Cohort(
            data_checksum=row["data_checksum"],
            last_narrative_id=row["cohort_last_narrative_id"],
            n_narratives=row["n_narratives_total"],
        ),
        config_json=row["config_json"],
        config_sha256=row["config_sha256"],
        log_dir=row["log_dir"],
        skips_placeholders=bool(row["skip_placeholders"]),
        asks_identical_once=bool(row["ask_identical_once"]),
        created_at=row["created_at"],
        columns=dict(row),
        answer_format=AnswerFormat(row["answer_format"]) if row.get("answer_format") else None,
    )
