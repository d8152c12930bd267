"""The schema, and the numbered steps that bring a database to it (`PRAGMA user_version`).

Step 1 also adopts the predecessor's files: it creates what is missing, adds the columns that are missing and leaves
every existing column and row as it is, except where a narrative has several results (`inheritance`). Each step runs in
one transaction together with its version number, so a kill leaves the database at one version or the other, and running
it again changes nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from pathlib import Path

import aiosqlite
from anyio import to_thread

from narrun_async.errors import StorageError
from narrun_async.models import Migrated
from narrun_async.stores.sqlite.connection import transaction
from narrun_async.stores.sqlite.inheritance import (
    create_legacy_tables,
    find_duplicates,
    identify_sources,
    list_reports,
    set_duplicates_aside,
)

# Columns in the predecessor's order; every name is read by R scripts that go on working. Ours follow after the gap.
SOURCE_NARRATIVES = {
    "narrative_id": "INTEGER PRIMARY KEY AUTOINCREMENT",
    "incident_id": "TEXT",
    "narrative_type": "TEXT",
    "narrative_text": "TEXT",
    "manual_flag_ind": "INTEGER",
    "manual_flag": "INTEGER",
    "data_source": "TEXT",
    "data_checksum": "TEXT",
    "loaded_at": "TEXT",
    "text_sha256": "TEXT",
}

EXPERIMENTS = {
    "experiment_id": "TEXT PRIMARY KEY",
    "experiment_name": "TEXT",
    "status": "TEXT",
    "model_name": "TEXT",
    "model_provider": "TEXT",
    "temperature": "REAL",
    "system_prompt": "TEXT",
    "user_template": "TEXT",
    "prompt_version": "TEXT",
    "prompt_author": "TEXT",
    "run_seed": "INTEGER",
    "data_file": "TEXT",
    "n_narratives_total": "INTEGER",
    "n_narratives_processed": "INTEGER",
    "n_narratives_skipped": "INTEGER",
    "n_narratives_completed": "INTEGER",
    "last_progress_update": "TEXT",
    "estimated_completion_time": "TEXT",
    "start_time": "TEXT",
    "end_time": "TEXT",
    "total_runtime_sec": "REAL",
    "avg_time_per_narrative_sec": "REAL",
    "api_url": "TEXT",
    "r_version": "TEXT",
    "os_info": "TEXT",
    "hostname": "TEXT",
    "n_positive_detected": "INTEGER",
    "n_negative_detected": "INTEGER",
    "n_positive_manual": "INTEGER",
    "n_negative_manual": "INTEGER",
    "accuracy": "REAL",
    "precision_ipv": "REAL",
    "recall_ipv": "REAL",
    "f1_ipv": "REAL",
    "n_false_positive": "INTEGER",
    "n_false_negative": "INTEGER",
    "n_true_positive": "INTEGER",
    "n_true_negative": "INTEGER",
    "pct_overlap_with_manual": "REAL",
    "csv_file": "TEXT",
    "json_file": "TEXT",
    "log_dir": "TEXT",
    "created_at": "TEXT",
    "notes": "TEXT",
    # ours
    "config_json": "TEXT",
    "config_sha256": "TEXT",
    "config_file": "TEXT",
    "cohort_last_narrative_id": "INTEGER",
    "data_checksum": "TEXT",
    "n_errors": "INTEGER",
    "narrun_version": "TEXT",
    "python_version": "TEXT",
}

NARRATIVE_RESULTS = {
    "result_id": "INTEGER PRIMARY KEY AUTOINCREMENT",
    "experiment_id": "TEXT REFERENCES experiments(experiment_id)",
    "incident_id": "TEXT",
    "narrative_type": "TEXT",
    "row_num": "INTEGER",
    "narrative_text": "TEXT",
    "manual_flag_ind": "INTEGER",
    "manual_flag": "INTEGER",
    "detected": "INTEGER",
    "confidence": "REAL",
    "indicators": "TEXT",
    "rationale": "TEXT",
    "reasoning_steps": "TEXT",
    "raw_response": "TEXT",
    "response_sec": "REAL",
    "processed_at": "TEXT",
    "error_occurred": "INTEGER DEFAULT 0",
    "error_message": "TEXT",
    "prompt_tokens": "INTEGER",
    "completion_tokens": "INTEGER",
    "tokens_used": "INTEGER",
    "is_true_positive": "INTEGER",
    "is_true_negative": "INTEGER",
    "is_false_positive": "INTEGER",
    "is_false_negative": "INTEGER",
    # ours
    "error_category": "TEXT",
    "attempt_count": "INTEGER",
    "first_error_message": "TEXT",
    "last_attempt_at": "TEXT",
    "finish_reason": "TEXT",
    "response_model": "TEXT",
    "system_fingerprint": "TEXT",
    "parse_method": "TEXT",
    "cached_tokens": "INTEGER",
    "reasoning_tokens": "INTEGER",
    "run_id": "INTEGER REFERENCES runs(run_id)",
}

# One row a process life. Times are UTC, ISO 8601; runtime_s is monotonic and advances with every commit, so that a
# killed run's time is known to the last of them.
RUNS = {
    "run_id": "INTEGER PRIMARY KEY AUTOINCREMENT",
    "experiment_id": "TEXT NOT NULL REFERENCES experiments(experiment_id)",
    "mode": "TEXT NOT NULL",
    "selection": "TEXT NOT NULL",
    "host": "TEXT",
    "pid": "INTEGER",
    "narrun_version": "TEXT",
    "concurrency": "",  # a number, or `auto`
    "api_url": "TEXT",
    "api_url_overridden": "INTEGER NOT NULL DEFAULT 0",
    "started_at": "TEXT NOT NULL",
    "last_saved_at": "TEXT",
    "ended_at": "TEXT",
    "runtime_s": "REAL NOT NULL DEFAULT 0",
    "n_saved": "INTEGER NOT NULL DEFAULT 0",
    "exit_code": "INTEGER",
    "ended_why": "TEXT",
}

# Append-only ledger of physical calls; error_category NULL means the call produced a success row.
ATTEMPTS = {
    "attempt_id": "INTEGER PRIMARY KEY AUTOINCREMENT",
    "experiment_id": "TEXT NOT NULL",
    "run_id": "INTEGER NOT NULL REFERENCES runs(run_id)",
    "narrative_id": "INTEGER NOT NULL",
    "started_at": "TEXT NOT NULL",
    "duration_s": "REAL NOT NULL",
    "error_category": "TEXT",
    "error_message": "TEXT",
    "http_status": "INTEGER",
    "charged": "INTEGER NOT NULL",
    "prompt_tokens": "INTEGER",
    "completion_tokens": "INTEGER",
}

# Who has answered for an experiment, in the order in which they were met; an empty text where nothing was said.
SERVINGS = {
    "serving_id": "INTEGER PRIMARY KEY",
    "experiment_id": "TEXT NOT NULL REFERENCES experiments(experiment_id)",
    "model": "TEXT NOT NULL",
    "system_fingerprint": "TEXT NOT NULL",
    "server": "TEXT NOT NULL",
    "run_id": "INTEGER REFERENCES runs(run_id)",
    "first_seen_at": "TEXT",
}

# Narratives that were asked again although their results stand; times are UTC.
CANARY_ANSWERS = {
    "canary_id": "INTEGER PRIMARY KEY",
    "experiment_id": "TEXT NOT NULL REFERENCES experiments(experiment_id)",
    "run_id": "INTEGER NOT NULL REFERENCES runs(run_id)",
    "narrative_id": "INTEGER NOT NULL",
    "asked_at": "TEXT",
    "duration_s": "REAL",
    "detected": "INTEGER",
    "confidence": "REAL",
    "error_category": "TEXT",
    "error_message": "TEXT",
    "response_model": "TEXT",
    "system_fingerprint": "TEXT",
    "prompt_tokens": "INTEGER",
    "completion_tokens": "INTEGER",
}

# One row a `narrun scrub`: since then the texts up to last_narrative_id are gone, and nobody need miss them.
SCRUBS = {
    "scrub_id": "INTEGER PRIMARY KEY AUTOINCREMENT",
    "scrubbed_at": "TEXT NOT NULL",
    "narrun_version": "TEXT NOT NULL",
    "host": "TEXT NOT NULL",
    "last_narrative_id": "INTEGER NOT NULL",
    "n_narratives": "INTEGER NOT NULL",
    "n_results": "INTEGER NOT NULL",
    "n_calls": "INTEGER NOT NULL",
}

#: what step 1 makes or adopts
TABLES: Mapping[str, Mapping[str, str]] = {
    "source_narratives": SOURCE_NARRATIVES,
    "experiments": EXPERIMENTS,
    "runs": RUNS,
    "narrative_results": NARRATIVE_RESULTS,
    "attempts": ATTEMPTS,
}

OUR_TABLES = frozenset(
    {*TABLES, "servings", "canary_answers", "scrubs", "legacy_results", "legacy_reports", "legacy_changes"}
)

# Only what a query of ours or of the R readers needs; the predecessor's ten doubled the cost of a row.
UNIQUE_KEYS = {
    "source_narratives": ("incident_id", "narrative_type"),
    "narrative_results": ("experiment_id", "incident_id", "narrative_type"),
}
INDEXES = (
    "CREATE INDEX IF NOT EXISTS source_narratives_checksum ON source_narratives(data_checksum)",
    "CREATE INDEX IF NOT EXISTS narrative_results_errors ON narrative_results(experiment_id) WHERE error_occurred = 1",
    "CREATE INDEX IF NOT EXISTS attempts_failed ON attempts(experiment_id, narrative_id)"
    " WHERE error_category IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS runs_experiment ON runs(experiment_id)",
)

Migration = Callable[[aiosqlite.Connection, Path], Awaitable[None]]


async def _create_or_adopt(connection: aiosqlite.Connection, path: Path) -> None:
    for table, columns in TABLES.items():
        present = await _column_names(connection, table)
        if not present:
            body = ", ".join(f"{name} {declaration}" for name, declaration in columns.items())
            await connection.execute(f"CREATE TABLE {table} ({body})")
            continue
        for name, declaration in columns.items():
            if name not in present:
                await connection.execute(f"ALTER TABLE {table} ADD COLUMN {name} {declaration}")
    await create_legacy_tables(connection)
    await set_duplicates_aside(connection)
    for table, key in UNIQUE_KEYS.items():
        if not await _has_unique_index(connection, table, key):
            await connection.execute(f"CREATE UNIQUE INDEX {table}_key ON {table}({', '.join(key)})")
    for statement in INDEXES:
        await connection.execute(statement)
    await connection.execute(
        "UPDATE source_narratives SET text_sha256 = text_sha256(narrative_text) WHERE text_sha256 IS NULL"
    )


async def has_results(connection: aiosqlite.Connection) -> bool:
    """Whether there is a table of results; the predecessor may have loaded narratives and gone no further."""
    return bool(await _column_names(connection, "narrative_results"))


async def refuse_duplicates(connection: aiosqlite.Connection, path: Path) -> None:
    """To be called before anything is changed, the journal mode in the file's header included.

    :raises StorageError: a file of the predecessor holds several results of one narrative
    """
    if await schema_version(connection) or not await has_results(connection):
        return
    n_narratives, _ = await find_duplicates(connection)
    if n_narratives:
        raise StorageError(
            f"{n_narratives} narratives have more than one result row, so no unique key can be put on"
            " narrative_results",
            path=path,
            advice="leave out --no-dedupe, and the newest success of each stays while the others are kept in"
            " legacy_results; nothing was changed",
        )


async def _add_scrubs(connection: aiosqlite.Connection, path: Path) -> None:
    body = ", ".join(f"{name} {declaration}" for name, declaration in SCRUBS.items())
    await connection.execute(f"CREATE TABLE IF NOT EXISTS scrubs ({body})")


async def _add_servings_and_canaries(connection: aiosqlite.Connection, path: Path) -> None:
    for table, columns in {"servings": SERVINGS, "canary_answers": CANARY_ANSWERS}.items():
        body = ", ".join(f"{name} {declaration}" for name, declaration in columns.items())
        await connection.execute(f"CREATE TABLE IF NOT EXISTS {table} ({body})")
    await connection.execute(
        "CREATE UNIQUE INDEX IF NOT EXISTS servings_key ON servings(experiment_id, model, system_fingerprint, server)"
    )
    await connection.execute("CREATE INDEX IF NOT EXISTS canary_answers_experiment ON canary_answers(experiment_id)")
    await connection.execute(
        "INSERT INTO servings (experiment_id, model, system_fingerprint, server, run_id, first_seen_at)"
        " SELECT experiment_id, COALESCE(response_model, ''), COALESCE(system_fingerprint, ''), '', MIN(run_id),"
        "        MIN(last_attempt_at)"
        " FROM narrative_results WHERE response_model IS NOT NULL OR system_fingerprint IS NOT NULL"
        " GROUP BY 1, 2, 3 ORDER BY MIN(result_id)"
        " ON CONFLICT (experiment_id, model, system_fingerprint, server) DO NOTHING"
    )


async def _identify_sources(connection: aiosqlite.Connection, path: Path) -> None:
    await identify_sources(connection)


#: step N brings a database from version N to N + 1
MIGRATIONS: tuple[Migration, ...] = (_create_or_adopt, _add_servings_and_canaries, _add_scrubs, _identify_sources)
SCHEMA_VERSION = len(MIGRATIONS)


async def schema_version(connection: aiosqlite.Connection) -> int:
    """`PRAGMA user_version`: how many steps the database has taken."""
    async with connection.execute("PRAGMA user_version") as cursor:
        row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def refuse_foreign(connection: aiosqlite.Connection, path: Path) -> bool:
    """Whether the database holds our tables; False for an empty one.

    :raises StorageError: it holds other tables only, or was written by a newer version of the program
    """
    version = await schema_version(connection)
    if version > SCHEMA_VERSION:
        raise StorageError(
            f"written by a newer narrun (schema {version}, this program knows {SCHEMA_VERSION})",
            path=path,
            advice="update narrun_async; nothing was changed",
        )
    async with connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'") as cursor:
        names = {row[0] async for row in cursor} - {"sqlite_sequence"}
    if names and not {"source_narratives", "experiments"} <= names:
        raise StorageError(
            "this SQLite file belongs to another program", path=path, advice="name another one with --db"
        )
    return bool(names)


async def migrate(connection: aiosqlite.Connection, path: Path) -> Migrated:
    """Take the steps that are missing; backs an existing file up first. Safe to repeat.

    :raises StorageError: the file is foreign or newer, or the backup cannot be made
    """
    has_tables = await refuse_foreign(connection, path)
    version = await schema_version(connection)
    if version == SCHEMA_VERSION:
        return Migrated()
    backup = await back_up(connection, path) if has_tables else None
    for number in range(version, SCHEMA_VERSION):
        async with transaction(connection):
            await MIGRATIONS[number](connection, path)
            # Whatever columns the results have now, those that are set aside have, too.
            await create_legacy_tables(connection)
            await connection.execute(f"PRAGMA user_version = {number + 1}")
    return Migrated(backup=backup, set_aside=() if version else await list_reports(connection))


async def back_up(connection: aiosqlite.Connection, path: Path) -> Path:
    """A consistent copy beside the database, for its owner only: `<name>.<local time>.bak`. It is read back.

    :raises StorageError: it cannot be made, or is not sound; then it is removed again
    """
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    target = path.with_name(f"{path.name}.{stamp}.bak")
    try:
        target.touch(mode=0o600, exist_ok=False)
    except OSError as error:
        raise StorageError(f"cannot back the database up: {error.strerror}", path=target) from error
    try:
        copy = sqlite3.connect(target, check_same_thread=False)
        try:
            await connection.backup(copy)
            (found,) = await to_thread.run_sync(lambda: copy.execute("PRAGMA integrity_check(1)").fetchone())
        finally:
            copy.close()
        if found != "ok":
            raise StorageError("the backup is not sound", path=target, advice="check the disk; nothing was changed")
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return target


async def _column_names(connection: aiosqlite.Connection, table: str) -> set[str]:
    async with connection.execute(f"PRAGMA table_info({table})") as cursor:
        return {row["name"] async for row in cursor}


async def _has_unique_index(connection: aiosqlite.Connection, table: str, key: tuple[str, ...]) -> bool:
    """Whether the predecessor gave the table this key already, as a constraint or under another index name."""
    async with connection.execute(f"PRAGMA index_list({table})") as cursor:
        indexes = [row["name"] async for row in cursor if row["unique"] and not row["partial"]]
    for index in indexes:
        async with connection.execute(f"PRAGMA index_info({index})") as cursor:
            if tuple([row["name"] async for row in cursor]) == key:
                return True
    return False
