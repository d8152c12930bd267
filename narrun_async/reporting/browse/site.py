"""Makes the web pages: datasette over a copy that is in memory, without plugins, and silent about what it meets."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeVar

from anyio import to_thread
from datasette.app import Datasette
from datasette.database import Database
from datasette.plugins import DEFAULT_PLUGINS, pm

from narrun_async.reporting.browse import plugin as our_plugin
from narrun_async.reporting.browse.guard import Application
from narrun_async.reporting.browse.metadata import DATABASE, SITE_SETTINGS, Shown, site_metadata

T = TypeVar("T")


class Copy(Protocol):
    """The tables that are shown."""

    def freshen(self) -> None:
        """Make it as new as the database; what `read` reads from then on. Blocks."""

    def read(self, use: Callable[[sqlite3.Connection], T]) -> T:
        """Use the connection, one caller after the other. Blocks."""


def make_site(copy: Copy, shown: Shown) -> Application:
    """The pages as an application of ASGI; `copy` has been freshened."""
    _keep_out_plugins()
    site = Datasette(metadata=site_metadata(shown), settings=dict(SITE_SETTINGS))
    for name in [*site.databases]:
        if name != "_internal":  # what datasette makes for itself, and shows to nobody
            site.remove_database(name)
    site.add_database(_CopiedDatabase(site, copy), name=DATABASE)
    return site.app()  # type: ignore[no-any-return]  # datasette has no types


class _CopiedDatabase(Database):  # type: ignore[misc]  # datasette has no types
    """Reads the copy, and logs nothing: what somebody searches for may be words of a narrative."""

    def __init__(self, site: Datasette, copy: Copy) -> None:
        super().__init__(site, is_memory=True)
        self._copy = copy

    async def execute_fn(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        return await to_thread.run_sync(partial(self._copy.read, partial(_use, fn)))

    async def execute(self, *arguments: Any, **options: Any) -> Any:
        return await super().execute(*arguments, **options | {"log_sql_errors": False})


def _use(fn: Callable[[sqlite3.Connection], T], connection: sqlite3.Connection) -> T:
    connection.row_factory = sqlite3.Row
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")  # a legacy row may hold anything
    return fn(connection)


def _keep_out_plugins() -> None:
    """Of whatever is installed beside datasette, nothing sees the rows. Safe to repeat."""
    wanted = {*DEFAULT_PLUGINS, our_plugin.__name__} - {"datasette.handle_exception"}
    for name, plugin in pm.list_name_plugin():
        if plugin is not None and name not in wanted:
            pm.unregister(plugin)
    if not pm.has_plugin(our_plugin.__name__):
        pm.register(our_plugin, our_plugin.__name__)
