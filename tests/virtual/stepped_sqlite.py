"""A connection like aiosqlite's that works in the loop's own thread, so that the loop can stop between statements."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable
from pathlib import Path
from typing import Any


class SteppedConnection:
    """The part of `aiosqlite.Connection` that the store uses.

    :param pause: awaited before and after each statement
    """

    def __init__(self, path: Path, pause: Callable[[], Awaitable[None]], *, is_reader: bool) -> None:
        mode = "ro" if is_reader else "rw"
        self._db = sqlite3.connect(f"file:{path}?mode={mode}", uri=True, isolation_level=None, timeout=0)
        self._db.row_factory = sqlite3.Row
        self._pause = pause
        #: the disk takes nothing more: the next COMMIT that has something to store says so
        self.is_full = False
        if not is_reader:
            # A killed process loses nothing of what it wrote, synced or not.
            self._db.executescript("PRAGMA synchronous=OFF; PRAGMA foreign_keys=ON")

    def kill(self) -> None:
        """As the end of the process: what is not committed is gone."""
        self._db.close()

    @property
    def in_transaction(self) -> bool:
        return self._db.in_transaction

    def execute(self, statement: str, parameters: Any = ()) -> _Execution:
        return _Execution(self, lambda: self._conn.execute(statement, parameters))

    def executemany(self, statement: str, rows: Iterable[Any]) -> _Execution:
        return _Execution(self, lambda: self._db.executemany(statement, rows))

    @property
    def _conn(self) -> _Statements:
        return _Statements(self._db, is_full=self.is_full)

    async def _execute(self, act: Callable[..., Any], *arguments: Any) -> Any:
        """aiosqlite's way of doing several things in one turn of its thread; here, in one step of the loop."""
        await self._pause()
        result = act(*arguments)
        await self._pause()
        return result

    async def execute_fetchall(self, statement: str, parameters: Any = ()) -> list[Any]:
        async with self.execute(statement, parameters) as cursor:
            return await cursor.fetchall()

    async def close(self) -> None:
        await self._pause()
        self._db.close()


class _Statements:
    """The `sqlite3` connection itself, on a disk that may be full."""

    def __init__(self, db: sqlite3.Connection, *, is_full: bool) -> None:
        self._db = db
        self._is_full = is_full

    def execute(self, statement: str, parameters: Any = ()) -> sqlite3.Cursor:
        if statement == "COMMIT" and self._is_full:
            # A quota of no pages beyond those there are, asked for by SQLite's own means, would leave room in pages
            # that are half empty.
            self._db.execute("ROLLBACK")
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return self._db.execute(statement, parameters)

    def executemany(self, statement: str, rows: Iterable[Any]) -> sqlite3.Cursor:
        return self._db.executemany(statement, rows)

    @property
    def in_transaction(self) -> bool:
        return self._db.in_transaction


class _Execution:
    """What `execute` returns: awaited, or entered with `async with`."""

    def __init__(self, connection: SteppedConnection, act: Callable[[], sqlite3.Cursor]) -> None:
        self._connection = connection
        self._act = act

    async def _run(self) -> _Cursor:
        await self._connection._pause()
        cursor = _Cursor(self._act())
        await self._connection._pause()
        return cursor

    def __await__(self) -> Generator[Any, None, _Cursor]:
        return self._run().__await__()

    async def __aenter__(self) -> _Cursor:
        return await self._run()

    async def __aexit__(self, *error: object) -> None:
        return None


class _Cursor:
    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self._cursor = cursor
        self.lastrowid = cursor.lastrowid
        self.rowcount = cursor.rowcount

    async def fetchone(self) -> Any:
        return self._cursor.fetchone()

    async def fetchall(self) -> list[Any]:
        return self._cursor.fetchall()

    async def fetchmany(self, size: int) -> list[Any]:
        return self._cursor.fetchmany(size)

    async def __aiter__(self) -> AsyncIterator[Any]:
        for row in self._cursor:
            yield row
