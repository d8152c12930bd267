"""Writes results as files of SPSS and SAS, with labels.

The library that writes them wants all rows at once, so the table is in memory, narrowed to what the format holds:
42,000 rows with 147 MB of texts took 350 MB.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import polars as pl
import pyreadstat

from narrun_async.codebook import Column, Kind
from narrun_async.reporting.exports.files import Remark
from narrun_async.reporting.exports.narrowing import Limits, Narrowing, cut
from narrun_async.reporting.exports.spool import Spool

_CUT_SHORT = "the disk took only a part of the file"
_SAV = Limits(
    text_bytes=32_767, title_bytes=64, numbers=(0.0, 1.79e308), flag_type=pl.Int32, flags=range(-(2**31), 2**31)
)
#: numbers are those of an IBM mainframe: as exact as ours, from 16**-65 to 16**63
_XPT_8 = replace(_SAV, title_bytes=40, numbers=(16.0**-65, 7.2e75))
_XPT_5 = replace(_XPT_8, text_bytes=200)


def write_sav(spool: Spool, path: Path, *, title: str) -> Sequence[Remark]:
    """All rows into one file of SPSS; compressed by rows, because each text is as wide as the longest of its column.

    :param title: shown by the statistics package, cut to what the format holds; likewise below
    :raises OSError: the disk refuses
    """
    narrowing = Narrowing(spool, _SAV)
    columns = spool.columns
    numbers = [one for one in columns if one.kind in (Kind.WHOLE, Kind.NUMBER)]
    _complete(
        pyreadstat.write_sav,
        pl.concat(narrowing.iter_frames()),
        path,
        file_label=cut(title, _SAV.title_bytes),
        row_compress=True,
        column_labels={one.name: one.label for one in columns},
        variable_value_labels={one.name: dict(one.values) for one in columns if one.values},
        variable_measure={one.name: "scale" if one in numbers else "nominal" for one in columns},
        variable_format={one.name: "F12.0" if one.kind is Kind.WHOLE else "F12.6" for one in numbers},
    )
    return narrowing.remarks("sav")


def write_xpt(spool: Spool, path: Path, *, title: str, version: Literal[5, 8]) -> Sequence[Remark]:
    """All rows into one SAS transport file, which has labels for columns and none for values.

    :param version: 5 has names of eight characters; the codebook says which
    :raises OSError: the disk refuses
    """
    limits = _XPT_5 if version == 5 else _XPT_8
    narrowing = Narrowing(spool, limits)
    names = {one.name: _xpt_name(one, version) for one in spool.columns}
    _complete(
        pyreadstat.write_xport,
        pl.concat(narrowing.iter_frames()).rename(names),
        path,
        file_label=cut(title, limits.title_bytes),
        table_name="RESULTS",
        column_labels={names[one.name]: one.label for one in spool.columns},
        file_format_version=version,
    )
    _require_last_row(path, spool.n_rows)
    return narrowing.remarks("xpt")


def _xpt_name(column: Column, version: Literal[5, 8]) -> str:
    return column.short_name if version == 5 else column.name


def _complete(write: Callable[..., object], frame: pl.DataFrame, path: Path, **options: object) -> None:
    """:raises OSError: the file is not whole"""
    try:
        write(frame, path, **options)
    except (pyreadstat.ReadstatError, pyreadstat.PyreadstatError) as error:
        # Its sentence may name a value; what the disk said it does not tell.
        raise OSError(0, _CUT_SHORT) from error


def _require_last_row(path: Path, n_rows: int) -> None:
    """Of this format the library does not notice that the disk took only a part.

    :raises OSError: that has happened
    """
    if n_rows:
        last, _ = pyreadstat.read_xport(path, row_offset=n_rows - 1, row_limit=1, output_format="polars")
        if not len(last):
            raise OSError(0, _CUT_SHORT)
