"""The connections of one open database and the few ways of reading through them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import aiosqlite

from narrun_async.errors import StorageError
from narrun_async.logs import RUN_LOG
from narrun_async.stores.sqlite.connection import wrap_sqlite_errors

Parameters = Mapping[str, object]
#: SQLite keeps it at some 4 MB by itself
LONG_WAL_BYTES = 256 << 20


class Database:
    """One reader and, where the process owns the lock, one writer. The parts of the store build on it."""

    def __init__(self, path: Path, *, reader: aiosqlite.Connection, writer: aiosqlite.Connection | None = None) -> None:
        self.path = path
        self._reader = reader
        self._writer = writer
        self._identity = _identity_of(path)
        self._refusal: StorageError | None = None
        #: a -wal file longer than that is worth a warning; the next one is due when it has doubled
        self.next_wal_warning_bytes = LONG_WAL_BYTES

    @property
    def writer(self) -> aiosqlite.Connection:
        """:raises StorageError: the database was opened for reading, or its disk has failed"""
        if self._refusal is not None:
            raise self._refusal
        if self._writer is None:
            raise StorageError("opened for reading only", path=self.path)
        return self._writer

    def require_in_place(self) -> None:
        """SQLite goes on storing into a file that was deleted or replaced, without a word.

        :raises StorageError: that has happened
        """
        if _identity_of(self.path) != self._identity:
            raise StorageError(
                "the file was moved, deleted or replaced while the run worked on it",
                path=self.path,
                advice="put it back, then resume",
            )
        self._warn_of_a_long_wal()

    def _warn_of_a_long_wal(self) -> None:
        """SQLite cannot shorten its -wal file while somebody reads an old state of the database."""
        try:
            size = self.path.with_name(f"{self.path.name}-wal").stat().st_size
        except OSError:
            return
        if size > self.next_wal_warning_bytes:
            RUN_LOG.warning(
                "the -wal file beside the database has grown to %d MB: another program reads an old state of it and "
                "should be closed; the run goes on",
                size >> 20,
            )
            self.next_wal_warning_bytes = 2 * size

    @contextmanager
    def wrap_errors(self) -> Iterator[None]:
        """For statements that write.

        A disk that has failed to write or to sync is not asked again through this connection: what the kernel could
        not write it may forget, and a second sync that succeeds proves nothing. The next start reads what is there.
        """
        try:
            with wrap_sqlite_errors(self.path):
                yield
        except StorageError as error:
            if error.is_disk_failure:
                self._refusal = error
            raise

    async def fetch_all(self, statement: str, parameters: Parameters) -> Iterable[sqlite3.Row]:
        with wrap_sqlite_errors(self.path):
            return await self._reader.execute_fetchall(statement, parameters)

    async def fetch_one(self, statement: str, parameters: Parameters) -> sqlite3.Row | None:
        return next(iter(await self.fetch_all(statement, parameters)), None)

    async def fetch_exactly_one(self, statement: str, parameters: Parameters) -> sqlite3.Row:
        """For aggregates, which always have one row."""
        row = await self.fetch_one(statement, parameters)
        assert row is not None
        return row

    async def aclose(self) -> None:
        """Close both connections; an unclosed one would keep the interpreter from ending.

        Whoever closes last moves the -wal file into the database, if it may write. After a failure of the disk that is
        left to the next start, which has seen none.
        """
        connections = [one for one in (self._reader, self._writer) if one is not None]
        if self._refusal is not None:
            connections.reverse()
        async with AsyncExitStack() as closing:
            for connection in reversed(connections):
                closing.push_async_callback(connection.close)


def _identity_of(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
