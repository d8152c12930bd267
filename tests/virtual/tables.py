"""Owns what an in-memory database holds: tables that only a commit changes, and the draft of one transaction.

Rows are never changed in place, so what a reader got stays what it was. A draft that is never applied is what a crash
loses: nothing of it has touched the tables.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from enum import Enum
from hashlib import sha256
from typing import Any

from narrun_async.stores.sqlite.schema import (
    BATCH_ITEMS,
    BATCHES,
    CANARY_ANSWERS,
    LEGACY_REPORTS,
    OF_LEGACY_RESULTS,
    SCREENINGS,
    SCRUBS,
    SERVINGS,
    TABLES,
)

Row = dict[str, Any]

#: parents first
COLUMNS = {
    **TABLES,
    "servings": SERVINGS,
    "canary_answers": CANARY_ANSWERS,
    "scrubs": SCRUBS,
    "screenings": SCREENINGS,
    "batches": BATCHES,
    "batch_items": BATCH_ITEMS,
    "legacy_reports": LEGACY_REPORTS,
    "legacy_results": {**dict.fromkeys(TABLES["narrative_results"], ""), **OF_LEGACY_RESULTS},
}
_TABLES = tuple(COLUMNS)
#: what is kept beside the tables so that nothing has to be counted again: narrative by key, narratives of a source,
#: failed calls of a narrative, the screening in force of a source, the latest number of each table
_INDEXES = ("narrative_ids", "sources", "failed_calls", "latest_screenings", "sequences")


class Tables:
    """What is committed. It outlives the process that works on it.

    :param first_number: where run, narrative, result and attempt numbers begin
    """

    def __init__(self, *, first_number: int = 1) -> None:
        self._held: dict[str, dict[Any, Any]] = {name: {} for name in (*_TABLES, *_INDEXES)}
        self._first_number = first_number
        #: which opening of the database may write; an earlier one belongs to a dead process
        self.epoch = 0
        self.n_commits = 0

    def __getitem__(self, name: str) -> Mapping[Any, Any]:
        return self._held[name]

    def draft(self) -> Draft:
        return Draft(self)

    def apply(self, draft: Draft) -> None:
        """All of a draft at once."""
        for name, changes in draft.changes.items():
            self._held[name].update(changes)
        self.n_commits += 1

    def last_number(self, name: str) -> int:
        return self._held["sequences"].get(name, self._first_number - 1)

    def load_into(self, copy: sqlite3.Connection) -> None:
        """All of it, in place of what a connection of `connect_copy` holds."""
        for name in reversed(_TABLES):
            copy.execute(f"DELETE FROM {name}")
        for name in _TABLES:
            places = ", ".join(f":{one}" for one in COLUMNS[name])
            copy.executemany(f"INSERT INTO {name} VALUES ({places})", [*self._held[name].values()])


def connect_copy() -> sqlite3.Connection:
    """A SQLite database in memory with the tables, for the queries of `narrun verify`.

    It has their unique keys no more than it has rules: what breaks a promise is to be found by those queries.
    """
    copy = sqlite3.connect(":memory:", isolation_level=None, cached_statements=200)
    for name in _TABLES:
        copy.execute(f"CREATE TABLE {name} ({', '.join(f'{one} {kind}' for one, kind in COLUMNS[name].items())})")
    add_functions(copy)
    return copy


def add_functions(connection: sqlite3.Connection) -> None:
    """What the queries of `narrun verify` call; prepared statements are prepared anew after it."""
    connection.create_function("sha256_hex", 1, lambda held: None if held is None else sha256(held).hexdigest())


def _plain(value: Any) -> Any:
    """As it would come back from a database."""
    return value.value if isinstance(value, Enum) else int(value) if isinstance(value, bool) else value


class Draft:
    """What one transaction wants changed; sees its own changes."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self.changes: dict[str, dict[Any, Any]] = {}

    def get(self, name: str, key: Any, default: Any = None) -> Any:
        changed = self.changes.get(name, {})
        return changed[key] if key in changed else self._tables[name].get(key, default)

    def put(self, name: str, key: Any, value: Any) -> None:
        self.changes.setdefault(name, {})[key] = value

    def next_number(self, name: str) -> int:
        number: int = self.get("sequences", name, self._tables.last_number(name)) + 1
        self.put("sequences", name, number)
        return number

    def fill(self, name: str, key: Any, values: Mapping[str, Any]) -> Row:
        """A new row with every column of its table."""
        row = {column: _plain(values.get(column)) for column in COLUMNS[name]}
        self.put(name, key, row)
        return row

    def update(self, name: str, key: Any, **values: Any) -> None:
        row = self.get(name, key)
        if row is not None:
            self.put(name, key, row | values)
