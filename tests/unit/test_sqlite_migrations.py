"""Promises of opening a SQLite file: ours is created whole, the predecessor's is adopted, anything else is left alone.

The legacy shapes are those of `r_databases`, as the predecessor made them, not taken from the schema of today.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from r_databases import GENERATIONS, dump
from reliability import Measured

from narrun_async.errors import LockHeldError, StorageError
from narrun_async.models import Outcome, PageCursor, ProgressMark, RunId, Selection
from narrun_async.stores import open_sqlite_reader, open_sqlite_writer
from narrun_async.stores.sqlite.migrations import SCHEMA_VERSION

LEGACY_ID = "11111111-2222-4333-8444-555555555555"


def write_legacy(path: Path, generation: str, build: Any) -> None:
    """Four narratives and an experiment with three results, one of them an error."""
    with closing(sqlite3.connect(path)) as db, db:
        for statement in GENERATIONS[generation]:
            db.execute(statement)
        for number in range(4):
            one = build.narrative(number)
            db.execute(
                "INSERT INTO source_narratives (incident_id, narrative_type, narrative_text, manual_flag_ind,"
                " manual_flag, data_source, loaded_at) VALUES (?, ?, ?, ?, ?, 'C:/old.xlsx', '2025-01-01 10:00:00')",
                (one.incident_id, one.narrative_type, one.narrative_text, one.manual_flag_ind, one.manual_flag),
            )
        if generation != "a":
            db.execute("UPDATE source_narratives SET data_checksum = '0123456789abcdef0123456789abcdef'")
        db.execute(
            "INSERT INTO experiments (experiment_id, experiment_name, status, model_name, n_narratives_total,"
            " created_at) VALUES (?, 'legacy', 'completed', 'gpt-oss-120b', 4, '2025-01-01 10:00:00')",
            (LEGACY_ID,),
        )
        for number in (0, 1, 2):
            one = build.narrative(number)
            db.execute(
                "INSERT INTO narrative_results (experiment_id, incident_id, narrative_type, row_num, narrative_text,"
                " detected, confidence, error_occurred, error_message, prompt_tokens)"
                " VALUES (?, ?, ?, ?, ?, ?, 0.5, ?, ?, 9)",
                (LEGACY_ID, one.incident_id, one.narrative_type, number + 1, one.narrative_text, 1, number == 2, None),
            )


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def columns_of(path: Path, table: str) -> list[str]:
    with closing(sqlite3.connect(path)) as db:
        return [row[1] for row in db.execute(f"PRAGMA table_info({table})")]


def user_version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


def unique_indexes(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as db:
        return sum(row[2] for row in db.execute(f"PRAGMA index_list({table})"))


async def open_and_close(path: Path) -> Path | None:
    store = await open_sqlite_writer(path)
    await store.aclose()
    return store.migrated.backup


# --- our own ---------------------------------------------------------------------------------------------------------


async def test_a_fresh_database_is_whole_private_and_alone(tmp_path: Path) -> None:
    path = tmp_path / "data" / "experiments.db"
    umask = os.umask(0)
    try:
        store = await open_sqlite_writer(path)
        files = {found.name: found.stat().st_mode & 0o777 for found in path.parent.iterdir()}
        await store.aclose()
    finally:
        os.umask(umask)
    assert files.keys() <= {"experiments.db", "experiments.db-wal", "experiments.db-shm"}
    assert set(files.values()) == {0o600}
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [found.name for found in path.parent.iterdir()] == ["experiments.db"]
    assert (store.migrated.backup, user_version(path)) == (None, SCHEMA_VERSION)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


async def test_a_fresh_database_has_the_predecessors_columns_first_and_in_order(tmp_path: Path) -> None:
    path, legacy = tmp_path / "new.db", tmp_path / "old.db"
    await open_and_close(path)
    with closing(sqlite3.connect(legacy)) as db:
        for statement in GENERATIONS["c"]:
            db.execute(statement)
    for table in ("source_narratives", "experiments", "narrative_results"):
        expected = columns_of(legacy, table)
        assert columns_of(path, table)[: len(expected)] == expected


async def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "experiments.db"
    await open_and_close(path)
    before = digest(path)
    assert await open_and_close(path) is None
    assert digest(path) == before
    assert [found.name for found in tmp_path.iterdir()] == ["experiments.db"]


async def test_the_writer_waits_for_the_disk(tmp_path: Path) -> None:
    store = await open_sqlite_writer(tmp_path / "experiments.db")
    try:
        for pragma, expected in (("synchronous", 2), ("foreign_keys", 1), ("journal_mode", "wal")):
            async with store.writer.execute(f"PRAGMA {pragma}") as cursor:
                assert [row[0] async for row in cursor] == [expected]
    finally:
        await store.aclose()


@pytest.mark.parametrize("stop_at", ["rename", "migrate"])
async def test_a_kill_while_a_database_is_created_leaves_nothing_wrong(tmp_path: Path, stop_at: str) -> None:
    """The process dies by SIGKILL either before the schema is committed, or after it and before the rename."""
    path = tmp_path / "experiments.db"
    script = (
        "import asyncio, os, signal, sys\nfrom pathlib import Path\n"
        "from narrun_async.stores.sqlite.store import open_sqlite_writer\n"
        "def hook(event, args):\n"
        "    if event == 'os.rename' or (sys.argv[2] == 'migrate' and event == 'sqlite3.connect/handle'):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.addaudithook(hook)\n"
        "asyncio.run(open_sqlite_writer(Path(sys.argv[1])))\n"
    )
    for _ in range(2):
        killed = subprocess.run([sys.executable, "-c", script, str(path), stop_at], capture_output=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert not path.exists()
    await open_and_close(path)
    assert user_version(path) == SCHEMA_VERSION
    assert [found.name for found in tmp_path.iterdir()] == ["experiments.db"]


# --- the predecessor's -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("generation", sorted(GENERATIONS))
async def test_a_legacy_file_is_adopted_in_place_after_a_backup(tmp_path: Path, generation: str, build: Any) -> None:
    path = tmp_path / "experiments.db"
    write_legacy(path, generation, build)
    before = dump(path)
    umask = os.umask(0)
    try:
        backup = await open_and_close(path)
    finally:
        os.umask(umask)
    assert backup is not None
    assert backup.parent == tmp_path
    assert backup.name.endswith(".bak")
    assert backup.stat().st_mode & 0o777 == 0o600
    assert dump(backup) == before
    after = dump(path)
    for table, rows in before.items():
        assert [{name: row[name] for name in old} for row, old in zip(after[table], rows, strict=True)] == rows
    assert unique_indexes(path, "narrative_results") >= 1
    assert user_version(path) == SCHEMA_VERSION
    for row in after["source_narratives"]:
        assert row["text_sha256"] == sha256(row["narrative_text"].encode()).hexdigest()
    assert {row["run_id"] for row in after["narrative_results"]} == {None}


@pytest.mark.parametrize("generation", ["b", "c"])
async def test_a_key_that_the_predecessor_made_is_not_made_twice(tmp_path: Path, generation: str, build: Any) -> None:
    path = tmp_path / "experiments.db"
    write_legacy(path, generation, build)
    await open_and_close(path)
    assert unique_indexes(path, "narrative_results") == 1
    assert unique_indexes(path, "source_narratives") == 1


@pytest.mark.parametrize("generation", sorted(GENERATIONS))
async def test_adopting_is_safe_to_repeat(tmp_path: Path, generation: str, build: Any) -> None:
    path = tmp_path / "experiments.db"
    write_legacy(path, generation, build)
    await open_and_close(path)
    before = dump(path)
    assert await open_and_close(path) is None
    assert dump(path) == before
    assert len(list(tmp_path.glob("*.bak"))) == 1


@pytest.mark.parametrize("generation", sorted(GENERATIONS))
async def test_work_goes_on_in_an_adopted_file(tmp_path: Path, generation: str, build: Any) -> None:
    """The workbook it was loaded from is recognised by its rows, and a new experiment runs on it."""
    path = tmp_path / "experiments.db"
    write_legacy(path, generation, build)
    store = await open_sqlite_writer(path)
    try:
        legacy = await store.load_experiment(build.new_experiment().experiment_id.__class__(LEGACY_ID))
        assert (await store.count_results(legacy)).n_errors == 1
        source = build.source(4, path="new/place.xlsx")
        report = await store.add_source(source, on_conflict="error")
        assert (report.loaded, report.source.n_narratives) == (False, 4)
        experiment = await build.experiment(store, report.source.checksum)
        assert experiment.cohort.n_narratives == 4
        run_id = await store.begin_run(build.run_start(experiment))
        items = await store.load_page(experiment, Selection.MISSING, run_id=run_id, after=PageCursor(), limit=9)
        assert [item.row_num for item in items] == [1, 2, 3, 4]
    finally:
        await store.aclose()


async def test_a_file_without_checksums_takes_the_one_of_its_workbook(tmp_path: Path, build: Any) -> None:
    path = tmp_path / "experiments.db"
    write_legacy(path, "a", build)
    store = await open_sqlite_writer(path)
    try:
        source = build.source(4)
        await store.add_source(source, on_conflict="error")
        found = await store.find_source(checksums=[source.checksum])
        assert found is not None
        assert (found.path, found.n_narratives) == ("C:/old.xlsx", 4)
    finally:
        await store.aclose()


async def test_a_reader_does_not_migrate(tmp_path: Path, build: Any) -> None:
    path = tmp_path / "experiments.db"
    write_legacy(path, "c", build)
    before = digest(path)
    with pytest.raises(StorageError, match="narrun migrate"):
        await open_sqlite_reader(path)
    assert digest(path) == before


# --- anything else ---------------------------------------------------------------------------------------------------


def _newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE experiments (experiment_id TEXT)")
        db.execute("CREATE TABLE source_narratives (narrative_id INTEGER)")
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")


def _foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE recipes (name TEXT)")


def _damaged(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE source_narratives (a TEXT)")
        db.execute("CREATE TABLE experiments (a TEXT)")
        db.executemany("INSERT INTO source_narratives VALUES (?)", [("made up " * 50,)] * 200)
    content = bytearray(path.read_bytes())
    content[4096 * 2 : 4096 * 2 + 2000] = b"\xff" * 2000
    path.write_bytes(content)


def _truncated(path: Path) -> None:
    _damaged(path)
    path.write_bytes(path.read_bytes()[: 4096 * 3 + 100])


FOREIGN: Mapping[str, tuple[Callable[[Path], object], str]] = {
    "newer": (_newer, "newer narrun"),
    "foreign": (_foreign, "another program"),
    "text": (lambda path: path.write_text("incident_id,narrative_type\n" * 100), "not a SQLite database"),
    "empty": (lambda path: path.touch(), "empty"),
    "damaged": (_damaged, "damaged"),
    "truncated": (_truncated, "damaged"),
}


@pytest.mark.fault("D15")
@pytest.mark.parametrize("kind", sorted(FOREIGN))
async def test_a_file_that_is_not_ours_is_refused_and_left_byte_for_byte(
    tmp_path: Path, kind: str, measured: Measured
) -> None:
    make, sentence = FOREIGN[kind]
    path = tmp_path / "experiments.db"
    make(path)
    before = digest(path)
    with pytest.raises(StorageError, match=sentence) as refused:
        await open_sqlite_writer(path)
    assert str(path) in str(refused.value)
    assert digest(path) == before
    assert [found.name for found in tmp_path.iterdir()] == ["experiments.db"]
    measured(f"{kind}: refused, byte for byte as before")


@pytest.mark.parametrize("kind", ["newer", "foreign", "text", "empty"])
async def test_a_reader_refuses_it_too(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "experiments.db"
    FOREIGN[kind][0](path)
    before = digest(path)
    with pytest.raises(StorageError):
        await open_sqlite_reader(path)
    assert digest(path) == before


async def test_a_reader_needs_a_database(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no database here"):
        await open_sqlite_reader(tmp_path / "none.db")
    assert not list(tmp_path.iterdir())


# --- while it is open ------------------------------------------------------------------------------------------------


async def test_a_text_that_is_no_utf8_is_told_without_the_text(tmp_path: Path, build: Any) -> None:
    path = tmp_path / "experiments.db"
    write_legacy(path, "c", build)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE narrative_results SET rationale = CAST(x'736563726574ff' AS TEXT)")
    store = await open_sqlite_writer(path)
    try:
        with pytest.raises(StorageError) as refused:
            _ = [row async for row in store.iter_results(build.new_experiment().experiment_id.__class__(LEGACY_ID))]
        assert "secret" not in str(refused.value)
        assert refused.value.__cause__ is None
    finally:
        await store.aclose()


@pytest.mark.parametrize("change", ["deleted", "replaced"])
async def test_a_file_that_goes_away_under_us_is_noticed_before_anything_is_called_saved(
    tmp_path: Path, build: Any, change: str
) -> None:
    path = tmp_path / "experiments.db"
    store = await open_sqlite_writer(path)
    try:
        source = build.source(2)
        await store.add_source(source, on_conflict="error")
        experiment = await build.experiment(store, source.checksum)
        run_id = await store.begin_run(build.run_start(experiment))
        path.unlink()
        if change == "replaced":
            path.touch()
        mark = ProgressMark(runtime_s=1.0, estimated_completion_time=None)
        with pytest.raises(StorageError, match="moved, deleted or replaced"):
            await store.write_batch(experiment.experiment_id, run_id, list[Outcome](), mark)
    finally:
        await store.aclose()


async def test_a_foreign_writer_past_the_busy_timeout_is_a_lock_not_a_loss(tmp_path: Path, build: Any) -> None:
    path = tmp_path / "experiments.db"
    store = await open_sqlite_writer(path)
    try:
        source = build.source(2)
        await store.add_source(source, on_conflict="error")
        experiment = await build.experiment(store, source.checksum)
        await store.writer.execute("PRAGMA busy_timeout=20")
        mark = ProgressMark(runtime_s=1.0, estimated_completion_time=None)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(LockHeldError):
                await store.write_batch(experiment.experiment_id, RunId(1), list[Outcome](), mark)
            other.execute("ROLLBACK")
        await store.write_batch(experiment.experiment_id, RunId(1), list[Outcome](), mark)
    finally:
        await store.aclose()
