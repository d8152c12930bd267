"""Decides from a zip archive's directory whether a workbook is safe to open, before any XML is parsed."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Callable
from typing import TypeVar

from defusedxml.common import DefusedXmlException

from narrun_async.errors import BadInputError
from narrun_async.sources.files import FileBytes

_T = TypeVar("_T")

MAX_ENTRIES = 1_000
MAX_UNPACKED_BYTES = 1 << 30
MAX_SHEET_BYTES = 512 << 20
MAX_RATIO = 200
#: small parts of honest workbooks compress further than any limit that would stop a bomb
RATIO_COUNTS_FROM_BYTES = 1 << 20

_WORKBOOK_PARTS = ("xl/workbook.xml", "xl/workbook.bin")
_STRICT_NAMESPACE = b"http://purl.oclc.org/ooxml/"
_ENCRYPTED_FLAG = 0x1


def check_archive(file: FileBytes) -> zipfile.ZipFile:
    """Open the archive of a workbook.

    The sizes in the directory bind: `zipfile` reads no more of a part than is declared there.

    :raises BadInputError: it is cut short, no workbook, or would unpack to more than is reasonable
    """
    where = str(file.path)
    archive = guarded(where, lambda: zipfile.ZipFile(io.BytesIO(file.content)))
    _refuse_bombs(file, archive)
    guarded(where, lambda: _refuse_other_formats(file, archive))
    return archive


def guarded(where: str, act: Callable[[], _T]) -> _T:
    """Run one step over the bytes of a workbook.

    Warnings of openpyxl are about looks and are dropped; its exceptions, and those below it, may quote a cell.

    :raises BadInputError: the step failed, in whatever way
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return act()
    except (BadInputError, MemoryError):
        raise
    except Exception as exc:  # zlib, zipfile, expat and openpyxl raise whatever the damage leads to
        if _is_refused_xml(exc):
            raise declares_entities(where) from None
        raise BadInputError(
            f"{where}: is damaged or cut short, or is not what Excel would write ({type(exc).__name__})",
            advice="open it in Excel and save it again as Excel Workbook (.xlsx)",
        ) from None


def declares_entities(where: str) -> BadInputError:
    """The refusal of XML that could unpack itself or name files outside."""
    return BadInputError(
        f"{where}: its XML declares entities, which Excel never writes",
        advice="open the workbook in Excel and save it again",
    )


def _is_refused_xml(error: BaseException | None) -> bool:
    """Whether defusedxml refused; openpyxl puts an error of its own around some of its refusals."""
    while error is not None and not isinstance(error, DefusedXmlException):
        error = error.__cause__ or error.__context__
    return error is not None


def _refuse_bombs(file: FileBytes, archive: zipfile.ZipFile) -> None:
    parts = archive.infolist()
    if len(parts) > MAX_ENTRIES:
        raise _unsafe(file, f"it has {len(parts):,} parts, more than {MAX_ENTRIES:,}")
    unpacked = sum(part.file_size for part in parts)
    if unpacked > MAX_UNPACKED_BYTES:
        raise _unsafe(file, f"it unpacks to {unpacked / 2**20:,.0f} MiB, more than {MAX_UNPACKED_BYTES >> 20:,}")
    for part in parts:
        if part.filename.startswith("xl/worksheets/") and part.file_size > MAX_SHEET_BYTES:
            raise _unsafe(file, f"a sheet unpacks to more than {MAX_SHEET_BYTES >> 20} MiB")
        if part.file_size > RATIO_COUNTS_FROM_BYTES and part.file_size > MAX_RATIO * part.compress_size:
            raise _unsafe(file, f"a part unpacks to more than {MAX_RATIO} times its size")


def _refuse_other_formats(file: FileBytes, archive: zipfile.ZipFile) -> None:
    names = set(archive.namelist())
    if any(part.flag_bits & _ENCRYPTED_FLAG for part in archive.infolist()):
        raise BadInputError(f"{file.path}: is an encrypted archive", advice="save it without a password")
    if _WORKBOOK_PARTS[1] in names:
        raise BadInputError(f"{file.path}: is a binary workbook (.xlsb)", advice="save it as Excel Workbook (.xlsx)")
    if "[Content_Types].xml" not in names:
        raise BadInputError(f"{file.path}: is a zip archive but no Excel workbook", advice="give the .xlsx file itself")
    if _WORKBOOK_PARTS[0] in names:
        with archive.open(_WORKBOOK_PARTS[0]) as stream:
            is_strict = _STRICT_NAMESPACE in stream.read(4096)
        if is_strict:
            raise BadInputError(
                f"{file.path}: is a Strict Open XML workbook", advice="save it as plain Excel Workbook (.xlsx)"
            )


def _unsafe(file: FileBytes, reason: str) -> BadInputError:
    return BadInputError(f"{file.path}: is not opened: {reason}", advice="save only the sheet with the cases as .xlsx")
