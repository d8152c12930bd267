"""Owns the bytes of a source file: read once, hashed, and told apart by what they begin with."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from io import BufferedReader
from pathlib import Path

from narrun_async.errors import BadInputError

#: a file is held in memory while it is read
MAX_FILE_BYTES = 1 << 30

_ZIP_MAGIC = b"PK"
_OLE_MAGIC = b"\xd0\xcf\x11\xe0"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_WORKBOOK_SUFFIXES = frozenset({".xlsx", ".xlsm", ".xltx", ".xltm", ".xls", ".xlsb"})
_CSV_SUFFIXES = frozenset({".csv", ".txt", ""})


class FileKind(StrEnum):
    """What a source file is, whatever it is called."""

    WORKBOOK = "workbook"
    CSV = "csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileBytes:
    """A file as it was at one moment."""

    #: the path as it was given
    path: Path
    content: bytes = field(repr=False)
    #: SHA-256 hex of `content`
    checksum: str


def read_file(path: Path) -> FileBytes:
    """Read a whole file, once.

    :raises BadInputError: it is missing, unreadable, empty, too large, or changed while it was read
    """
    with _open_regular(path) as stream:
        before = os.fstat(stream.fileno())
        if before.st_size > MAX_FILE_BYTES:
            raise BadInputError(
                f"{path}: is {before.st_size / 2**30:.1f} GiB, more than the 1 GiB that is read",
                advice="split it into files of different cases",
            )
        content = stream.read()
        after = os.fstat(stream.fileno())
    unchanged = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    if not unchanged or len(content) != after.st_size:
        raise BadInputError(f"{path}: changed while it was read", advice="close it in other programs and try again")
    if not content:
        raise BadInputError(f"{path}: is empty (0 bytes)", advice="save or copy it again")
    return FileBytes(path=path, content=content, checksum=hashlib.sha256(content).hexdigest())


def file_checksum(path: Path) -> str:
    """SHA-256 hex of a file's bytes, read in pieces and not looked into.

    :raises BadInputError: it is missing or unreadable
    """
    with _open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def file_md5(path: Path) -> str:
    """MD5 hex of a file's bytes: what the predecessor stored as `data_checksum`.

    :raises BadInputError: it is missing or unreadable
    """
    with _open_regular(path) as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def sniff_kind(file: FileBytes) -> FileKind:
    """Tell a workbook from a table by its first bytes, and only then by its name.

    :raises BadInputError: it is neither, or an old or encrypted workbook
    """
    path, head = file.path, file.content[:4096]
    if head.startswith(_OLE_MAGIC):
        raise BadInputError(
            f"{path}: is encrypted or an old .xls workbook",
            advice="open it in Excel, remove the password, and save it as Excel Workbook (.xlsx)",
        )
    if head.startswith(_ZIP_MAGIC):
        return FileKind.WORKBOOK
    if head.startswith(_UTF16_MARKS):
        raise BadInputError(f"{path}: is UTF-16 text", advice="save it as CSV UTF-8")
    suffix = path.suffix.lower()
    if b"\0" in head:
        raise BadInputError(f"{path}: is neither a workbook nor a CSV table", advice="give an .xlsx or .csv file")
    if suffix in _WORKBOOK_SUFFIXES:
        raise BadInputError(
            f"{path}: is named {suffix} but is no workbook; it looks like CSV text",
            advice="rename it to .csv, or save it from Excel as Excel Workbook (.xlsx)",
        )
    if suffix not in _CSV_SUFFIXES:
        raise BadInputError(f"{path}: {suffix} files are not read", advice="give an .xlsx or .csv file")
    return FileKind.CSV


@contextmanager
def _open_regular(path: Path) -> Iterator[BufferedReader]:
    """Open a regular file; any refusal of the operating system becomes one sentence."""
    try:
        # A named pipe would make open() wait for a writer.
        if not stat.S_ISREG(path.stat().st_mode):
            raise BadInputError(f"{path}: is not a regular file", advice="give an .xlsx or .csv file")
        with path.open("rb") as stream:
            yield stream
    except FileNotFoundError as exc:
        raise BadInputError(f"{path}: there is no such file", advice="check the path") from exc
    except OSError as exc:
        raise BadInputError(f"{path}: cannot be read ({exc.strerror})", advice="check its permissions") from exc
