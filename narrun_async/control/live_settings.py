"""Owns the small file by which a person changes a run that is going: no port is opened, no second writer is needed.

`narrun set`, `pause` and `unpause` write it, the run looks at it twice a second. It is addressed to one process by its
id; a file for another process is not obeyed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import anyio

from narrun_async.config.sections import MAX_CONCURRENCY
from narrun_async.logs import replace_private_file

#: a person does not notice half a second, and a look takes 10 µs
LOOK_EVERY_S = 0.5
#: name of the file in the experiment's log directory
FILE_NAME = "control.json"
_LARGEST_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSettings:
    """What a person wants of one running process."""

    #: the process it is meant for
    pid: int
    #: calls in flight; None: as the run was started
    concurrency: int | Literal["auto"] | None = None
    is_paused: bool = False


def write_live_settings(path: Path, settings: LiveSettings) -> None:
    """Replace the file as a whole, readable by its owner only.

    :raises OSError: it cannot be written
    """
    replace_private_file(path, json.dumps(asdict(settings)))


def read_live_settings(path: Path) -> LiveSettings | None:
    """The settings, or None when there are none or they make no sense; a person may have edited the file."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_LARGEST_BYTES))
        settings = LiveSettings(**found)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    is_number = type(settings.concurrency) is int and 1 <= settings.concurrency <= MAX_CONCURRENCY
    if not (is_number or settings.concurrency in (None, "auto")):
        return None
    return settings if type(settings.pid) is int and type(settings.is_paused) is bool else None


async def follow_live_settings(
    path: Path,
    obey: Callable[[LiveSettings], None],
    *,
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
) -> None:
    """Hand every change of the file to `obey`, until cancelled. The file is removed before and after."""
    _remove(path)
    seen: tuple[int, int] | None = None
    try:
        while True:
            await sleep(LOOK_EVERY_S)
            try:
                found = path.stat()
            except OSError:
                continue
            version = (found.st_ino, found.st_mtime_ns)
            if version == seen:
                continue
            seen = version
            settings = read_live_settings(path)
            if settings is not None and settings.pid == os.getpid():
                obey(settings)
    finally:
        _remove(path)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)
