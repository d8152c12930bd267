"""The connections of one open database and the few ways of reading through them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import aiosqlite

from narrun_async.errors import StorageError
from narrun_async.stores.sqlite.connection import wrap_sqlite_errors

Parameters = Mapping[str, object]


class Database:
    """One reader and, where the process owns the lock, one writer. The parts of the store build on it."""

    def __init__(self, path: Path, *, reader: aiosqlite.Connection, writer: aiosqlite.Connection | None = None) -> None:
        self.path = path
        self._reader = reader
        self._writer = writer
        self._identity = _identity_of(path)

    @property
    def writer(self) -> aiosqlite.Connection:
        """:raises StorageError: the database was opened for reading"""
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

    def wrap_errors(self) -> AbstractContextManager[None]:
        return wrap_sqlite_errors(self.path)

    async def fetch_all(self, statement: str, parameters: Parameters) -> Iterable[sqlite3.Row]:
        with self.wrap_errors():
            return await self._reader.execute_fetchall(statement, parameters)

    async def fetch_one(self, statement: str, parameters: Parameters) -> sqlite3.Row | None:
        return next(iter(await self.fetch_all(statement, parameters)), None)

    async def fetch_exactly_one(self, statement: str, parameters: Parameters) -> sqlite3.Row:
        """For aggregates, which always have one row."""
        row = await self.fetch_one(statement, parameters)
        assert row is not None
        return row

    async def aclose(self) -> None:
        """Close both connections; an unclosed one would keep the interpreter from ending."""
        try:
            await self._reader.close()
        finally:
            if self._writer is not None:
                await self._writer.close()


def _identity_of(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
