"""Databases behind the Store ports, and the lock that guards them."""

from narrun_async.stores.locking import DatabaseLock, database_is_locked, find_holder
from narrun_async.stores.mounts import refuse_network_file_system
from narrun_async.stores.sqlite.store import (
    SqliteStore,
    foresee_migration,
    open_sqlite_reader,
    open_sqlite_writer,
)

__all__ = [
    "DatabaseLock",
    "SqliteStore",
    "database_is_locked",
    "find_holder",
    "foresee_migration",
    "open_sqlite_reader",
    "open_sqlite_writer",
    "refuse_network_file_system",
]
