"""The numbered steps that bring a database to the schema of today (`PRAGMA user_version`).

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
from narrun_async.stores.sqlite.schema import (
    ATTEMPTS,
    BATCH_ITEMS,
    BATCHES,
    CANARY_ANSWERS,
    EXPERIMENTS,
    INDEXES,
    INGESTS,
    PROMPTS,
    REVIEW_TABLES,
    SCREENING_INDEXES,
    SCREENINGS,
    SCRUBS,
    SERVINGS,
    SOURCE_NARRATIVES,
    SWEEPS,
    TABLES,
    UNIQUE_KEYS,
)

Migration = Callable[[aiosqlite.Connection, Path], Awaitable[None]]


async def _create_or_adopt(connection: aiosqlite.Connection, path: Path) -> None:
    await _create_tables(connection, TABLES)
    for table, columns in TABLES.items():
        await _add_missing_columns(connection, table, columns)
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


async def _identify_sources(connection: aiosqlite.Connection, path: Path) -> None:
    await identify_sources(connection)


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
    _identify_sources,
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
    return Migrated(
        backup=backup,
        set_aside=() if version else await list_reports(connection),
        open_to_others=path if backup is not None and path.stat().st_mode & 0o077 else None,
    )


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
