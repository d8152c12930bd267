"""What every Store promises, whatever database is behind it.

To join, a store adds a callable to `STORES` that opens an empty one below a directory. Rows are looked at through the
ports only (`iter_results`, `list_runs`, `load_experiment`), never with SQL.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from virtual.memory_store import MemoryStore

from narrun_async.clock import local_text
from narrun_async.errors import BadInputError, UnknownExperimentError
from narrun_async.metrics import ConfusionCounts
from narrun_async.models import (
    Attempt,
    Cohort,
    Detection,
    Envelope,
    ErrorCategory,
    Experiment,
    ExperimentStatus,
    Failure,
    NarrativeId,
    Outcome,
    PageCursor,
    ProgressMark,
    ResultCounts,
    RunEnd,
    RunId,
    Selection,
    Usage,
    Verdict,
    WorkItem,
    WriterMessage,
)
from narrun_async.ports import Store
from narrun_async.stores import open_sqlite_writer

OpenStore = Callable[[Path], Awaitable[Store]]


async def open_sqlite(directory: Path) -> Store:
    return await open_sqlite_writer(directory / "experiments.db")


async def open_memory(directory: Path) -> Store:
    return MemoryStore()


STORES: dict[str, OpenStore] = {"memory": open_memory, "sqlite": open_sqlite}

STARTED = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
MARK = ProgressMark(runtime_s=1.5, estimated_completion_time="2026-03-04 09:00:00")
#: of no run that the tests begin: nothing is taken for a row of this very run
NO_RUN = RunId(10_000)
USAGE = Usage(prompt_tokens=120, completion_tokens=30, total_tokens=150, cached_tokens=64, reasoning_tokens=11)


@pytest.fixture(params=sorted(STORES))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    opened = await STORES[request.param](tmp_path)
    yield opened
    await opened.aclose()


def detection(detected: bool = True, *, confidence: float | None = 0.75) -> Detection:
    return Detection(
        detected=detected,
        confidence=confidence,
        indicators=("made-up sign", "„zweites“"),
        rationale="a made-up reason",
        reasoning_steps="a made-up thought",
        parse_method="strict",
    )


def failure(category: ErrorCategory = ErrorCategory.BAD_JSON, message: str = "the answer is no JSON") -> Failure:
    return Failure(category=category, message=message)


def attempt_of(item: WorkItem, category: ErrorCategory | None = None, *, charged: bool = True) -> Attempt:
    return Attempt(
        narrative_id=item.narrative_id,
        started_at=STARTED,
        duration_s=2.25,
        error_category=category,
        error_message=f"failed with {category}" if category else None,
        http_status=200 if category is None else 500,
        charged=charged,
        usage=USAGE if category is None else Usage(),
    )


def outcome_of(item: WorkItem, verdict: Verdict | None = None) -> Outcome:
    decided = verdict or detection()
    category = decided.category if isinstance(decided, Failure) else None
    return Outcome(
        item=item,
        verdict=decided,
        attempt=attempt_of(item, category),
        envelope=Envelope(
            content="{}", finish_reason="stop", model="model-that-answered", system_fingerprint="fp_1", usage=USAGE
        ),
        raw_response='{"made": "up"}',
    )


async def load_all(
    store: Store, experiment: Experiment, selection: Selection, *, run_id: RunId = NO_RUN, limit: int = 1000
) -> list[WorkItem]:
    """The remaining set, page by page."""
    cursor, items = PageCursor(), list[WorkItem]()
    while page := await store.load_page(experiment, selection, run_id=run_id, after=cursor, limit=limit):
        assert len(page) <= limit
        items.extend(page)
        cursor = PageCursor(narrative_id=page[-1].narrative_id, row_num=page[-1].row_num)
    return items


async def rows_of(store: Store, experiment: Experiment) -> list[dict[str, Any]]:
    return [dict(row) async for row in store.iter_results(experiment.experiment_id)]


async def write(store: Store, experiment: Experiment, run_id: RunId, messages: Sequence[WriterMessage]) -> None:
    await store.write_batch(experiment.experiment_id, run_id, messages, MARK)


async def assert_counters_equal_rows(store: Store, experiment: Experiment) -> None:
    """Invariant I13."""
    rows = await rows_of(store, experiment)
    columns = (await store.load_experiment(experiment.experiment_id)).columns
    assert columns["n_narratives_processed"] == columns["n_narratives_completed"] == len(rows)
    assert columns["n_errors"] == sum(row["error_occurred"] for row in rows)


def keys(items: Sequence[WorkItem]) -> list[tuple[str, str]]:
    return [(item.incident_id, item.narrative_type) for item in items]


# --- sources ---------------------------------------------------------------------------------------------------------


class TestSources:
    async def test_a_file_is_stored_whole_and_summed_up(self, store: Store, build: Any) -> None:
        source = build.source(7, path="data/some.xlsx")
        report = await store.add_source(source, on_conflict="error")
        assert report.loaded
        assert (report.n_cme, report.n_le, report.n_labelled, report.n_positive) == (4, 3, 7, 3)
        assert (report.n_duplicates, report.n_conflicts_dropped) == (0, 0)
        assert report.summary.n_cases == 4
        assert report.source == await store.find_source(checksums=[source.checksum])
        assert (report.source.path, report.source.n_narratives) == ("data/some.xlsx", 7)
        datetime.strptime(report.source.loaded_at, "%Y-%m-%d %H:%M:%S")

    async def test_a_source_is_found_by_any_of_its_checksums_and_by_its_path(self, store: Store, build: Any) -> None:
        source = build.source(2, path="data/some.xlsx")
        await store.add_source(source, on_conflict="error")
        found = await store.find_source(checksums=["f" * 64, source.checksum])
        assert found == await store.find_source_by_path("data/some.xlsx")
        assert found is not None
        assert await store.find_source(checksums=["f" * 64]) is None
        assert await store.find_source_by_path("data/other.xlsx") is None
        assert await store.list_sources() == [found]

    @pytest.mark.fault("W07")
    async def test_duplicates_with_the_same_text_collapse_and_are_counted(self, store: Store, build: Any) -> None:
        first, second = build.narrative(0), build.narrative(1)
        report = await store.add_source(build.source([first, second, first, first]), on_conflict="error")
        assert (report.n_duplicates, report.n_conflicts_dropped, report.source.n_narratives) == (2, 0, 2)

    @pytest.mark.fault("W08")
    async def test_different_texts_of_one_key_are_refused_naming_ids_and_the_way_out(
        self, store: Store, build: Any
    ) -> None:
        narratives = [build.narrative(0), build.narrative(1), build.narrative(0, text="Another made-up account.")]
        with pytest.raises(BadInputError) as refused:
            await store.add_source(build.source(narratives), on_conflict="error")
        assert "case0/cme" in str(refused.value)
        assert "--on-conflict first" in str(refused.value)
        assert "made-up account" not in str(refused.value)
        assert not await store.list_sources()

    @pytest.mark.fault("W08")
    async def test_many_conflicts_are_listed_in_part_and_counted_in_full(self, store: Store, build: Any) -> None:
        narratives = [build.narrative(n) for n in range(30)]
        others = [build.narrative(n, text=f"Other made-up account {n}.") for n in range(30)]
        with pytest.raises(BadInputError, match=r"30 narratives occur .* and 20 more"):
            await store.add_source(build.source(narratives + others), on_conflict="error")

    @pytest.mark.fault("W08")
    async def test_on_request_the_first_of_different_texts_is_kept(self, store: Store, build: Any) -> None:
        first, other = build.narrative(0), build.narrative(0, text="Another made-up account.")
        source = build.source([first, build.narrative(1), other, first])
        report = await store.add_source(source, on_conflict="first")
        assert (report.n_duplicates, report.n_conflicts_dropped, report.source.n_narratives) == (1, 1, 2)
        experiment = await build.experiment(store, source.checksum)
        items = await load_all(store, experiment, Selection.MISSING)
        assert [item.narrative_text for item in items] == [first.narrative_text, build.narrative(1).narrative_text]

    async def test_a_file_without_narratives_is_refused(self, store: Store, build: Any) -> None:
        with pytest.raises(BadInputError, match="no narrative"):
            await store.add_source(build.source([]), on_conflict="error")

    async def test_a_source_that_breaks_off_leaves_nothing(self, store: Store, build: Any) -> None:
        class BreaksOff(type(build.source(0))):  # type: ignore[misc]
            def iter_narratives(self) -> Any:
                yield from (build.narrative(n) for n in range(1200))
                raise BadInputError("row 1202: made up")

        with pytest.raises(BadInputError, match="row 1202"):
            await store.add_source(BreaksOff(path="x.xlsx", checksum="a" * 64, narratives=[]), on_conflict="error")
        assert not await store.list_sources()
        assert (await store.add_source(build.source(3), on_conflict="error")).loaded

    async def test_the_same_rows_in_another_file_change_nothing(self, store: Store, build: Any) -> None:
        narratives = [build.narrative(n) for n in range(6)]
        before = (await store.add_source(build.source(narratives, path="a.xlsx"), on_conflict="error")).source
        other = build.source(list(reversed(narratives)), path="b.xlsx")
        report = await store.add_source(other, on_conflict="error")
        assert not report.loaded
        assert report.source == before
        assert await store.list_sources() == [before]

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(lambda rows, make: rows[:3], id="a subset"),
            pytest.param(lambda rows, make: [*rows, make(90)], id="a superset"),
            pytest.param(lambda rows, make: [make(0, text="A changed account."), *rows[1:]], id="a changed text"),
            pytest.param(lambda rows, make: [rows[0], make(90), make(91)], id="an overlap"),
        ],
    )
    async def test_a_file_that_is_neither_the_same_nor_new_is_refused(
        self, store: Store, build: Any, change: Callable[..., Any]
    ) -> None:
        rows = [build.narrative(n) for n in range(6)]
        before = (await store.add_source(build.source(rows), on_conflict="error")).source
        with pytest.raises(BadInputError, match="another --db"):
            await store.add_source(build.source(change(rows, build.narrative), path="b.xlsx"), on_conflict="first")
        assert await store.list_sources() == [before]

    async def test_a_file_made_of_two_stored_ones_is_refused(self, store: Store, build: Any) -> None:
        rows = [build.narrative(n) for n in range(8)]
        await store.add_source(build.source(rows[:4], path="a.xlsx"), on_conflict="error")
        await store.add_source(build.source(rows[4:], path="b.xlsx"), on_conflict="error")
        with pytest.raises(BadInputError, match="another --db"):
            await store.add_source(build.source(rows, path="c.xlsx"), on_conflict="error")

    async def test_a_file_with_other_keys_is_added(self, store: Store, build: Any) -> None:
        first = build.source(4, path="a.xlsx")
        second = build.source([build.narrative(n, prefix="other") for n in range(3)], path="b.xlsx")
        await store.add_source(first, on_conflict="error")
        report = await store.add_source(second, on_conflict="error")
        assert report.loaded
        assert [source.n_narratives for source in await store.list_sources()] == [4, 3]

    async def test_a_cohort_is_the_first_narratives_of_its_own_source(self, store: Store, build: Any) -> None:
        first = build.source(4, path="a.xlsx")
        second = build.source([build.narrative(n, prefix="other") for n in range(5)], path="b.xlsx")
        for source in (first, second):
            await store.add_source(source, on_conflict="error")
        whole = await store.load_cohort(second.checksum, max_narratives=None)
        part = await store.load_cohort(second.checksum, max_narratives=2)
        assert (whole.n_narratives, part.n_narratives) == (5, 2)
        assert part.last_narrative_id < whole.last_narrative_id
        assert await store.load_cohort(second.checksum, max_narratives=50) == whole
        assert (await store.load_cohort("f" * 64, max_narratives=None)).n_narratives == 0
        experiment = await build.experiment(store, second.checksum, max_narratives=2)
        assert keys(await load_all(store, experiment, Selection.MISSING)) == [("other0", "cme"), ("other0", "le")]


# --- experiments and runs --------------------------------------------------------------------------------------------


@pytest.fixture
async def experiment(store: Store, build: Any) -> Experiment:
    """Twelve narratives, none of them done; beside them a second data source and a second, finished experiment."""
    mine, other = build.source(12), build.source([build.narrative(n, prefix="other") for n in range(5)], path="o.xlsx")
    await store.add_source(other, on_conflict="error")
    await store.add_source(mine, on_conflict="error")
    neighbour = await build.experiment(store, mine.checksum, number=2)
    run_id = await store.begin_run(build.run_start(neighbour))
    items = await load_all(store, neighbour, Selection.MISSING)
    verdicts = [failure() if item.row_num % 2 else detection() for item in items]
    await write(store, neighbour, run_id, list(map(outcome_of, items, verdicts)))
    made: Experiment = await build.experiment(store, mine.checksum)
    return made


@pytest.fixture
async def run_id(store: Store, experiment: Experiment, build: Any) -> RunId:
    begun: RunId = await store.begin_run(build.run_start(experiment))
    return begun


class TestExperiments:
    async def test_every_field_of_a_new_experiment_is_stored(self, store: Store, build: Any) -> None:
        new = build.new_experiment(5, notes="made up", n_narratives_total=3)
        await store.create_experiment(new)
        loaded = await store.load_experiment(new.experiment_id)
        for name in type(new).__slots__:
            if name != "sweep":
                assert loaded.columns[name] == getattr(new, name)
        assert loaded.columns["sweep_id"] is None
        assert loaded.status is ExperimentStatus.RUNNING
        assert (loaded.name, loaded.config_json, loaded.log_dir) == ("made up", "{}", "logs/experiments/made-up")
        assert loaded.cohort.n_narratives == 3
        counters = ("n_narratives_processed", "n_narratives_skipped", "n_narratives_completed", "n_errors")
        assert [loaded.columns[name] for name in counters] == [0, 0, 0, 0]

    async def test_an_unknown_id_is_told(self, store: Store, build: Any) -> None:
        with pytest.raises(UnknownExperimentError):
            await store.load_experiment(build.new_experiment(9).experiment_id)

    async def test_experiments_are_listed_newest_first(self, store: Store, build: Any) -> None:
        for number, day in enumerate(("2026-01-02", "2026-01-04", "2026-01-03"), 1):
            await store.create_experiment(build.new_experiment(number, created_at=f"{day} 00:00:00"))
        listed = [one.created_at[:10] for one in await store.list_experiments()]
        assert listed == ["2026-01-04", "2026-01-03", "2026-01-02"]

    async def test_a_run_takes_its_experiment_through_running_to_its_end(
        self, store: Store, experiment: Experiment, build: Any
    ) -> None:
        run_ids = []
        for status, runtime_s in ((ExperimentStatus.INTERRUPTED, 2.5), (ExperimentStatus.COMPLETED, 4.0)):
            run_ids.append(await store.begin_run(build.run_start(experiment)))
            running = await store.load_experiment(experiment.experiment_id)
            assert running.status is ExperimentStatus.RUNNING
            assert running.columns["start_time"] is not None
            assert running.columns["end_time"] is None
            end = RunEnd(status=status, ended_at=STARTED, runtime_s=runtime_s, exit_code=0, ended_why="made up")
            for _ in range(2):  # safe to repeat
                await store.end_run(experiment.experiment_id, run_ids[-1], end)
            ended = await store.load_experiment(experiment.experiment_id)
            assert ended.status is status
            assert ended.columns["end_time"] is not None
        assert ended.columns["total_runtime_sec"] == pytest.approx(6.5)
        assert ended.columns["start_time"] == running.columns["start_time"]
        runs = await store.list_runs(experiment.experiment_id)
        assert [run.run_id for run in runs] == run_ids
        assert [(run.mode, run.selection, run.exit_code, run.ended_why) for run in runs] == [
            ("new", "missing", 0, "made up")
        ] * 2
        assert runs[0].ended_at == "2026-03-04T05:06:07.000+00:00"

    async def test_the_time_of_a_killed_run_is_known_to_its_last_commit(
        self, store: Store, experiment: Experiment, run_id: RunId, build: Any
    ) -> None:
        items = await load_all(store, experiment, Selection.MISSING)
        await write(store, experiment, run_id, [outcome_of(items[0])])
        later = await store.begin_run(build.run_start(experiment))
        end = RunEnd(
            status=ExperimentStatus.INTERRUPTED, ended_at=STARTED, runtime_s=2.0, exit_code=75, ended_why="made up"
        )
        await store.end_run(experiment.experiment_id, later, end)
        killed, ended = await store.list_runs(experiment.experiment_id)
        assert (killed.ended_at, killed.runtime_s, killed.n_saved) == (None, 1.5, 1)
        assert (ended.runtime_s, ended.n_saved) == (2.0, 0)
        columns = (await store.load_experiment(experiment.experiment_id)).columns
        assert columns["total_runtime_sec"] == pytest.approx(3.5)

    async def test_derived_columns_can_be_set_again_and_again_and_others_cannot(
        self, store: Store, experiment: Experiment
    ) -> None:
        for accuracy in (0.5, 0.75):
            await store.update_experiment(experiment.experiment_id, {"accuracy": accuracy, "n_errors": 3})
        loaded = await store.load_experiment(experiment.experiment_id)
        assert (loaded.columns["accuracy"], loaded.columns["n_errors"]) == (0.75, 3)
        with pytest.raises(KeyError):
            await store.update_experiment(experiment.experiment_id, {"accuracy = 1 --": 1})


# --- the remaining set -----------------------------------------------------------------------------------------------


@pytest.fixture
async def half_done(store: Store, experiment: Experiment, run_id: RunId) -> Experiment:
    """Of ranks 1 to 12: 2 5 9 are successes, 3 6 12 error rows, the others missing."""
    items = {item.row_num: item for item in await load_all(store, experiment, Selection.MISSING)}
    done = [outcome_of(items[rank]) for rank in (9, 2, 5)] + [outcome_of(items[rank], failure()) for rank in (12, 3, 6)]
    await write(store, experiment, run_id, done)
    return experiment


EXPECTED = {
    Selection.MISSING: [1, 4, 7, 8, 10, 11],
    Selection.ERRORS: [3, 6, 12],
    Selection.MISSING_AND_ERRORS: [1, 3, 4, 6, 7, 8, 10, 11, 12],
}


class TestRemainingSet:
    @pytest.mark.parametrize("selection", list(Selection))
    async def test_it_is_the_selected_part_of_the_cohort_and_nothing_else(
        self, store: Store, half_done: Experiment, selection: Selection
    ) -> None:
        items = await load_all(store, half_done, selection)
        assert [item.row_num for item in items] == EXPECTED[selection]
        assert all(item.incident_id.startswith("case") for item in items)
        assert await store.count_remaining(half_done, selection) == len(items)
        assert {item.row_num for item in items if item.replaces_error} == (
            set() if selection is Selection.MISSING else {3, 6, 12}
        )

    @pytest.mark.parametrize("selection", list(Selection))
    @pytest.mark.parametrize("limit", range(1, 14))
    async def test_pages_of_any_size_cover_it_once_with_the_ranks_of_the_cohort(
        self, store: Store, half_done: Experiment, selection: Selection, limit: int
    ) -> None:
        items = await load_all(store, half_done, selection, limit=limit)
        assert [item.row_num for item in items] == EXPECTED[selection]
        assert items == sorted(items, key=lambda item: item.narrative_id)

    async def test_an_item_carries_all_of_its_narrative(self, store: Store, half_done: Experiment, build: Any) -> None:
        item = (await load_all(store, half_done, Selection.MISSING))[0]
        narrative = build.narrative(0)
        for name in ("incident_id", "narrative_text", "text_sha256", "manual_flag_ind", "manual_flag"):
            assert getattr(item, name) == getattr(narrative, name)
        assert item.narrative_type == "cme"

    @pytest.mark.parametrize("selection", [Selection.ERRORS, Selection.MISSING_AND_ERRORS])
    async def test_error_rows_of_this_very_run_are_not_met_again(
        self, store: Store, half_done: Experiment, run_id: RunId, build: Any, selection: Selection
    ) -> None:
        assert not [item for item in await load_all(store, half_done, selection, run_id=run_id) if item.replaces_error]
        next_run = await store.begin_run(build.run_start(half_done, selection))
        retried = [one for one in await load_all(store, half_done, selection, run_id=next_run) if one.replaces_error]
        assert [item.row_num for item in retried] == [3, 6, 12]
        await write(store, half_done, next_run, [outcome_of(retried[0], failure()), outcome_of(retried[1])])
        left = await load_all(store, half_done, selection, run_id=next_run)
        assert [item.row_num for item in left if item.replaces_error] == [12]

    async def test_a_cursor_goes_on_behind_rows_written_meanwhile(
        self, store: Store, experiment: Experiment, run_id: RunId
    ) -> None:
        first = await store.load_page(experiment, Selection.MISSING, run_id=run_id, after=PageCursor(), limit=5)
        await write(store, experiment, run_id, [outcome_of(item) for item in first])
        cursor = PageCursor(narrative_id=first[-1].narrative_id, row_num=first[-1].row_num)
        rest = await store.load_page(experiment, Selection.MISSING, run_id=run_id, after=cursor, limit=50)
        assert [item.row_num for item in (*first, *rest)] == list(range(1, 13))

    async def test_a_cohort_ends_where_it_was_frozen(self, store: Store, build: Any) -> None:
        source = build.source(10)
        await store.add_source(source, on_conflict="error")
        pilot = await build.experiment(store, source.checksum, max_narratives=4)
        assert [item.row_num for item in await load_all(store, pilot, Selection.MISSING, limit=3)] == [1, 2, 3, 4]
        assert await store.count_remaining(pilot, Selection.MISSING) == 4


# --- writing ---------------------------------------------------------------------------------------------------------


class TestWriting:
    async def test_every_column_of_a_success_is_filled(
        self, store: Store, experiment: Experiment, run_id: RunId
    ) -> None:
        item = (await load_all(store, experiment, Selection.MISSING))[3]
        await write(store, experiment, run_id, [outcome_of(item)])
        (row,) = await rows_of(store, experiment)
        ended = datetime(2026, 3, 4, 5, 6, 9, 250_000, tzinfo=UTC)
        expected: Mapping[str, object] = {
            "experiment_id": experiment.experiment_id,
            "incident_id": "case1",
            "narrative_type": "le",
            "row_num": 4,
            "narrative_text": item.narrative_text,
            "manual_flag_ind": 1,
            "manual_flag": 0,
            "detected": 1,
            "confidence": 0.75,
            "indicators": json.dumps(["made-up sign", "„zweites“"], ensure_ascii=False),
            "rationale": "a made-up reason",
            "reasoning_steps": "a made-up thought",
            "raw_response": '{"made": "up"}',
            "response_sec": 2.25,
            "processed_at": local_text(ended),
            "error_occurred": 0,
            "error_message": None,
            "prompt_tokens": 120,
            "completion_tokens": 30,
            "tokens_used": 150,
            "is_true_positive": 1,
            "is_true_negative": 0,
            "is_false_positive": 0,
            "is_false_negative": 0,
            "error_category": None,
            "attempt_count": 1,
            "first_error_message": None,
            "last_attempt_at": "2026-03-04T05:06:09.250+00:00",
            "finish_reason": "stop",
            "response_model": "model-that-answered",
            "system_fingerprint": "fp_1",
            "parse_method": "strict",
            "cached_tokens": 64,
            "reasoning_tokens": 11,
            "run_id": run_id,
            "skip_reason": None,
            "copied_from": None,
        }
        assert row.pop("result_id") >= 1
        assert row == expected

    async def test_an_error_row_has_its_category_and_no_answer(
        self, store: Store, experiment: Experiment, run_id: RunId
    ) -> None:
        item = (await load_all(store, experiment, Selection.MISSING))[0]
        await write(store, experiment, run_id, [outcome_of(item, failure(ErrorCategory.REFUSAL, "it declined"))])
        (row,) = await rows_of(store, experiment)
        assert (row["error_occurred"], row["error_category"], row["error_message"]) == (1, "refusal", "it declined")
        assert row["first_error_message"] == "it declined"
        assert row["raw_response"] == '{"made": "up"}'
        assert (row["attempt_count"], row["prompt_tokens"]) == (1, 120)
        answer = ("detected", "confidence", "indicators", "rationale", "parse_method")
        judged = ("is_true_positive", "is_true_negative", "is_false_positive", "is_false_negative")
        assert [row[name] for name in (*answer, *judged)] == [None] * 9

    @pytest.mark.parametrize(
        ("rank", "detected", "judged"),
        [
            pytest.param(1, True, (1, 0, 0, 0), id="true positive"),
            pytest.param(2, False, (0, 1, 0, 0), id="true negative"),
            pytest.param(2, True, (0, 0, 1, 0), id="false positive"),
            pytest.param(1, False, (0, 0, 0, 1), id="false negative"),
        ],
    )
    async def test_an_answer_is_judged_by_the_label_of_its_narrative(
        self,
        store: Store,
        experiment: Experiment,
        run_id: RunId,
        rank: int,
        detected: bool,
        judged: tuple[int, ...],
    ) -> None:
        item = (await load_all(store, experiment, Selection.MISSING))[rank - 1]
        await write(store, experiment, run_id, [outcome_of(item, detection(detected))])
        (row,) = await rows_of(store, experiment)
        names = ("is_true_positive", "is_true_negative", "is_false_positive", "is_false_negative")
        assert tuple(row[name] for name in names) == judged

    async def test_an_unlabelled_narrative_is_not_judged(self, store: Store, build: Any) -> None:
        source = build.source([replace(build.narrative(0), manual_flag_ind=None, manual_flag=None)])
        await store.add_source(source, on_conflict="error")
        experiment = await build.experiment(store, source.checksum)
        run_id = await store.begin_run(build.run_start(experiment))
        await write(store, experiment, run_id, [outcome_of((await load_all(store, experiment, Selection.MISSING))[0])])
        (row,) = await rows_of(store, experiment)
        assert row["is_true_positive"] is None
        assert await store.count_confusion(experiment.experiment_id) == ConfusionCounts(tp=0, fp=0, fn=0, tn=0)
        assert await store.count_detected(experiment.experiment_id) == (1, 0)

    async def test_an_answer_without_confidence_or_usage_leaves_nulls(
        self, store: Store, experiment: Experiment, run_id: RunId
    ) -> None:
        item = (await load_all(store, experiment, Selection.MISSING))[0]
        verdict = Detection(detected=False, confidence=None, parse_method="strict")
        bare = Outcome(item=item, verdict=verdict, attempt=None)
        await write(store, experiment, run_id, [bare])
        (row,) = await rows_of(store, experiment)
        assert (row["confidence"], row["tokens_used"], row["response_sec"]) == (None, None, None)
        assert (row["detected"], row["indicators"], row["processed_at"] is None) == (0, "[]", False)

    async def test_writing_a_batch_again_changes_no_row_and_no_counter(
        self, store: Store, experiment: Experiment, run_id: RunId
    ) -> None:
        items = await load_all(store, experiment, Selection.MISSING)
        batch = [outcome_of(items[0]), outcome_of(items[1], failure()), outcome_of(items[2])]
        await write(store, experiment, run_id, batch)
        before = await rows_of(store, experiment)
        for _ in range(2):
            await write(store, experiment, run_id, batch)
        assert await rows_of(store, experiment) == before
        await assert_counters_equal_rows(store, experiment)
        assert (await store.list_runs(experiment.experiment_id))[0].n_saved == 3

    @pytest.mark.parametrize("replaces_error", [False, True])
    @pytest.mark.parametrize("verdict", [failure(), detection(False)], ids=["error", "success"])
    async def test_a_success_is_never_overwritten(
        self, store: Store, experiment: Experiment, run_id: RunId, build: Any, replaces_error: bool, verdict: Verdict
    ) -> None:
        item = (await load_all(store, experiment, Selection.MISSING))[0]
        await write(store, experiment, run_id, [outcome_of(item)])
        before = await rows_of(store, experiment)
        later = await store.begin_run(build.run_start(experiment))
        await write(store, experiment, later, [outcome_of(replace(item, replaces_error=replaces_error), verdict)])
        assert await rows_of(store, experiment) == before
        await assert_counters_equal_rows(store, experiment)

    async def test_an_error_row_is_not_touched_by_work_on_what_is_missing(
        self, store: Store, experiment: Experiment, run_id: RunId
    ) -> None:
        item = (await load_all(store, experiment, Selection.MISSING))[0]
        await write(store, experiment, run_id, [outcome_of(item, failure())])
        before = await rows_of(store, experiment)
        await write(store, experiment, run_id, [outcome_of(item)])
        assert await rows_of(store, experiment) == before
        await assert_counters_equal_rows(store, experiment)

    async def test_a_retried_error_keeps_its_first_message_and_counts_every_call(
        self, store: Store, half_done: Experiment, build: Any
    ) -> None:
        before = {row["row_num"]: row for row in await rows_of(store, half_done)}
        verdicts: list[Verdict] = [failure(ErrorCategory.EMPTY, "it said nothing"), detection()]
        for number, verdict in enumerate(verdicts):
            run_id = await store.begin_run(build.run_start(half_done, Selection.ERRORS))
            item = (await load_all(store, half_done, Selection.ERRORS, run_id=run_id))[0]
            lost = attempt_of(item, ErrorCategory.CONNECTION_LOST)
            await write(store, half_done, run_id, [lost, outcome_of(item, verdict)])
            (row,) = [row for row in await rows_of(store, half_done) if row["row_num"] == 3]
            assert row["first_error_message"] == "the answer is no JSON"
            assert row["attempt_count"] == 3 + 2 * number
            assert row["run_id"] == run_id
            assert row["result_id"] == before[3]["result_id"]
            await assert_counters_equal_rows(store, half_done)
        assert (row["error_occurred"], row["error_category"], row["error_message"]) == (0, None, None)
        assert (row["detected"], row["is_true_positive"], row["parse_method"]) == (1, 0, "strict")
        others = [row for row in await rows_of(store, half_done) if row["row_num"] != 3]
        assert others == [row for rank, row in sorted(before.items()) if rank != 3]

    async def test_failed_calls_are_in_the_ledger_and_in_the_count_of_attempts(
        self, store: Store, experiment: Experiment, run_id: RunId
    ) -> None:
        item, other = (await load_all(store, experiment, Selection.MISSING))[:2]
        await write(store, experiment, run_id, [attempt_of(item, ErrorCategory.SERVER_ERROR)])
        assert not await rows_of(store, experiment)
        await assert_counters_equal_rows(store, experiment)
        uncharged = attempt_of(item, ErrorCategory.OVERLOADED, charged=False)
        await write(store, experiment, run_id, [uncharged, outcome_of(item), outcome_of(other)])
        assert [row["attempt_count"] for row in await rows_of(store, experiment)] == [3, 1]
        assert await store.sum_tokens(experiment.experiment_id) == (240, 60)

    async def test_a_batch_of_all_kinds_counts_right(self, store: Store, half_done: Experiment, build: Any) -> None:
        run_id = await store.begin_run(build.run_start(half_done, Selection.MISSING_AND_ERRORS))
        items = await load_all(store, half_done, Selection.MISSING_AND_ERRORS, run_id=run_id)
        verdicts = [detection(item.row_num % 2 == 0) if item.row_num != 6 else failure() for item in items]
        await write(store, half_done, run_id, list(map(outcome_of, items, verdicts)))
        await assert_counters_equal_rows(store, half_done)
        assert await store.count_results(half_done) == ResultCounts(n_total=12, n_success=11, n_errors=1)
        assert await store.count_errors(half_done.experiment_id) == {"bad_json": 1}
        assert (await store.list_runs(half_done.experiment_id))[-1].n_saved == len(items)
        assert await store.count_remaining(half_done, Selection.MISSING) == 0

    async def test_progress_is_noted_beside_each_batch(
        self, store: Store, experiment: Experiment, run_id: RunId
    ) -> None:
        await write(store, experiment, run_id, [outcome_of((await load_all(store, experiment, Selection.MISSING))[0])])
        columns = (await store.load_experiment(experiment.experiment_id)).columns
        assert columns["estimated_completion_time"] == MARK.estimated_completion_time
        datetime.strptime(str(columns["last_progress_update"]), "%Y-%m-%d %H:%M:%S")

    async def test_results_come_in_cohort_order_whatever_the_order_of_completion(
        self, store: Store, experiment: Experiment, run_id: RunId
    ) -> None:
        items = await load_all(store, experiment, Selection.MISSING)
        for item in reversed(items):
            await write(store, experiment, run_id, [outcome_of(item)])
        assert [row["row_num"] for row in await rows_of(store, experiment)] == list(range(1, 13))

    async def test_counts_see_only_their_own_experiment(self, store: Store, half_done: Experiment) -> None:
        assert await store.count_results(half_done) == ResultCounts(n_total=12, n_success=3, n_errors=3)
        assert await store.count_errors(half_done.experiment_id) == {"bad_json": 3}
        # ranks 2, 5 and 9 have the labels 0, 0 and 0
        assert await store.count_confusion(half_done.experiment_id) == ConfusionCounts(tp=0, fp=3, fn=0, tn=0)
        assert await store.count_detected(half_done.experiment_id) == (3, 0)

    async def test_answers_that_came_on_a_second_try_are_counted(
        self, store: Store, experiment: Experiment, run_id: RunId
    ) -> None:
        methods = ["json", "json+second_try", "fence+coerced+second_try", "second_try:json"]
        outcomes = [
            replace(outcome, verdict=replace(outcome.verdict, parse_method=method))
            for outcome, method in zip(
                map(outcome_of, await load_all(store, experiment, Selection.MISSING)), methods, strict=False
            )
        ]
        await write(store, experiment, run_id, outcomes)
        assert await store.count_second_tries(experiment.experiment_id) == 2

    async def test_an_experiment_without_rows_counts_zero(self, store: Store, experiment: Experiment) -> None:
        experiment_id = experiment.experiment_id
        assert await store.count_results(experiment) == ResultCounts(n_total=12, n_success=0, n_errors=0)
        assert await store.count_errors(experiment_id) == {}
        assert await store.count_detected(experiment_id) == (0, 0)
        assert await store.count_second_tries(experiment_id) == 0
        assert await store.sum_tokens(experiment_id) == (0, 0)

    async def test_a_row_of_an_unknown_experiment_is_refused_whole(
        self, store: Store, experiment: Experiment, run_id: RunId, build: Any
    ) -> None:
        from narrun_async.errors import StorageError

        item = (await load_all(store, experiment, Selection.MISSING))[0]
        unknown = build.new_experiment(77).experiment_id
        with pytest.raises(StorageError) as refused:
            await store.write_batch(unknown, run_id, [outcome_of(item)], MARK)
        assert item.narrative_text not in str(refused.value)
        assert await store.sum_tokens(unknown) == (0, 0)
        await write(store, experiment, run_id, [outcome_of(item)])


# --- the cohort, for counting ----------------------------------------------------------------------------------------


class TestCohortRows:
    async def test_every_narrative_of_the_cohort_comes_once_in_order_with_what_became_of_it(
        self, store: Store, half_done: Experiment
    ) -> None:
        rows = [row async for row in store.iter_cohort(half_done)]
        assert [(row.incident_id, row.narrative_type) for row in rows[:3]] == [
            ("case0", "cme"),
            ("case0", "le"),
            ("case1", "cme"),
        ]
        assert len(rows) == half_done.cohort.n_narratives == 12
        stored = {(row["incident_id"], row["narrative_type"]): row for row in await rows_of(store, half_done)}
        for row in rows:
            result = stored.get((row.incident_id, row.narrative_type))
            assert row.has_result == (result is not None)
            assert row.detected == (result and result["detected"])
            assert row.error_category == (result and result["error_category"])
            assert row.confidence == (result and result["confidence"])
        assert sum(row.has_result for row in rows) == 6
        assert sum(row.error_category == "bad_json" for row in rows) == 3

    async def test_labels_and_lengths_are_those_of_the_source(self, store: Store, build: Any) -> None:
        narratives = [build.narrative(number, text="x" * (number + 1)) for number in range(5)]
        source = build.source(narratives)
        await store.add_source(source, on_conflict="error")
        experiment = await build.experiment(store, source.checksum, max_narratives=4)
        rows = [row async for row in store.iter_cohort(experiment)]
        assert [row.text_chars for row in rows] == [1, 2, 3, 4]
        assert [row.manual_flag_ind for row in rows] == [one.manual_flag_ind for one in narratives[:4]]
        assert [row.manual_flag for row in rows] == [one.manual_flag for one in narratives[:4]]
        assert not any(row.has_result or row.skip_reason or row.copied_from for row in rows)

    async def test_the_year_is_that_of_the_incident_and_none_where_the_file_does_not_say(
        self, store: Store, build: Any
    ) -> None:
        years = [2016, None, 2018]
        narratives = [replace(build.narrative(number), incident_year=year) for number, year in enumerate(years)]
        source = build.source(narratives)
        await store.add_source(source, on_conflict="error")
        experiment = await build.experiment(store, source.checksum)
        assert [row.incident_year async for row in store.iter_cohort(experiment)] == years

    async def test_of_an_experiment_without_a_recorded_cohort_the_rows_are_its_cohort(
        self, store: Store, half_done: Experiment
    ) -> None:
        nobody_knows = replace(
            half_done, cohort=Cohort(data_checksum="", last_narrative_id=NarrativeId(0), n_narratives=0)
        )
        rows = [row async for row in store.iter_cohort(nobody_knows)]
        assert rows == [row async for row in store.iter_cohort(half_done) if row.has_result]
        assert len(rows) == 6

    async def test_results_of_another_experiment_are_not_taken_for_its_own(
        self, store: Store, half_done: Experiment, build: Any
    ) -> None:
        other = await build.experiment(store, half_done.cohort.data_checksum, number=5)
        assert not any([row.has_result async for row in store.iter_cohort(other)])
