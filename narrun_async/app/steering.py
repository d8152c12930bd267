"""`narrun set`, `pause` and `unpause`: change the run that works on a database right now."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from narrun_async.app.databases import reading
from narrun_async.control import LiveSettings, read_live_settings, write_live_settings
from narrun_async.control.live_settings import FILE_NAME as CONTROL_FILE
from narrun_async.errors import StorageError, UsageError
from narrun_async.progress.live_view import FILE_NAME as VIEW_FILE
from narrun_async.progress.live_view import LiveView, read_live_view
from narrun_async.stores import database_is_locked, find_holder


async def find_running(database: Path) -> tuple[Path, LiveView] | None:
    """The log directory of the run that works on a database, and what it shows; None when nothing runs."""
    if not database_is_locked(database):
        return None
    holder = find_holder(database)
    async with reading(database) as store:
        experiments = await store.list_experiments()
    for experiment in experiments:
        if experiment.log_dir is None:
            continue
        directory = Path(experiment.log_dir)
        view = read_live_view(directory / VIEW_FILE)
        if view is None or view.experiment_id != experiment.experiment_id:
            continue
        # A killed run leaves its view behind; the lock tells whose is true, where its note could be written.
        if view.pid == holder.pid if holder is not None else _is_alive(view.pid):
            return directory, view
    return None


async def set_concurrency(database: Path, concurrency: int | Literal["auto"]) -> str:
    """:raises UsageError: nothing runs on this database"""
    what = "find the number of calls by itself" if concurrency == "auto" else f"keep {concurrency} calls in flight"
    return await _change(database, lambda settings: replace(settings, concurrency=concurrency), what)


async def set_paused(database: Path, is_paused: bool) -> str:
    """:raises UsageError: nothing runs on this database"""
    what = "send nothing more until `narrun unpause`" if is_paused else "go on"
    return await _change(database, lambda settings: replace(settings, is_paused=is_paused), what)


async def _change(database: Path, change: Callable[[LiveSettings], LiveSettings], what: str) -> str:
    running = await find_running(database)
    if running is None:
        raise UsageError(f"{database}: no run is working on this database")
    directory, view = running
    path = directory / CONTROL_FILE
    found = read_live_settings(path)
    if found is None or found.pid != view.pid:
        found = LiveSettings(pid=view.pid, is_paused=view.limits.is_paused)
    try:
        write_live_settings(path, change(found))
    except OSError as error:
        raise StorageError(f"cannot be written: {error.strerror}", path=path) from error
    return f"asked process {view.pid} (experiment {view.experiment_id}) to {what}; it looks twice a second"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
