"""Databases that outlive the processes of a virtual world: one in memory, and SQLite itself, stepped by the loop."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from narrun_async.ports import Store
from narrun_async.stores import SqliteStore, open_sqlite_writer
from virtual.memory_store import MemoryStore
from virtual.stepped_sqlite import SteppedConnection
from virtual.tables import Tables, add_functions, connect_copy

#: the slowest single step of a database, on a busy disk
_SLOWEST_S = 0.02
Pause = Callable[[], Awaitable[None]]


class VirtualDatabase(Protocol):
    """What a world needs of a database."""

    is_full: bool

    def open(self, rng: random.Random, *, quick: bool = False) -> AbstractAsyncContextManager[Store]:
        """For the life of one process; `quick`: without the pauses of a disk."""

    def reading(self) -> AbstractContextManager[sqlite3.Connection]:
        """What is committed, for SQL."""

    def results(self) -> list[dict[str, Any]]:
        """The result rows that are committed."""


def pausing(rng: random.Random, *, quick: bool) -> Pause:
    async def pause() -> None:
        await asyncio.sleep(0 if quick or rng.random() < 0.5 else rng.uniform(0, _SLOWEST_S))

    return pause


#: made once, because making it takes longer than all that is asked of it
_connect_copy = cache(connect_copy)


class MemoryDatabase:
    """Tables in memory."""

    def __init__(self, *, first_number: int = 1) -> None:
        self.is_full = False
        self.tables = Tables(first_number=first_number)

    @asynccontextmanager
    async def open(self, rng: random.Random, *, quick: bool = False) -> AsyncIterator[Store]:
        pause = pausing(rng, quick=quick)
        yield MemoryStore(self.tables, pause=pause, is_full=lambda: self.is_full and not quick)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        copy = _connect_copy()
        self.tables.load_into(copy)
        yield copy

    def results(self) -> list[dict[str, Any]]:
        return [*self.tables["narrative_results"].values()]


class SqliteDatabase:
    """The production store over a real file, by connections that work in the loop instead of in threads of their own.

    A crash closes them without a commit, as the end of a process does. Loss of power is not looked at here.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: list[SteppedConnection] = []
        self._is_full = False
        if not path.exists():
            asyncio.run(self._create())

    async def _create(self) -> None:
        await (await open_sqlite_writer(self.path)).aclose()

    def copied(self, path: Path) -> SqliteDatabase:
        """Another one with the same content, in place of what may be there; nobody has either open."""
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        shutil.copyfile(self.path, path)
        return SqliteDatabase(path)

    @property
    def is_full(self) -> bool:
        return self._is_full

    @is_full.setter
    def is_full(self, is_full: bool) -> None:
        self._is_full = is_full
        for connection in self._open:
            connection.is_full = is_full

    @asynccontextmanager
    async def open(self, rng: random.Random, *, quick: bool = False) -> AsyncIterator[Store]:
        for dead in self._open:
            dead.kill()
        pause = pausing(rng, quick=quick)
        reader, writer = (SteppedConnection(self.path, pause, is_reader=one) for one in (True, False))
        self._open = [reader, writer]
        writer.is_full = self._is_full and not quick
        store = SqliteStore(self.path, reader=reader, writer=writer)  # type: ignore[arg-type]  # it quacks
        yield store
        await store.aclose()
        self._open = []

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        for dead in self._open:
            dead.kill()
        with closing(sqlite3.connect(self.path)) as connection:
            add_functions(connection)
            yield connection

    def results(self) -> list[dict[str, Any]]:
        with self.reading() as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute("SELECT * FROM narrative_results")]
