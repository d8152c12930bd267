"""Promises of `narrun verify`: a healthy database passes, and whatever is broken by hand is named, and nothing else."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from narrun_async.errors import ExitCode, UnknownExperimentError
from narrun_async.finalizer import finalize
from narrun_async.models import (
    Attempt,
    Detection,
    Envelope,
    ErrorCategory,
    Experiment,
    ExperimentStatus,
    Failure,
    InvariantFinding,
    Outcome,
    PageCursor,
    ProgressMark,
    RunEnd,
    RunId,
    Selection,
    WorkItem,
)
from narrun_async.operations.verification import Verification, verify
from narrun_async.reporting.verification_lines import verification_json, verification_lines
from narrun_async.stores import SqliteStore, open_sqlite_reader, open_sqlite_writer
from narrun_async.stores.sqlite.invariants import INVARIANTS
from narrun_async.stores.sqlite.verification import MAX_EXAMPLES

STARTED = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
WHOLE, HALF, OLD = (f"0000000{number}-0000-4000-8000-00000000000{number}" for number in (1, 2, 3))
CONFIG = '{"made":"up"}'
KEY = "experiment_id, incident_id, narrative_type"
#: the row of the whole experiment that is an error
ERROR_ROW = f"experiment_id = '{WHOLE}' AND error_occurred = 1"
#: a row of it that is a success
SUCCESS_ROW = f"experiment_id = '{WHOLE}' AND row_num = 1"


def attempt(item: WorkItem, category: ErrorCategory | None, *, after_s: float = 0.0) -> Attempt:
    return Attempt(
        narrative_id=item.narrative_id,
        started_at=STARTED + timedelta(seconds=after_s),
        duration_s=1.25,
        error_category=category,
        error_message=None if category is None else "made-up failure",
        http_status=200 if category is None else 500,
        charged=True,
    )


def outcome(item: WorkItem, category: ErrorCategory | None = None) -> Outcome:
    good = Detection(
        detected=item.row_num % 2 == 0, confidence=0.5, rationale="a made-up reason", parse_method="strict"
    )
    verdict = good if category is None else Failure(category=category, message="made-up failure")
    has_call = category is not ErrorCategory.SOURCE_CHANGED
    return Outcome(
        item=item,
        verdict=verdict,
        attempt=attempt(item, category, after_s=3.0) if has_call else None,
        envelope=Envelope(finish_reason="stop"),
        raw_response='{"made": "up"}',
    )


async def work_on(
    store: SqliteStore, experiment: Experiment, build: Any, *, at_most: int, ends: bool = True
) -> tuple[RunId, Sequence[Outcome]]:
    """One run: the first call of each narrative fails, the last narrative but one gets an error row."""
    run_id = await store.begin_run(replace(build.run_start(experiment), started_at=STARTED))
    items = await store.load_page(experiment, Selection.MISSING, run_id=run_id, after=PageCursor(), limit=at_most)
    categories = {5: ErrorCategory.REFUSAL, 6: ErrorCategory.SOURCE_CHANGED}
    outcomes = [outcome(item, categories.get(item.row_num)) for item in items]
    failed = [attempt(item, ErrorCategory.SERVER_ERROR) for item in items]
    mark = ProgressMark(runtime_s=4.5, estimated_completion_time=None)
    await store.write_batch(experiment.experiment_id, run_id, [*failed, *outcomes], mark)
    if ends:
        summary = await finalize(store, experiment, runtime_s=4.5)
        status = ExperimentStatus.INTERRUPTED if summary.counts.n_missing else ExperimentStatus.COMPLETED
        end = RunEnd(status=status, ended_at=STARTED, runtime_s=4.5, exit_code=0, ended_why="made up")
        await store.end_run(experiment.experiment_id, run_id, end)
    return run_id, outcomes


async def write_healthy(path: Path, build: Any) -> None:
    """A completed experiment over eight narratives, two of them errors; one over four, interrupted after two."""
    store = await open_sqlite_writer(path)
    try:
        source = build.source(8)
        await store.add_source(source, on_conflict="error")
        for number, (experiment_id, size, done) in enumerate(((WHOLE, 8, 8), (HALF, 4, 2))):
            cohort = await store.load_cohort(source.checksum, max_narratives=size)
            await store.create_experiment(
                build.new_experiment(
                    number,
                    experiment_id=experiment_id,
                    data_checksum=source.checksum,
                    cohort_last_narrative_id=cohort.last_narrative_id,
                    n_narratives_total=cohort.n_narratives,
                    config_json=CONFIG,
                    config_sha256=sha256(CONFIG.encode()).hexdigest(),
                )
            )
            await work_on(store, await store.load_experiment(experiment_id), build, at_most=done)
    finally:
        await store.aclose()


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory, build: Any) -> Path:
    path = tmp_path_factory.mktemp("healthy") / "experiments.db"
    asyncio.run(write_healthy(path, build))
    return path


@pytest.fixture
def database(healthy: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(healthy, tmp_path / "experiments.db"))


def execute(path: Path, *statements: str) -> None:
    """Change the file past everything that protects it."""
    with closing(sqlite3.connect(path)) as db:
        for statement in statements:
            db.execute(statement)
        db.commit()


async def examine(path: Path, wanted: str | None = None) -> Verification:
    store = await open_sqlite_reader(path)
    try:
        return await verify(store, wanted)
    finally:
        await store.aclose()


def broken(result: Verification) -> set[str]:
    return {one.invariant_id for one in result.findings if not one.holds}


def copy_row(condition: str, **changes: str) -> list[str]:
    """Statements that insert a copy of one result with some columns changed."""
    assignments = "".join(f", {name} = {value}" for name, value in changes.items())
    return [
        f"CREATE TEMP TABLE copied AS SELECT * FROM narrative_results WHERE {condition} LIMIT 1",
        f"UPDATE copied SET result_id = NULL{assignments}",
        "INSERT INTO narrative_results SELECT * FROM copied",
    ]


def count_one_more(experiment_id: str) -> str:
    """As a program would that takes the additional error row for a good one."""
    names = ("n_narratives_total", "n_narratives_processed", "n_narratives_completed", "n_errors")
    return (
        f"UPDATE experiments SET {', '.join(f'{n} = {n} + 1' for n in names)} WHERE experiment_id = '{experiment_id}'"
    )


def change_id(new_value: str) -> list[str]:
    """Give one narrative another id, in its results and in its source alike."""
    old = "case0"
    return [
        f"UPDATE {table} SET incident_id = {new_value} WHERE incident_id = '{old}' AND narrative_type = 'cme'"
        for table in ("narrative_results", "source_narratives")
    ]


def batches(number: int, state: str) -> list[str]:
    """Statements that insert a batch with one narrative."""
    return [
        "INSERT INTO batches (batch_id, experiment_id, number, selection, state, input_path, input_sha256, endpoint,"
        " n_requests, n_bytes, token, exported_at)"
        f" VALUES ({number}, '{HALF}', {number}, 'missing', '{state}', '/x', 'x', '/x', 1, 1, 'x', '2026-03-04')",
        f"INSERT INTO batch_items (batch_id, narrative_id, row_num, replaces_error) VALUES ({number}, 4, 4, 0)",
    ]


FIRST_SUCCESS = f"(SELECT MIN(attempt_id) FROM attempts WHERE error_category IS NULL AND experiment_id = '{WHOLE}')"

#: what → the invariants that it breaks and the statements that do
BREAKS: dict[str, tuple[set[str], list[str]]] = {
    "a reference to nothing": (
        {"I1"},
        ["UPDATE attempts SET run_id = 999 WHERE attempt_id = 1"],
    ),
    "an index torn out of the file": (
        {"I1"},
        ["PRAGMA writable_schema = ON", "DELETE FROM sqlite_schema WHERE name = 'attempts_failed'"],
    ),
    "two rows of one narrative": (
        {"I2"},
        ["DROP INDEX narrative_results_key", *copy_row(ERROR_ROW), count_one_more(WHOLE)],
    ),
    "a result outside the cohort": (
        {"I3"},
        [*copy_row(f"{ERROR_ROW} AND row_num = 6", experiment_id=f"'{HALF}'"), count_one_more(HALF)],
    ),
    "a result of no narrative": (
        {"I3"},
        [*copy_row(f"{ERROR_ROW} AND row_num = 6", incident_id="'nobody'"), count_one_more(WHOLE)],
    ),
    "a total that changed": (
        {"I4"},
        [f"UPDATE experiments SET n_narratives_total = 7 WHERE experiment_id = '{WHOLE}'"],
    ),
    "a total that vanished": (
        {"I4"},
        [f"UPDATE experiments SET n_narratives_total = NULL WHERE experiment_id = '{HALF}'"],
    ),
    "a remaining narrative that vanished": (
        {"I3", "I4"},  # the other experiment has a result of it
        ["DELETE FROM source_narratives WHERE narrative_id = 3"],
    ),
    "an answer and an error in one row": (
        {"I5"},
        [f"UPDATE narrative_results SET error_category = 'timeout' WHERE {SUCCESS_ROW}"],
    ),
    "an error with a confidence": (
        {"I5"},
        [f"UPDATE narrative_results SET confidence = 0.5 WHERE {ERROR_ROW}"],
    ),
    "an error without a category": (
        {"I5"},
        [f"UPDATE narrative_results SET error_category = NULL WHERE {ERROR_ROW} AND row_num = 5"],
    ),
    "an impossible confidence": (
        {"I5"},
        [f"UPDATE narrative_results SET confidence = 95 WHERE {SUCCESS_ROW}"],
    ),
    "an answer that says nothing": (
        {"I5", "I13"},
        [f"UPDATE narrative_results SET detected = NULL WHERE {SUCCESS_ROW}"],
    ),
    "an id with a NUL": ({"I6"}, change_id("incident_id || char(0) || 'x'")),
    "an id that is bytes": ({"I6"}, change_id("x'fffe'")),
    "a detection that is text": (
        {"I5", "I6", "I13"},
        [f"UPDATE narrative_results SET detected = 'yes' WHERE {SUCCESS_ROW}"],
    ),
    "a confidence that is text": (
        {"I5", "I6"},
        [f"UPDATE narrative_results SET confidence = '95%' WHERE {SUCCESS_ROW}"],
    ),
    "completed with narratives missing": (
        {"I7"},
        [f"UPDATE experiments SET status = 'completed' WHERE experiment_id = '{HALF}'"],
    ),
    "a status that is none": (
        {"I7"},
        [f"UPDATE experiments SET status = 'done' WHERE experiment_id = '{HALF}'"],
    ),
    "errors that nobody mentions": (
        {"I7", "I13"},
        [f"UPDATE experiments SET n_errors = 0 WHERE experiment_id = '{WHOLE}'"],
    ),
    "settings that changed": (
        {"I8"},
        [f"UPDATE experiments SET config_json = '{{\"made\":\"down\"}}' WHERE experiment_id = '{WHOLE}'"],
    ),
    "a hash that vanished": (
        {"I8"},
        [f"UPDATE experiments SET config_sha256 = NULL WHERE experiment_id = '{WHOLE}'"],
    ),
    "a success that nobody called for": (
        {"I10"},
        [f"DELETE FROM attempts WHERE attempt_id = {FIRST_SUCCESS}"],
    ),
    "an error that nobody called for": (
        {"I10"},
        [f"DELETE FROM attempts WHERE experiment_id = '{WHOLE}' AND narrative_id = 5"],
    ),
    "a call after the success": (
        {"I10"},
        [
            "INSERT INTO attempts (experiment_id, run_id, narrative_id, started_at, duration_s, charged)"
            f" SELECT experiment_id, run_id, narrative_id, '2026-03-04T06:00:00.000+00:00', 1, 1 FROM attempts"
            f" WHERE attempt_id = {FIRST_SUCCESS}"
        ],
    ),
    "one character of a text": (
        {"I11"},
        ["UPDATE source_narratives SET narrative_text = narrative_text || ' ' WHERE narrative_id = 8"],
    ),
    "a text that is no UTF-8 any more": (
        {"I11"},
        ["UPDATE source_narratives SET narrative_text = CAST(x'fffe' AS TEXT) WHERE narrative_id = 8"],
    ),
    "a text without its hash": (
        {"I11"},
        ["UPDATE source_narratives SET text_sha256 = NULL WHERE narrative_id = 8"],
    ),
    "one row too many counted": (
        {"I13"},
        [f"UPDATE experiments SET n_narratives_processed = 9 WHERE experiment_id = '{WHOLE}'"],
    ),
    "a row that vanished": (
        {"I7", "I13"},
        [f"DELETE FROM narrative_results WHERE {SUCCESS_ROW}"],
    ),
    "a wrong number of true positives": (
        {"I13"},
        [f"UPDATE experiments SET n_true_positive = n_true_positive + 1 WHERE experiment_id = '{WHOLE}'"],
    ),
    "an end before the beginning": (
        {"I14"},
        ["UPDATE runs SET ended_at = '2026-03-04T05:06:06.999+00:00' WHERE run_id = 1"],
    ),
    "an end that is no time": ({"I14"}, ["UPDATE runs SET ended_at = 'soon' WHERE run_id = 1"]),
    "a negative run time": ({"I14"}, ["UPDATE runs SET runtime_s = -1 WHERE run_id = 1"]),
    "a negative call": ({"I14"}, ["UPDATE attempts SET duration_s = -1 WHERE attempt_id = 1"]),
    "a narrative in two open batches": ({"I22"}, [*batches(1, "ended"), *batches(2, "exported")]),
    "a batch that does not know its narratives": ({"I22"}, [*batches(3, "closed"), "DELETE FROM batch_items"]),
    "a result that was set aside and vanished": (
        {"I23"},
        [
            "INSERT INTO legacy_reports (experiment_id, reason, set_aside_at, narrun_version, n_before, n_moved)"
            f" VALUES ('{WHOLE}', 'duplicate', '2026-03-04T06:00:00.000+00:00', '0', 9, 1)"
        ],
    ),
    "a result that was set aside and is still there": (
        {"I23"},
        [
            "INSERT INTO legacy_reports (experiment_id, reason, set_aside_at, narrun_version, n_before, n_moved)"
            f" VALUES ('{WHOLE}', 'duplicate', '2026-03-04T06:00:00.000+00:00', '0', 9, 1)",
            f"INSERT INTO legacy_results (result_id, {KEY}, set_aside_at, why, report_id)"
            f" SELECT result_id, {KEY}, '', '', 1 FROM narrative_results WHERE {SUCCESS_ROW}",
        ],
    ),
    "a negative answer time": (
        {"I14"},
        [f"UPDATE narrative_results SET response_sec = -0.5 WHERE {SUCCESS_ROW}"],
    ),
    "a copy where every narrative is asked": (
        {"I20"},
        [f"UPDATE narrative_results SET copied_from = 2 WHERE {SUCCESS_ROW}"],
    ),
    "a skip that was called for": (
        {"I10", "I13"},  # an error less, a skip more
        [
            f"UPDATE experiments SET skip_placeholders = 1 WHERE experiment_id = '{WHOLE}'",
            "UPDATE narrative_results SET skip_reason = 'placeholder', error_occurred = 0, error_category = NULL,"
            f" error_message = NULL WHERE {ERROR_ROW} AND row_num = 6",
        ],
    ),
    "a skip with an answer": (
        {"I5", "I10", "I13"},
        [
            f"UPDATE experiments SET skip_placeholders = 1 WHERE experiment_id = '{WHOLE}'",
            f"UPDATE narrative_results SET skip_reason = 'placeholder' WHERE {SUCCESS_ROW}",
        ],
    ),
    "a copy of another text": (
        {"I21"},
        [
            f"UPDATE experiments SET ask_identical_once = 1 WHERE experiment_id = '{WHOLE}'",
            f"UPDATE narrative_results SET copied_from = 2 WHERE {SUCCESS_ROW}",
            f"DELETE FROM attempts WHERE experiment_id = '{WHOLE}' AND narrative_id = 1",
        ],
    ),
}


async def test_a_healthy_database_keeps_every_promise(database: Path) -> None:
    result = await examine(database)

    assert [one.invariant_id for one in result.findings if one.holds] == [one.invariant_id for one in INVARIANTS]
    assert sum(one.n_inherited for one in result.findings) == 0
    assert result.exit_code is ExitCode.COMPLETED
    assert verification_lines(result.findings)[-1] == f"all {len(INVARIANTS)} invariants hold"


@pytest.mark.parametrize("what", BREAKS)
async def test_what_is_broken_is_named_and_nothing_else(what: str, database: Path) -> None:
    expected, statements = BREAKS[what]
    execute(database, *statements)

    result = await examine(database)

    assert broken(result) == expected
    assert result.exit_code is ExitCode.BAD_DATA
    for one in result.findings:
        assert bool(one.examples) == (not one.holds)
    last = verification_lines(result.findings)[-1]
    assert last.endswith(", ".join(sorted(expected, key=lambda name: int(name[1:]))))


def test_every_invariant_is_broken_alone_by_one_of_the_cases() -> None:
    alone = {name for expected, _ in BREAKS.values() if len(expected) == 1 for name in expected}
    assert alone == {one.invariant_id for one in INVARIANTS}


async def test_no_line_and_no_document_holds_a_text_or_an_answer(database: Path, build: Any) -> None:
    for _, statements in BREAKS.values():
        if not any("TEMP TABLE" in one or "writable_schema" in one or "UPDATE sou" in one for one in statements):
            execute(database, *statements)

    result = await examine(database)

    assert len(broken(result)) >= 8
    shown = "\n".join(verification_lines(result.findings)) + str(
        verification_json(result.findings, experiment_id=result.experiment_id)
    )
    for number in range(8):
        assert build.narrative(number).narrative_text not in shown
    for secret in ("Synthetic account", "made-up reason", '{"made"'):
        assert secret not in shown


async def test_a_batch_that_was_stored_twice_is_no_call_after_a_success(
    tmp_path: Path, healthy: Path, build: Any
) -> None:
    path = Path(shutil.copy(healthy, tmp_path / "experiments.db"))
    store = await open_sqlite_writer(path)
    try:
        experiment = await store.load_experiment(HALF)  # type: ignore[arg-type]  # an id is text
        run_id, outcomes = await work_on(store, experiment, build, at_most=2, ends=False)
        failed = [attempt(one.item, ErrorCategory.SERVER_ERROR) for one in outcomes]
        mark = ProgressMark(runtime_s=4.5, estimated_completion_time=None)
        await store.write_batch(experiment.experiment_id, run_id, [*failed, *outcomes], mark)
    finally:
        await store.aclose()

    assert broken(await examine(path)) == set()


async def test_one_experiment_is_not_blamed_for_another(database: Path) -> None:
    execute(
        database,
        f"UPDATE narrative_results SET confidence = 95, response_sec = -1 WHERE {SUCCESS_ROW}",
        "UPDATE experiments SET n_narratives_total = 7, config_sha256 = '', n_errors = 0"
        f" WHERE experiment_id = '{WHOLE}'",
        "UPDATE source_narratives SET text_sha256 = '' WHERE narrative_id = 8",  # in the cohort of one of them
    )

    assert broken(await examine(database, HALF)) == set()
    assert broken(await examine(database, WHOLE[:8])) == {"I4", "I5", "I7", "I8", "I11", "I13", "I14"}
    assert (await examine(database, "latest")).experiment_id in (WHOLE, HALF)
    with pytest.raises(UnknownExperimentError):
        await examine(database, "deadbeef")


async def test_what_the_predecessor_left_is_listed_and_fails_nothing(database: Path, build: Any) -> None:
    known = build.narrative(0)
    execute(
        database,
        "INSERT INTO experiments (experiment_id, experiment_name, status, n_narratives_total, n_narratives_processed)"
        f" VALUES ('{OLD}', 'old', 'completed', 4, 3)",
        f"INSERT INTO narrative_results ({KEY}, error_occurred, error_message, detected, confidence)"
        f" VALUES ('{OLD}', '{known.incident_id}', '{known.narrative_type}', 1, 'old', NULL, NULL),"
        f" ('{OLD}', 'unknown', 'cme', 0, NULL, 1, 95)",
        f"INSERT INTO narrative_results ({KEY}, error_occurred, detected) VALUES ('{OLD}', x'00', 'le', 0, 0)",
        f"INSERT INTO narrative_results ({KEY}, error_occurred, detected) VALUES ('gone', 'one', 'le', 0, 0)",
    )

    result = await examine(database)

    inherited = {one.invariant_id for one in result.findings if one.n_inherited}
    assert broken(result) == set()
    assert inherited == {"I1", "I3", "I5", "I6", "I7"}
    assert result.exit_code is ExitCode.COMPLETED
    assert any(line.startswith("notice: ") for line in verification_lines(result.findings))

    execute(database, f"UPDATE narrative_results SET run_id = 1 WHERE experiment_id = '{OLD}' AND confidence = 95")
    assert {"I3", "I5"} <= broken(await examine(database))


async def test_of_many_violations_a_few_are_shown_and_all_are_counted(database: Path) -> None:
    execute(database, "UPDATE attempts SET duration_s = -1")

    (finding,) = [one for one in (await examine(database)).findings if not one.holds]

    assert (finding.invariant_id, len(finding.examples)) == ("I14", MAX_EXAMPLES)
    assert finding.n_violations > MAX_EXAMPLES
    lines = verification_lines([finding])
    assert f"     - and {finding.n_violations - MAX_EXAMPLES} more" in lines


async def test_a_page_of_garbage_is_told_and_the_rest_is_looked_at_all_the_same(database: Path) -> None:
    with closing(sqlite3.connect(database)) as db:
        (page,) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'attempts'").fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    with database.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)

    result = await examine(database)

    assert {"I1", "I10"} <= broken(result)
    assert "I5" not in broken(result)
    assert any("not checked to the end" in line for line in verification_lines(result.findings))
    assert result.exit_code is ExitCode.BAD_DATA


async def test_all_of_it_is_read_at_one_moment_whatever_is_committed_meanwhile(database: Path) -> None:
    store = await open_sqlite_reader(database)
    meanwhile: list[str] = []

    def commit_beside(statement: str) -> None:
        if "HAVING COUNT" in statement and not meanwhile:  # I2 begins; the counters are looked at much later
            meanwhile.append(statement)
            execute(database, f"UPDATE experiments SET n_narratives_processed = 9 WHERE experiment_id = '{WHOLE}'")

    try:
        await store._reader.set_trace_callback(commit_beside)
        first, second = await verify(store, None), await verify(store, None)
    finally:
        await store.aclose()

    assert meanwhile, "nothing was committed meanwhile"
    assert (broken(first), broken(second)) == (set(), {"I13"})


async def test_verifying_can_be_cut_short_and_leaves_no_transaction_open(database: Path) -> None:
    store = await open_sqlite_reader(database)
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(verify(store, None))

    def cut_short(statement: str) -> None:
        if "HAVING COUNT" in statement:
            loop.call_soon_threadsafe(task.cancel)

    try:
        await store._reader.set_trace_callback(cut_short)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not store._reader.in_transaction
    finally:
        await store.aclose()


async def test_verifying_leaves_the_file_as_it_was(database: Path) -> None:
    before = database.read_bytes()

    await examine(database)

    assert database.read_bytes() == before


def test_a_finding_that_could_not_be_checked_does_not_hold() -> None:
    finding = InvariantFinding(
        invariant_id="I5",
        sentence="made up",
        n_violations=0,
        examples=(),
        n_inherited=0,
        inherited_examples=(),
        obstacle="the file is damaged",
    )

    assert not finding.holds
    assert "unknown" in verification_lines([finding])[0]
