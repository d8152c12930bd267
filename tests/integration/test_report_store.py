"""What a report reads of a real SQLite file beside the results, and the step that made room for it."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from narrun_async.models import IngestRecord, Serving, SourceSummary
from narrun_async.stores import SqliteStore, open_sqlite_reader, open_sqlite_writer
from narrun_async.stores.sqlite.migrations import MIGRATIONS, _add_ingests_and_years


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await open_sqlite_writer(tmp_path / "experiments.db")
    yield opened
    await opened.aclose()


async def test_what_a_file_held_besides_its_narratives_is_remembered(store: SqliteStore, build: Any) -> None:
    first, again = build.narrative(0), build.narrative(0)
    other = build.narrative(0, text="Another account of the same.")
    source = build.source([first, again, other, build.narrative(1)])
    summary = SourceSummary(n_cases=3, n_blank=4, n_blank_ids=1, n_texts_repaired=2)
    object.__setattr__(source, "summary", lambda: summary)
    report = await store.add_source(source, on_conflict="first")
    record = await store.load_ingest(source.checksum)
    assert record == IngestRecord(
        n_cases=3, n_blank=4, n_blank_ids=1, n_texts_repaired=2, n_duplicates=1, n_conflicts_dropped=1
    )
    assert (report.n_duplicates, report.n_conflicts_dropped) == (1, 1)
    assert await store.load_ingest("f" * 64) is None


async def test_a_known_file_is_noted_once(store: SqliteStore, build: Any) -> None:
    source = build.source(4)
    await store.add_source(source, on_conflict="error")
    await store.add_source(source, on_conflict="error")
    with closing(sqlite3.connect(store.path)) as db:
        assert db.execute("SELECT COUNT(*) FROM ingests").fetchone() == (1,)


async def test_calls_come_in_the_order_of_the_ledger_with_their_moments_but_for_those_of_batches(
    store: SqliteStore, build: Any
) -> None:
    source = build.source(2)
    await store.add_source(source, on_conflict="error")
    experiment = await build.experiment(store, source.checksum)
    run_id = await store.begin_run(build.run_start(experiment))
    with closing(sqlite3.connect(store.path)) as db, db:
        db.executemany(
            "INSERT INTO attempts (experiment_id, run_id, narrative_id, started_at, duration_s, error_category,"
            " charged) VALUES (?, ?, 1, ?, ?, ?, 1)",
            [
                (experiment.experiment_id, run_id, "2026-03-04T08:00:00.250+00:00", 1.5, "timeout"),
                (experiment.experiment_id, run_id, "2026-03-04T08:00:02.000+00:00", 0.5, None),
                (experiment.experiment_id, run_id, "2026-03-04T08:00:03.000+00:00", 0.25, None),
                ("another", run_id, "2026-03-04T08:00:02.000+00:00", 9.0, None),
            ],
        )
        db.execute("UPDATE attempts SET batch_id = 1 WHERE duration_s = 0.25")
    calls = [call async for call in store.iter_calls(experiment.experiment_id)]
    assert [(call.duration_s, call.error_category, call.run_id) for call in calls] == [
        (1.5, "timeout", run_id),
        (0.5, None, run_id),
    ]
    assert (calls[1].started_at - calls[0].started_at).total_seconds() == 1.75
    (run,) = await store.list_runs(experiment.experiment_id)
    assert (run.host, run.narrun_version, run.api_url_overridden) == ("localhost", "0.0.0", False)


async def test_indicators_are_read_in_every_form_in_which_they_were_ever_stored(store: SqliteStore, build: Any) -> None:
    source = build.source(8)
    await store.add_source(source, on_conflict="error")
    experiment = await build.experiment(store, source.checksum)
    stored = ['["a, b", "c"]', "[]", "threatened, stalked", '"one"', "[1, null]", "[" * 2000, None]
    with closing(sqlite3.connect(store.path)) as db, db:
        db.executemany(
            "INSERT INTO narrative_results (experiment_id, incident_id, narrative_type, detected, indicators)"
            " VALUES (?, ?, 'cme', ?, ?)",
            [(experiment.experiment_id, f"x{number}", number % 2, text) for number, text in enumerate(stored)],
        )
    answers = [one async for one in store.iter_indicators(experiment.experiment_id)]
    assert [one.indicators for one in answers[:5]] == [
        ("a, b", "c"),
        (),
        ("threatened", " stalked"),
        ("one",),
        (),
    ]
    assert [one.is_yes for one in answers[:4]] == [False, True, False, True]
    assert [one.indicators for one in answers[6:]] == [()]  # that it names none is told, too


async def test_who_answered_is_told_with_how_often(store: SqliteStore, build: Any) -> None:
    source = build.source(4)
    await store.add_source(source, on_conflict="error")
    experiment = await build.experiment(store, source.checksum)
    with closing(sqlite3.connect(store.path)) as db, db:
        for model, fingerprint in (("m", "fp_1"), ("m", "fp_2"), ("", "")):
            db.execute(
                "INSERT INTO servings (experiment_id, model, system_fingerprint, server) VALUES (?, ?, ?, '')",
                (experiment.experiment_id, model, fingerprint),
            )
        db.executemany(
            "INSERT INTO narrative_results (experiment_id, incident_id, narrative_type, response_model,"
            " system_fingerprint) VALUES (?, ?, 'cme', ?, ?)",
            [(experiment.experiment_id, str(n), *who) for n, who in enumerate([("m", "fp_1")] * 3 + [(None, None)])],
        )
    uses = await store.list_serving_uses(experiment.experiment_id)
    assert [(use.serving, use.n_results) for use in uses] == [
        (Serving(model="m", system_fingerprint="fp_1"), 3),
        (Serving(model="m", system_fingerprint="fp_2"), 0),
        (Serving(model=None, system_fingerprint=None), 1),
    ]


async def test_a_database_of_the_version_before_gets_room_and_says_nothing_it_does_not_know(
    tmp_path: Path, build: Any
) -> None:
    path = tmp_path / "earlier.db"
    store = await open_sqlite_writer(path)
    source = build.source([replace(build.narrative(n), incident_year=2016) for n in range(3)])
    await store.add_source(source, on_conflict="error")
    experiment = await build.experiment(store, source.checksum)
    await store.aclose()
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE ingests")
        db.execute("ALTER TABLE source_narratives DROP COLUMN incident_year")
        db.execute(f"PRAGMA user_version = {MIGRATIONS.index(_add_ingests_and_years)}")
        db.commit()
    await (await open_sqlite_writer(path)).aclose()
    store = await open_sqlite_reader(path)
    try:
        assert [row.incident_year async for row in store.iter_cohort(experiment)] == [None, None, None]
        assert await store.load_ingest(source.checksum) is None
    finally:
        await store.aclose()
