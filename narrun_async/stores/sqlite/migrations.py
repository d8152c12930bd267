"""The schema, and the numbered steps that bring a database to it (`PRAGMA user_version`).

Step 1 also adopts the predecessor's files: it creates what is missing, adds the columns that are missing and leaves
every existing column and row as it is. Each step runs in one transaction together with its version number, so a kill
leaves the database at one version or the other, and running it again changes nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from pathlib import Path

import aiosqlite
from anyio import to_thread

from narrun_async.errors import StorageError
from narrun_async.stores.sqlite.connection import transaction

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
    "text_flags": "TEXT",  # '' or names of `TextFlag`, separated by commas; NULL: nobody has looked
    "incident_year": "INTEGER",  # NULL: the file did not say, or nobody read it when the file was loaded
    "same_text_as": "INTEGER",  # the first narrative of the source with this text, where that is another one
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
    "system_prompt_sha256": "TEXT",
    "user_template_sha256": "TEXT",
    "sweep_id": "TEXT REFERENCES sweeps(sweep_id)",
    "sweep_position": "INTEGER",
    "sweep_settings": "TEXT",
    # `response_format: auto`: what the endpoint was found to obey, and every later run asks for
    "answer_format": "TEXT",
    "skip_placeholders": "INTEGER",
    "ask_identical_once": "INTEGER",
    "placeholder_rules": "TEXT",
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
    "skip_reason": "TEXT",
    "copied_from": "INTEGER",  # narrative_id of the one that was asked
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
    # of a batch; NULL for a call that was answered at once
    "batch_id": "INTEGER REFERENCES batches(batch_id)",
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

# Every prompt once, however many experiments have it; the columns of `experiments` hold it, too, for R readers.
PROMPTS = {
    "sha256": "TEXT PRIMARY KEY",
    "prompt_text": "TEXT NOT NULL",
    "first_used_at": "TEXT",
}

# Experiments that were made together; each knows its sweep and its place in it.
SWEEPS = {
    "sweep_id": "TEXT PRIMARY KEY",
    "sweep_name": "TEXT NOT NULL UNIQUE",
    "definition_sha256": "TEXT NOT NULL",
    "sweep_file": "TEXT",
    "notes": "TEXT",
    "created_at": "TEXT",
}

# Narratives that were drawn for people to read. What they said is kept, import by import; the latest one counts.
REVIEWS = {
    "review_id": "INTEGER PRIMARY KEY AUTOINCREMENT",
    "experiment_id": "TEXT NOT NULL REFERENCES experiments(experiment_id)",
    "drawn_at": "TEXT NOT NULL",
    "seed": "INTEGER NOT NULL",
    "strata": "TEXT NOT NULL",
    "bands": "TEXT NOT NULL",
    "allocation": "TEXT NOT NULL",
    "n_population": "INTEGER NOT NULL",
    "n_drawn": "INTEGER NOT NULL",
    "narrun_version": "TEXT NOT NULL",
}
REVIEW_ITEMS = {
    "review_id": "INTEGER NOT NULL REFERENCES reviews(review_id)",
    "item_key": "TEXT NOT NULL",
    "narrative_id": "INTEGER NOT NULL",
    "stratum": "TEXT NOT NULL",
    "stratum_size": "INTEGER NOT NULL",
    "stratum_drawn": "INTEGER NOT NULL",
}
REVIEW_WORKBOOKS = {
    "workbook_id": "TEXT PRIMARY KEY",
    "review_id": "INTEGER NOT NULL REFERENCES reviews(review_id)",
    "reader": "TEXT NOT NULL",
    "role": "TEXT NOT NULL",
    "is_blinded": "INTEGER NOT NULL",
    "written_at": "TEXT NOT NULL",
    "path": "TEXT NOT NULL",
    "item_keys": "TEXT NOT NULL",
}
REVIEW_IMPORTS = {
    "import_id": "INTEGER PRIMARY KEY AUTOINCREMENT",
    "workbook_id": "TEXT NOT NULL REFERENCES review_workbooks(workbook_id)",
    "imported_at": "TEXT NOT NULL",
    "file_name": "TEXT NOT NULL",
    "file_sha256": "TEXT NOT NULL",
}
REVIEW_LABELS = {
    "import_id": "INTEGER NOT NULL REFERENCES review_imports(import_id)",
    "item_key": "TEXT NOT NULL",
    "label": "TEXT NOT NULL",
    "comment": "TEXT",
}
REVIEW_TABLES: Mapping[str, Mapping[str, str]] = {
    "reviews": REVIEWS,
    "review_items": REVIEW_ITEMS,
    "review_workbooks": REVIEW_WORKBOOKS,
    "review_imports": REVIEW_IMPORTS,
    "review_labels": REVIEW_LABELS,
}

# One row a file of requests that was, or is to be, handed to a provider. Times are UTC, ISO 8601.
BATCHES = {
    "batch_id": "INTEGER PRIMARY KEY AUTOINCREMENT",
    "experiment_id": "TEXT NOT NULL REFERENCES experiments(experiment_id)",
    "number": "INTEGER NOT NULL",
    "selection": "TEXT NOT NULL",
    "state": "TEXT NOT NULL",
    "input_path": "TEXT NOT NULL",
    "input_sha256": "TEXT NOT NULL",
    "endpoint": "TEXT NOT NULL",
    "n_requests": "INTEGER NOT NULL",
    "n_bytes": "INTEGER NOT NULL",
    "token": "TEXT NOT NULL",
    "n_resubmissions": "INTEGER NOT NULL DEFAULT 0",
    "exported_at": "TEXT NOT NULL",
    "intended_at": "TEXT",
    "api_url": "TEXT",
    "remote_file_id": "TEXT",
    "remote_batch_id": "TEXT",
    "remote_status": "TEXT",
    "remote_complaint": "TEXT",
    "output_file_id": "TEXT",
    "error_file_id": "TEXT",
    "n_completed": "INTEGER",
    "n_failed": "INTEGER",
    "polled_at": "TEXT",
    "closed_at": "TEXT",
    "closed_why": "TEXT",
    "keeps_files": "INTEGER NOT NULL DEFAULT 0",
}

# Which narratives are in a batch, and what they were then: rank, and whether an error row is to be replaced.
BATCH_ITEMS = {
    "batch_id": "INTEGER NOT NULL REFERENCES batches(batch_id)",
    "narrative_id": "INTEGER NOT NULL",
    "row_num": "INTEGER NOT NULL",
    "replaces_error": "INTEGER NOT NULL",
}

# One row a look at all texts of a data source; the latest one of it is in force.
SCREENINGS = {
    "screening_id": "INTEGER PRIMARY KEY AUTOINCREMENT",
    "data_checksum": "TEXT NOT NULL",
    "rules_name": "TEXT NOT NULL",
    "rules_sha256": "TEXT NOT NULL",
    "screened_at": "TEXT NOT NULL",
    "n_screened": "INTEGER NOT NULL",
    "n_placeholder": "INTEGER NOT NULL",
    "n_near_empty": "INTEGER NOT NULL",
    "n_truncated": "INTEGER NOT NULL",
    "n_identical": "INTEGER NOT NULL",
}

# One row a file that was loaded: what it held besides the narratives that are in the database.
INGESTS = {
    "ingest_id": "INTEGER PRIMARY KEY AUTOINCREMENT",
    "data_checksum": "TEXT NOT NULL",
    "ingested_at": "TEXT NOT NULL",
    "n_cases": "INTEGER NOT NULL",
    "n_blank": "INTEGER NOT NULL",
    "n_blank_ids": "INTEGER NOT NULL",
    "n_texts_repaired": "INTEGER NOT NULL",
    "n_duplicates": "INTEGER NOT NULL",
    "n_conflicts_dropped": "INTEGER NOT NULL",
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
    {
        *TABLES,
        *REVIEW_TABLES,
        *("servings", "canary_answers", "scrubs", "prompts", "sweeps", "batches", "batch_items", "screenings"),
        "ingests",
    }
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

#: of few rows each, or of none
SCREENING_INDEXES = (
    "CREATE INDEX IF NOT EXISTS source_narratives_flagged ON source_narratives(data_checksum) WHERE text_flags <> ''",
    "CREATE INDEX IF NOT EXISTS source_narratives_repeats ON source_narratives(data_checksum)"
    " WHERE same_text_as IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS narrative_results_skipped ON narrative_results(experiment_id)"
    " WHERE skip_reason IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS narrative_results_copied ON narrative_results(experiment_id)"
    " WHERE copied_from IS NOT NULL",
)

Migration = Callable[[aiosqlite.Connection, Path], Awaitable[None]]


async def _create_or_adopt(connection: aiosqlite.Connection, path: Path) -> None:
    await _create_tables(connection, TABLES)
    for table, columns in TABLES.items():
        await _add_missing_columns(connection, table, columns)
    for table, key in UNIQUE_KEYS.items():
        if not await _has_unique_index(connection, table, key):
            await connection.execute(f"CREATE UNIQUE INDEX {table}_key ON {table}({', '.join(key)})")
    for statement in INDEXES:
        await connection.execute(statement)
    await connection.execute(
        "UPDATE source_narratives SET text_sha256 = text_sha256(narrative_text) WHERE text_sha256 IS NULL"
    )


async def refuse_duplicates(connection: aiosqlite.Connection, path: Path) -> None:
    """To be called before anything is changed, the journal mode in the file's header included.

    :raises StorageError: a file of the predecessor holds several results of one narrative
    """
    if await schema_version(connection) or not await _column_names(connection, "narrative_results"):
        return
    async with connection.execute(
        "SELECT COUNT(*) FROM (SELECT 1 FROM narrative_results"
        " GROUP BY experiment_id, incident_id, narrative_type HAVING COUNT(*) > 1)"
    ) as cursor:
        row = await cursor.fetchone()
    if row and row[0]:
        raise StorageError(
            f"{row[0]} narratives have more than one result row, so no unique key can be put on narrative_results",
            path=path,
            advice="remove the extra rows from a copy of the file; nothing was changed",
        )


async def _add_scrubs(connection: aiosqlite.Connection, path: Path) -> None:
    await _create_tables(connection, {"scrubs": SCRUBS})


async def _add_servings_and_canaries(connection: aiosqlite.Connection, path: Path) -> None:
    await _create_tables(connection, {"servings": SERVINGS, "canary_answers": CANARY_ANSWERS})
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


async def _add_prompts_and_sweeps(connection: aiosqlite.Connection, path: Path) -> None:
    await _create_tables(connection, {"prompts": PROMPTS, "sweeps": SWEEPS})
    await _add_missing_columns(connection, "experiments", EXPERIMENTS)
    await connection.execute("CREATE INDEX IF NOT EXISTS experiments_sweep ON experiments(sweep_id)")
    for role in ("system_prompt", "user_template"):
        await connection.execute(f"UPDATE experiments SET {role}_sha256 = text_sha256({role})")
        await connection.execute(
            f"INSERT INTO prompts SELECT {role}_sha256, {role}, MIN(created_at) FROM experiments"
            f" WHERE {role} IS NOT NULL GROUP BY 1 ON CONFLICT (sha256) DO NOTHING"
        )


async def _add_reviews(connection: aiosqlite.Connection, path: Path) -> None:
    await _create_tables(connection, REVIEW_TABLES)
    for name, table, columns in (
        ("review_items_key", "review_items", "review_id, item_key"),
        ("review_items_narrative", "review_items", "review_id, narrative_id"),
        ("review_workbooks_reader", "review_workbooks", "review_id, reader"),
        ("review_labels_key", "review_labels", "import_id, item_key"),
    ):
        await connection.execute(f"CREATE UNIQUE INDEX IF NOT EXISTS {name} ON {table}({columns})")


async def _add_batches(connection: aiosqlite.Connection, path: Path) -> None:
    await _create_tables(connection, {"batches": BATCHES, "batch_items": BATCH_ITEMS})
    await connection.execute("CREATE UNIQUE INDEX IF NOT EXISTS batches_number ON batches(experiment_id, number)")
    await connection.execute("CREATE UNIQUE INDEX IF NOT EXISTS batch_items_key ON batch_items(batch_id, narrative_id)")
    await _add_missing_columns(connection, "attempts", ATTEMPTS)
    await connection.execute(
        "CREATE INDEX IF NOT EXISTS attempts_batch ON attempts(batch_id, narrative_id) WHERE batch_id IS NOT NULL"
    )


async def _add_answer_format(connection: aiosqlite.Connection, path: Path) -> None:
    await _add_missing_columns(connection, "experiments", {"answer_format": EXPERIMENTS["answer_format"]})


async def _add_screening(connection: aiosqlite.Connection, path: Path) -> None:
    """Only room for it: looking at a million texts takes 13 s and as much disk again, and most never need it."""
    for table in ("source_narratives", "experiments", "narrative_results"):
        await _add_missing_columns(connection, table, TABLES[table])
    await _create_tables(connection, {"screenings": SCREENINGS})
    for statement in SCREENING_INDEXES:
        await connection.execute(statement)


async def _add_ingests_and_years(connection: aiosqlite.Connection, path: Path) -> None:
    await _add_missing_columns(connection, "source_narratives", SOURCE_NARRATIVES)
    await _create_tables(connection, {"ingests": INGESTS})


async def _create_tables(connection: aiosqlite.Connection, tables: Mapping[str, Mapping[str, str]]) -> None:
    for table, columns in tables.items():
        body = ", ".join(f"{name} {declaration}" for name, declaration in columns.items())
        await connection.execute(f"CREATE TABLE IF NOT EXISTS {table} ({body})")


async def _add_missing_columns(connection: aiosqlite.Connection, table: str, columns: Mapping[str, str]) -> None:
    present = await _column_names(connection, table)
    for name, declaration in columns.items():
        if name not in present:
            await connection.execute(f"ALTER TABLE {table} ADD COLUMN {name} {declaration}")


#: step N brings a database from version N to N + 1
MIGRATIONS: tuple[Migration, ...] = (
    _create_or_adopt,
    _add_servings_and_canaries,
    _add_scrubs,
    _add_prompts_and_sweeps,
    _add_reviews,
    _add_batches,
    _add_answer_format,
    _add_screening,
    _add_ingests_and_years,
)
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


async def migrate(connection: aiosqlite.Connection, path: Path) -> Path | None:
    """Take the steps that are missing; backs an existing file up first. Safe to repeat.

    :returns: the backup, or None when none was needed
    :raises StorageError: the file is foreign or newer, or the backup cannot be made
    """
    has_tables = await refuse_foreign(connection, path)
    version = await schema_version(connection)
    if version == SCHEMA_VERSION:
        return None
    backup = await back_up(connection, path) if has_tables else None
    for number in range(version, SCHEMA_VERSION):
        async with transaction(connection):
            await MIGRATIONS[number](connection, path)
            await connection.execute(f"PRAGMA user_version = {number + 1}")
    return backup


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
