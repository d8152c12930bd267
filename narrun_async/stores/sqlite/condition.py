"""What can be told about a database file without changing anything: its health, its version, and where it lies."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from narrun_async.errors import NarrunError, StorageError
from narrun_async.stores.locking import database_is_locked, describe_holder
from narrun_async.stores.mounts import file_system_of, is_network_type, read_mount_table
from narrun_async.stores.sqlite.connection import connect_reader, refuse_stump, wrap_sqlite_errors
from narrun_async.stores.sqlite.migrations import SCHEMA_VERSION, refuse_foreign, schema_version

#: beside the database, and as sensitive as it
SIDE_FILES = ("", "-wal", "-shm", "-journal", ".lock", ".lock.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseCondition:
    """Facts about one database file; whoever reads them decides what they mean."""

    path: Path
    exists: bool
    #: why it cannot be read, if it cannot
    problem: NarrunError | None = None
    size_bytes: int = 0
    #: lines of `integrity_check`; empty: it found nothing
    damage: tuple[str, ...] = ()
    #: None where the file holds no tables, or cannot be read
    schema_version: int | None = None
    known_schema_version: int = SCHEMA_VERSION
    #: the database and the files beside it that group or others may use → mode bits
    open_files: Mapping[Path, int]
    #: mode bits of the directory; None where there is none
    directory_mode: int | None
    #: whether this user may write to the file and its directory, or make them
    is_writable: bool
    #: `ext4`, `nfs4`, …; None where unknown
    file_system: str | None
    is_on_network: bool
    #: of the library in this process
    sqlite_version: tuple[int, ...] = sqlite3.sqlite_version_info
    #: who works on it right now
    holder: str | None
    #: None where it cannot be told
    free_bytes: int | None


async def examine_database(path: Path, *, mount_table: str | None = None) -> DatabaseCondition:
    """Look at a database. Nothing is written; SQLite itself may leave its empty side files, as at every reading.

    :param mount_table: instead of the kernel's
    """
    resolved = path.resolve()
    exists = path.is_file()
    problem, damage, version = await _look_inside(path) if exists else (None, (), None)
    directory = next(above for above in resolved.parents if above.is_dir())
    file_system = file_system_of(resolved, table=read_mount_table() if mount_table is None else mount_table)
    is_writable = os.access(directory, os.W_OK | os.X_OK) and (not exists or os.access(path, os.W_OK))
    if path.exists() and not exists:
        problem = StorageError("this is no file", path=path, advice="name a file with --db")
    return DatabaseCondition(
        path=path,
        exists=exists,
        problem=problem,
        size_bytes=path.stat().st_size if exists else 0,
        damage=damage,
        schema_version=version,
        open_files=_open_files(resolved),
        directory_mode=stat.S_IMODE(resolved.parent.stat().st_mode) if resolved.parent.is_dir() else None,
        is_writable=is_writable,
        file_system=file_system,
        is_on_network=file_system is not None and is_network_type(file_system),
        holder=_holder(resolved),
        free_bytes=_free_bytes(directory),
    )


async def _look_inside(path: Path) -> tuple[NarrunError | None, tuple[str, ...], int | None]:
    """What keeps it from being read, what is damaged, and the schema version."""
    try:
        refuse_stump(path)
        reader = await connect_reader(path)
        try:
            with wrap_sqlite_errors(path):
                async with reader.execute("PRAGMA integrity_check(5)") as cursor:
                    damage = tuple([str(row[0]) async for row in cursor if row[0] != "ok"])
                has_tables = await refuse_foreign(reader, path)
                return None, damage, await schema_version(reader) if has_tables else None
        finally:
            await reader.close()
    except NarrunError as error:
        return error, (), None


def _open_files(path: Path) -> dict[Path, int]:
    found = {}
    for suffix in SIDE_FILES:
        file = path.with_name(path.name + suffix)
        try:
            mode = stat.S_IMODE(file.stat().st_mode)
        except OSError:
            continue
        if mode & 0o077:
            found[file] = mode
    return found


def _holder(path: Path) -> str | None:
    if not database_is_locked(path):
        return None
    return describe_holder(path)


def _free_bytes(directory: Path) -> int | None:
    try:
        return shutil.disk_usage(directory).free
    except OSError:
        return None
