"""Writes results as a file of Stata 14 and later (format 118, www.stata.com/help.cgi?dta), part by part.

Ours, because the libraries that write this format hold every long text three times: 42,000 rows with 147 MB of texts
took 604 MB, here they take 160. Texts are of any length, values of flags have labels.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import polars as pl

from narrun_async.codebook import Column, Kind
from narrun_async.reporting.exports.files import Remark
from narrun_async.reporting.exports.narrowing import Limits, Narrowing, cut
from narrun_async.reporting.exports.spool import Spool

#: title: 80 characters there, of up to four bytes; -127 to 100 is what a `byte` holds beside its missing values
_LIMITS = Limits(text_bytes=None, title_bytes=80, numbers=(0.0, 8.98e307), flag_type=pl.Int8, flags=range(-127, 101))

# numbers of the types; 1 to 2045 are texts of that width
_STRL, _DOUBLE, _BYTE = 32768, 65526, 65530
_WIDEST_TEXT_BYTES = 2045
_MISSING_BYTE = 101
_MISSING_DOUBLE = float.fromhex("0x1p1023")
#: places of the file that its map tells, in this order
_PLACES = (
    *("stata_dta", "map", "variable_types", "varnames", "sortlist", "formats", "value_label_names"),
    *("variable_labels", "characteristics", "data", "strls", "value_labels", "/stata_dta", "end"),
)
_NAME_BYTES, _FORMAT_BYTES, _LABEL_BYTES = 129, 57, 321


@dataclass(frozen=True, slots=True, kw_only=True)
class _Variable:
    """A column as the file holds it."""

    column: Column
    type_number: int

    @property
    def code(self) -> str:
        """As `struct` packs it."""
        match self.type_number:
            case n if n <= _WIDEST_TEXT_BYTES:
                return f"{n}s"
            case n if n == _BYTE:
                return "b"
            case n if n == _DOUBLE:
                return "d"
            case _:
                return "Q"

    @property
    def display(self) -> str:
        """How Stata shows it."""
        match self.column.kind:
            case Kind.FLAG:
                return "%8.0g"
            case Kind.WHOLE:
                return "%12.0f"
            case Kind.NUMBER:
                return "%10.0g"
            case _:
                return "%9s" if self.type_number == _STRL else f"%{min(self.type_number, 244)}s"


def write_dta(spool: Spool, path: Path, *, title: str) -> Sequence[Remark]:
    """All rows into one file.

    :param title: shown by Stata, cut to what the format holds
    :raises OSError: the disk refuses
    """
    narrowing = Narrowing(spool, _LIMITS)
    variables = [_Variable(column=column, type_number=_type_number(column, spool)) for column in spool.columns]
    texts_path = path.with_name(f"{path.name}.strls")
    with path.open("wb") as file, texts_path.open("w+b") as long_texts:
        _File(file, long_texts, variables).write(narrowing.iter_frames(), n_rows=spool.n_rows, title=title)
    texts_path.unlink()
    return narrowing.remarks("dta")


class _File:
    """The sections of one file, in their order; the map at its beginning is filled in at the end."""

    def __init__(self, file: BinaryIO, long_texts: BinaryIO, variables: Sequence[_Variable]) -> None:
        self._file = file
        #: what belongs into the section `strls`, which comes after all rows
        self._long_texts = long_texts
        self._variables = variables
        self._places: list[int] = []
        self._row = struct.Struct("<" + "".join(variable.code for variable in variables))
        self._has_labels = [bool(variable.type_number == _BYTE and variable.column.values) for variable in variables]

    def write(self, frames: Iterator[pl.DataFrame], *, n_rows: int, title: str) -> None:
        variables = self._variables
        columns = [variable.column for variable in variables]
        self._places.append(0)
        self._file.write(b"<stata_dta>")
        self._write_header(n_rows=n_rows, title=title)
        with self._section("map"):
            self._file.write(bytes(8 * len(_PLACES)))
        with self._section("variable_types"):
            self._write_numbers("H", [variable.type_number for variable in variables])
        with self._section("varnames"):
            self._write_texts([column.name for column in columns], _NAME_BYTES)
        with self._section("sortlist"):
            self._write_numbers("H", [0] * (len(columns) + 1))
        with self._section("formats"):
            self._write_texts([variable.display for variable in variables], _FORMAT_BYTES)
        with self._section("value_label_names"):
            labelled = zip(columns, self._has_labels, strict=True)
            self._write_texts([column.name if labels else "" for column, labels in labelled], _NAME_BYTES)
        with self._section("variable_labels"):
            self._write_texts([column.label for column in columns], _LABEL_BYTES)
        with self._section("characteristics"):
            pass
        with self._section("data"):
            self._write_rows(frames)
        with self._section("strls"):
            self._long_texts.seek(0)
            shutil.copyfileobj(self._long_texts, self._file)
        with self._section("value_labels"):
            for column, labels in zip(columns, self._has_labels, strict=True):
                if labels:
                    self._write_value_labels(column)
        self._places.append(self._file.tell())
        self._file.write(b"</stata_dta>")
        self._places.append(self._file.tell())
        self._file.seek(self._places[_PLACES.index("map")] + len(b"<map>"))
        self._write_numbers("Q", self._places)

    @contextmanager
    def _section(self, name: str) -> Iterator[None]:
        self._places.append(self._file.tell())
        self._file.write(f"<{name}>".encode())
        yield
        self._file.write(f"</{name}>".encode())

    def _write_header(self, *, n_rows: int, title: str) -> None:
        label = cut(title, _LIMITS.title_bytes).encode()
        self._file.write(b"<header><release>118</release><byteorder>LSF</byteorder>")
        self._file.write(b"<K>" + struct.pack("<H", len(self._variables)) + b"</K>")
        self._file.write(b"<N>" + struct.pack("<Q", n_rows) + b"</N>")
        self._file.write(b"<label>" + struct.pack("<H", len(label)) + label + b"</label>")
        # without a time: the same rows make the same file
        self._file.write(b"<timestamp>\0</timestamp></header>")

    def _write_numbers(self, code: str, numbers: Sequence[int]) -> None:
        self._file.write(struct.pack(f"<{len(numbers)}{code}", *numbers))

    def _write_texts(self, texts: Sequence[str], width: int) -> None:
        for text in texts:
            self._file.write(text.encode().ljust(width, b"\0"))

    def _write_rows(self, frames: Iterator[pl.DataFrame]) -> None:
        number = 0
        for frame in frames:
            for row in frame.iter_rows():
                number += 1
                self._file.write(self._row.pack(*self._packed(row, number)))

    def _packed(self, row: Sequence[object], row_number: int) -> Iterator[object]:
        for place, (variable, value) in enumerate(zip(self._variables, row, strict=True), 1):
            if isinstance(value, str):
                text = value.encode()
                yield self._put_aside(text, place, row_number) if variable.type_number == _STRL else text
            elif value is None:
                yield _MISSING_BYTE if variable.type_number == _BYTE else _MISSING_DOUBLE
            else:
                yield value

    def _put_aside(self, text: bytes, variable_number: int, row_number: int) -> int:
        """A long text; its row holds the number of the variable in two bytes and that of the row in six."""
        if not text:
            return 0
        head = struct.pack("<3sIQBI", b"GSO", variable_number, row_number, 130, len(text) + 1)
        self._long_texts.write(head + text + b"\0")
        return variable_number | row_number << 16

    def _write_value_labels(self, column: Column) -> None:
        labels = [label.encode() + b"\0" for label in column.values.values()]
        starts = [sum(map(len, labels[:place])) for place in range(len(labels))]
        texts = b"".join(labels)
        table = struct.pack("<ii", len(labels), len(texts))
        table += struct.pack(f"<{len(labels)}i", *starts) + struct.pack(f"<{len(labels)}i", *column.values) + texts
        name = column.name.encode().ljust(_NAME_BYTES, b"\0")
        self._file.write(b"<lbl>" + struct.pack("<i", len(table)) + name + bytes(3) + table + b"</lbl>")


def _type_number(column: Column, spool: Spool) -> int:
    match column.kind:
        case Kind.FLAG:
            return _BYTE
        case Kind.WHOLE | Kind.NUMBER:
            return _DOUBLE
        case _:
            width = max(spool.widest_bytes[column.name], 1)
            return width if width <= _WIDEST_TEXT_BYTES else _STRL
