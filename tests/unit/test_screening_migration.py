"""Promises of the step that makes room for screening: nothing changes, and nobody is said to have looked."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from narrun_async.models import Experiment, PageCursor, RunId, Selection
from narrun_async.stores import open_sqlite_writer
from narrun_async.stores.sqlite.migrations import MIGRATIONS, _add_screening
from narrun_async.stores.sqlite.schema import SCREENING_INDEXES

ADDED = {
    "source_narratives": ("text_flags", "same_text_as"),
    "experiments": ("skip_placeholders", "ask_identical_once", "placeholder_rules"),
    "narrative_results": ("skip_reason", "copied_from"),
}


async def load_experiment(path: Path) -> tuple[Experiment, int]:
    """The only experiment, and how many of its narratives are to be sent."""
    store = await open_sqlite_writer(path)
    try:
        (experiment,) = await store.list_experiments()
        page = await store.load_page(experiment, Selection.MISSING, run_id=RunId(0), after=PageCursor(), limit=50)
        return experiment, len(page)
    finally:
        await store.aclose()


@pytest.fixture
async def earlier(tmp_path: Path, build: Any) -> Path:
    """A database as the version before left it, with four narratives and an experiment."""
    path = tmp_path / "experiments.db"
    store = await open_sqlite_writer(path)
    source = build.source([build.narrative(n, text="N/A" if n > 1 else None) for n in range(4)])
    await store.add_source(source, on_conflict="error")
    await build.experiment(store, source.checksum)
    await store.aclose()
    with closing(sqlite3.connect(path)) as db:
        for statement in SCREENING_INDEXES:
            db.execute(f"DROP INDEX {statement.split()[5]}")
        db.execute("DROP TABLE screenings")
        for table, names in ADDED.items():
            for name in names:
                db.execute(f"ALTER TABLE {table} DROP COLUMN {name}")
        db.execute(f"PRAGMA user_version = {MIGRATIONS.index(_add_screening)}")
        db.commit()
    return path


def dump(path: Path) -> list[tuple[Any, ...]]:
    """What the version before knew of."""
    rows: list[tuple[Any, ...]] = []
    with closing(sqlite3.connect(path)) as db:
        for table, added in ADDED.items():
            names = [column[1] for column in db.execute(f"PRAGMA table_info({table})") if column[1] not in added]
            rows += db.execute(f"SELECT {', '.join(names)} FROM {table}")
    return rows


async def test_a_file_of_the_version_before_gets_room_and_keeps_every_value(earlier: Path) -> None:
    before = dump(earlier)

    experiment, n_to_send = await load_experiment(earlier)

    assert dump(earlier) == before
    assert (experiment.skips_placeholders, experiment.asks_identical_once) == (False, False)
    assert n_to_send == 4
    with closing(sqlite3.connect(earlier)) as db:
        assert db.execute("SELECT DISTINCT text_flags, same_text_as FROM source_narratives").fetchall() == [
            (None, None)
        ]
        assert db.execute("SELECT COUNT(*) FROM screenings").fetchone() == (0,)


async def test_the_step_may_be_taken_again(earlier: Path) -> None:
    await load_experiment(earlier)
    before = dump(earlier)
    with closing(sqlite3.connect(earlier)) as db:
        db.execute(f"PRAGMA user_version = {MIGRATIONS.index(_add_screening)}")
    await load_experiment(earlier)
    assert dump(earlier) == before
