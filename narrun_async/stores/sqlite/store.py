"""The Store over one SQLite file: its parts put together, opened for reading or, under the lock, for writing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import aiosqlite

from narrun_async.errors import StorageError
from narrun_async.models import IdRow, Migrated, MigrationForecast
from narrun_async.stores.sqlite.batches import BatchesPart
from narrun_async.stores.sqlite.connection import (
    connect_reader,
    connect_writer,
    create_private_file,
    refuse_stump,
    wrap_sqlite_errors,
)
from narrun_async.stores.sqlite.experiments import ExperimentsPart
from narrun_async.stores.sqlite.inheritance import find_duplicates
from narrun_async.stores.sqlite.legacy import LegacyPart, list_rows_of_odd_ids
from narrun_async.stores.sqlite.migrations import (
    SCHEMA_VERSION,
    back_up,
    has_results,
    migrate,
    refuse_duplicates,
    refuse_foreign,
    schema_version,
)
from narrun_async.stores.sqlite.report_rows import ReportPart
from narrun_async.stores.sqlite.results import ResultsPart
from narrun_async.stores.sqlite.reviews import ReviewsPart
from narrun_async.stores.sqlite.scrubbing import ScrubbingPart
from narrun_async.stores.sqlite.sources import SourcesPart
from narrun_async.stores.sqlite.verification import VerificationPart


class SqliteStore(
    SourcesPart,
    ExperimentsPart,
    ResultsPart,
    BatchesPart,
    VerificationPart,
    ScrubbingPart,
    ReviewsPart,
    ReportPart,
    LegacyPart,
):
    """`ports.Store`."""

    #: what opening it for writing had to change
    migrated: Migrated = Migrated()

    async def back_up(self) -> Path:
        """A sound copy beside the database, as it is now.

        :raises StorageError: it cannot be made
        """
        with self.wrap_errors():
            return await back_up(self.writer, self.path)


async def open_sqlite_writer(path: Path, *, dedupe: bool = True) -> SqliteStore:
    """Open for reading and writing, bringing the schema up to date first. The caller holds the `DatabaseLock`.

    The file is examined through a connection that cannot write before one that can is opened.

    :param dedupe: where the predecessor left several results of one narrative, set all but one of them aside
    :raises StorageError: the file is damaged, foreign, newer, or cannot be written; it is left as it was
    """
    if not path.exists():
        await _create_database(path)
    reader = await connect_reader(path)
    try:
        with wrap_sqlite_errors(path):
            await _refuse_damage(reader, path)
            await refuse_foreign(reader, path)
            if not dedupe:
                await refuse_duplicates(reader, path)
        writer = await connect_writer(path)
        try:
            with wrap_sqlite_errors(path):
                migrated = await migrate(writer, path)
        except BaseException:
            await writer.close()
            raise
    except BaseException:
        await reader.close()
        raise
    store = SqliteStore(path, reader=reader, writer=writer)
    store.migrated = migrated
    return store


async def foresee_migration(path: Path, *, dedupe: bool) -> MigrationForecast:
    """What `open_sqlite_writer` would do to an existing file. Only reads.

    :raises StorageError: it would refuse
    """
    reader = await connect_reader(path)
    try:
        with wrap_sqlite_errors(path):
            await _refuse_damage(reader, path)
            await refuse_foreign(reader, path)
            if not dedupe:
                await refuse_duplicates(reader, path)
            version = await schema_version(reader)
            forecast = MigrationForecast(schema_version=version, known_schema_version=SCHEMA_VERSION)
            if not await has_results(reader):
                return forecast
            _, set_aside = (0, ()) if version else await find_duplicates(reader)
            rows = await list_rows_of_odd_ids(reader)
            return replace(forecast, set_aside=set_aside, rows_of_odd_ids=_one_a_key(rows) if set_aside else rows)
    finally:
        await reader.close()


def _one_a_key(rows: Sequence[IdRow]) -> list[IdRow]:
    """Rows without those that would be set aside as duplicates; which of them stays makes no difference to an id."""
    kept: dict[object, IdRow] = {}
    for row in rows:
        key = (row.is_narrative, row.experiment_id, *row.key)
        kept.setdefault(row.row_id if None in key and not row.is_narrative else key, row)
    return list(kept.values())


async def _create_database(path: Path) -> None:
    """Build the schema under another name and rename it, so that no kill leaves an empty database behind."""
    unfinished = path.with_name(path.name + ".new")
    create_private_file(unfinished)
    writer = await connect_writer(unfinished)
    try:
        with wrap_sqlite_errors(path):
            await migrate(writer, path)
    finally:
        await writer.close()
    unfinished.rename(path)


async def _refuse_damage(reader: aiosqlite.Connection, path: Path) -> None:
    """Before anything is written: SQLite inserts into a damaged file without a word.

    `quick_check` takes 0.6 s for 361 MB and `integrity_check` 0.9 s, but of 77 damaged files the former passed 24,
    whose indexes lacked rows: the planner does not see such a row, and it can be stored twice.
    """
    refuse_stump(path)
    async with reader.execute("PRAGMA integrity_check(1)") as cursor:
        row = await cursor.fetchone()
    if row is None or row[0] != "ok":
        raise StorageError(
            "the database is damaged, or its disk fails to read it",
            path=path,
            advice="check the disk; restore the file from a backup; nothing was written to it",
        )


async def open_sqlite_reader(path: Path) -> SqliteStore:
    """Open for reading only, beside whoever writes.

    :raises StorageError: the file is missing, damaged, foreign, or of another schema version
    """
    reader = await connect_reader(path)
    try:
        with wrap_sqlite_errors(path):
            has_tables = await refuse_foreign(reader, path)
            version = await schema_version(reader)
        if not has_tables:
            raise StorageError("this database is empty", path=path, advice="`narrun run` or `narrun ingest` fills it")
        if version < SCHEMA_VERSION:
            raise StorageError(
                f"has an older schema ({version} of {SCHEMA_VERSION})", path=path, advice="run `narrun migrate` on it"
            )
        return SqliteStore(path, reader=reader)
    except BaseException:
        await reader.close()
        raise
