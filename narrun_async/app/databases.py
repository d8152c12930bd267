"""Opens the database for reading, or for writing under its lock, and the files that are read into it."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from narrun_async.config import DataSection
from narrun_async.errors import StorageError
from narrun_async.logs import make_private_directory
from narrun_async.operations.ingesting import SourceFile
from narrun_async.reporting.legacy_lines import migrated_lines
from narrun_async.sources import file_checksum, file_md5, open_source
from narrun_async.sources.screening_rules import load_rules
from narrun_async.stores import (
    DatabaseLock,
    SqliteStore,
    open_sqlite_reader,
    open_sqlite_writer,
    refuse_network_file_system,
)


def checked_database(path: Path) -> Path:
    """The path, if a database can be there.

    :raises StorageError: it is a directory or a device, may not be looked at, or has a name that SQLite does not take
    """
    try:
        str(path).encode()
        is_file = stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return path
    except UnicodeEncodeError:
        raise StorageError("its name is not UTF-8", path=path, advice="name another file with --db") from None
    except OSError as error:
        raise StorageError(f"cannot be looked at: {error.strerror}", path=path, advice="check the path") from error
    if not is_file:
        raise StorageError("this is not a regular file", path=path, advice="name a file with --db")
    return path


def require_database(path: Path) -> None:
    """:raises StorageError: nothing is there"""
    if not path.exists():
        raise StorageError("there is no database here", path=path, advice="name one with --db")


@asynccontextmanager
async def writing(
    path: Path, *, purpose: str, tell: Callable[[str], None], dedupe: bool = True, creates: bool = False
) -> AsyncIterator[tuple[SqliteStore, DatabaseLock]]:
    """The database, ours alone until the end.

    :param tell: one line for a person, of what bringing the file up to date has changed
    :param creates: make one where there is none; elsewhere a slip in its name would leave an empty one behind
    :param dedupe: set older results of the same narrative aside where the predecessor left several, instead of refusing
    :raises LockHeldError: another process works on it
    :raises StorageError: it cannot be used; it is left as it was
    """
    if not creates:
        require_database(path)
    try:
        make_private_directory(path.parent)
    except OSError as error:
        raise StorageError(f"cannot make its directory: {error.strerror}", path=path) from error
    refuse_network_file_system(path)
    with DatabaseLock(path, purpose=purpose) as lock:
        store = await open_sqlite_writer(path, dedupe=dedupe)
        try:
            for line in migrated_lines(store.migrated):
                tell(line)
            yield store, lock
        finally:
            await store.aclose()


@asynccontextmanager
async def reading(path: Path) -> AsyncIterator[SqliteStore]:
    """The database beside whoever writes.

    :raises StorageError: it is missing or cannot be read
    """
    store = await open_sqlite_reader(path)
    try:
        yield store
    finally:
        await store.aclose()


def source_file(data: DataSection) -> SourceFile:
    """The file that a configuration names, not opened yet."""
    path = Path(data.file)
    rules_file = None if data.placeholder_rules is None else Path(data.placeholder_rules)
    return SourceFile(
        path=path,
        checksums=lambda: (file_checksum(path), file_md5(path)),
        open=lambda: open_source(path, sheet=data.sheet, skip_blank_ids=data.skip_blank_ids),
        rules=lambda: load_rules(rules_file),
        rules_file=rules_file,
        on_conflict=data.on_conflict,
    )
