"""Owns how many files the process may have open: each call in flight is one, and the kernel allows only so many."""

from __future__ import annotations

import resource
from contextlib import suppress
from dataclasses import replace

from narrun_async.config.sections import MAX_CONCURRENCY
from narrun_async.errors import ConfigurationError
from narrun_async.limits import LimitSettings

#: what a run has open besides its calls: streams, event loop, lock, database, logs, and the files of a moment: a name
#: that is resolved, a connection that is being closed, a control file that is looked at
RESERVED_FILES = 26
#: a simulated endpoint has the other end of each connection in the same process
MOST_FILES_PER_CALL = 2
#: room for any number of calls that a person may ask for, now or while the run goes on
WANTED_FILES = RESERVED_FILES + MAX_CONCURRENCY * MOST_FILES_PER_CALL


def make_room_for_files() -> int:
    """Raise the soft limit on open files as far as the hard one allows.

    :returns: how many files the calls may have open between them
    :raises ConfigurationError: there is not even room for one call
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return WANTED_FILES - RESERVED_FILES
    raised = WANTED_FILES if hard == resource.RLIM_INFINITY else min(WANTED_FILES, hard)
    if raised > soft:
        with suppress(OSError, ValueError):  # a system may allow less than its hard limit says
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
    room = soft - RESERVED_FILES
    if room < MOST_FILES_PER_CALL:
        raise ConfigurationError(
            f"this process may have only {soft} files open at a time, and a run needs"
            f" {RESERVED_FILES + MOST_FILES_PER_CALL} at the least",
            advice="allow more, for example with `ulimit -n 1024`; nothing was started",
        )
    return room


def calls_in_room(n_files: int, *, is_simulated: bool) -> int:
    """How many calls may be in flight with so many open files."""
    return min(MAX_CONCURRENCY, n_files // (MOST_FILES_PER_CALL if is_simulated else 1))


def within_room(settings: LimitSettings, most_calls: int) -> LimitSettings:
    """The limits of an endpoint, no wider than the process has room for."""
    concurrency = None if settings.concurrency is None else min(settings.concurrency, most_calls)
    return replace(settings, concurrency=concurrency, max_concurrency=min(settings.max_concurrency, most_calls))


def cramped_words(settings: LimitSettings, most_calls: int) -> str | None:
    """What to tell a person who asked for more calls than there is room for."""
    if (settings.concurrency or settings.max_concurrency) <= most_calls:
        return None
    return (
        f"this process may have so few files open that at most {most_calls} calls go out at a time;"
        " `ulimit -n 1024` before the next start makes room"
    )
