"""Tells a disk that has no room left from one that is broken, where SQLite calls both a failed write."""

from __future__ import annotations

import errno
import os
import resource
import tempfile
from contextlib import suppress
from pathlib import Path

_PAGE_BYTES = 4096
#: what is tried to be written, page by page as SQLite does: a batch of rows
_PROBE_BYTES = 64 * _PAGE_BYTES
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def is_out_of_room(path: Path) -> bool:
    """Whether the quota of the user or the file size limit of the process keeps a database from growing.

    SQLite tells a full file system by itself, and these two not. Writes a little beside the database and removes it.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit != resource.RLIM_INFINITY:
        for suffix in ("", "-wal", "-journal"):
            with suppress(OSError):
                if path.with_name(path.name + suffix).stat().st_size + _PROBE_BYTES > limit:
                    return True
    try:
        with tempfile.TemporaryFile(dir=path.parent) as file:
            for offset in range(0, _PROBE_BYTES, _PAGE_BYTES):
                os.pwrite(file.fileno(), bytes(_PAGE_BYTES), offset)
    except OSError as error:
        return error.errno in _NO_ROOM
    return False
