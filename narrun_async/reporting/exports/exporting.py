"""Owns the way of an export: the rows, read once, into every file that was asked for, and all of them into place."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, assert_never, get_args

import anyio

from narrun_async.codebook import Column, chosen_columns
from narrun_async.errors import MissingPackageError
from narrun_async.models import Experiment
from narrun_async.ports import ResultStore
from narrun_async.reporting.exports.codebook_file import write_codebook
from narrun_async.reporting.exports.files import Drafts, Remark, RowWriter, named
from narrun_async.reporting.exports.plain_text import CsvFile, JsonFile, JsonLinesFile
from narrun_async.reporting.exports.workbook import XlsxFile
from narrun_async.reporting.wording import printable

if TYPE_CHECKING:
    from narrun_async.reporting.exports.spool import Spool

PlainFormat = Literal["csv", "json", "jsonl", "xlsx"]
#: those that know types; they need the extra `formats`
TypedFormat = Literal["parquet", "dta", "sav", "xpt"]
ExportFormat = PlainFormat | TypedFormat
XptVersion = Literal[5, 8]

PLAIN_FORMATS: tuple[PlainFormat, ...] = get_args(PlainFormat)
TYPED_FORMATS: tuple[TypedFormat, ...] = get_args(TypedFormat)
EXPORT_FORMATS: tuple[ExportFormat, ...] = (*PLAIN_FORMATS, *TYPED_FORMATS)
#: of the extra `formats`
_PACKAGES: Mapping[ExportFormat, Sequence[str]] = {
    "parquet": ("polars",),
    "dta": ("polars",),
    "sav": ("polars", "pyreadstat"),
    "xpt": ("polars", "pyreadstat"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What an export is to be like."""

    formats: Sequence[ExportFormat]
    #: with narratives and what quotes them
    with_text: bool = False
    #: in the csv, an apostrophe before texts that a spreadsheet program would take for a formula
    excel_safe: bool = False
    #: csv and codebook begin with the mark by which Excel knows UTF-8
    bom: bool = False
    #: of the SAS transport file
    xpt_version: XptVersion = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedFiles:
    """What an export wrote."""

    files: Mapping[ExportFormat, Path]
    codebook: Path
    #: what a format could not hold; the codebook says it, too
    remarks: Sequence[Remark]

    @property
    def paths(self) -> Sequence[Path]:
        """All of them, the codebook last."""
        return [*self.files.values(), self.codebook]


async def export_results(
    store: ResultStore, experiment: Experiment, directory: Path, options: ExportOptions
) -> ExportedFiles:
    """Write `<experiment_id>.<format>` and `<experiment_id>.codebook.csv` into a directory, made when missing.

    What holds narratives is called `<experiment_id>.with-text.…`, so that nobody takes it for what may be passed on.
    All files hold the same rows, for the store is read once. Safe to repeat; cancelled or failed, it leaves what was
    there before.

    :raises MissingPackageError: a format needs a package that is not installed; nothing was touched
    :raises StorageError: a file or the directory cannot be written
    """
    _require_packages(options.formats)
    columns = chosen_columns(with_text=options.with_text)
    codebook = f"{_stem(experiment, options)}.codebook.csv"
    with Drafts(directory, experiment.experiment_id) as drafts:
        with closing(_Files(drafts, experiment, columns, options)) as files:
            await _write_rows(store, experiment, files, with_text=options.with_text)
            remarks = files.finish()
        with named(drafts.target(codebook)):
            write_codebook(drafts.path / codebook, columns, remarks, bom=options.bom)
        drafts.publish([*files.names.values(), codebook])
        return ExportedFiles(
            files={wanted: drafts.target(name) for wanted, name in files.names.items()},
            codebook=drafts.target(codebook),
            remarks=remarks,
        )


def _stem(experiment: Experiment, options: ExportOptions) -> str:
    return f"{experiment.experiment_id}.with-text" if options.with_text else experiment.experiment_id


class _Files:
    """The drafts of one export, written together; those that know types are made from one spool at the end.

    :raises StorageError: from every method but `close`, naming the file
    """

    def __init__(
        self, drafts: Drafts, experiment: Experiment, columns: Sequence[Column], options: ExportOptions
    ) -> None:
        stem = _stem(experiment, options)
        self.names = {one: f"{stem}.{one}" for one in EXPORT_FORMATS if one in options.formats}
        self._drafts = drafts
        self._experiment = experiment
        self._columns = columns
        self._options = options
        self._plain: dict[PlainFormat, RowWriter] = {}
        self._typed = [one for one in TYPED_FORMATS if one in self.names]
        self._spool: Spool | None = None
        for wanted in [one for one in PLAIN_FORMATS if one in self.names]:
            with named(self._target(wanted)):
                self._plain[wanted] = self._open_plain(wanted)
        if self._typed:
            from narrun_async.reporting.exports.spool import Spool  # loads polars

            self._spool = Spool(drafts.path, columns)

    def write_row(self, row: Mapping[str, object]) -> None:
        for wanted, file in self._plain.items():
            with named(self._target(wanted)):
                file.write_row(row)
        if self._spool is not None:
            with named(self._drafts.directory):
                self._spool.write_row(row)

    def finish(self) -> Sequence[Remark]:
        """Make every draft whole; returns what did not fit."""
        remarks: list[Remark] = []
        for wanted, file in self._plain.items():
            with named(self._target(wanted)):
                remarks += file.finish()
        if self._spool is not None:
            with named(self._drafts.directory):
                self._spool.finish()
            for typed in self._typed:
                with named(self._target(typed)):
                    remarks += self._write_typed(self._spool, typed)
        return remarks

    def close(self) -> None:
        for file in self._plain.values():
            file.close()

    def _target(self, wanted: ExportFormat) -> Path:
        return self._drafts.target(self.names[wanted])

    def _open_plain(self, wanted: PlainFormat) -> RowWriter:
        path, names = self._drafts.path / self.names[wanted], [column.name for column in self._columns]
        match wanted:
            case "csv":
                return CsvFile(path, names, excel_safe=self._options.excel_safe, bom=self._options.bom)
            case "json":
                return JsonFile(path, names, self._experiment, with_text=self._options.with_text)
            case "jsonl":
                return JsonLinesFile(path, names)
            case "xlsx":
                return XlsxFile(path, names)
        assert_never(wanted)

    def _write_typed(self, spool: Spool, wanted: TypedFormat) -> Sequence[Remark]:
        path, title = self._drafts.path / self.names[wanted], _title(self._experiment)
        match wanted:
            case "parquet":
                from narrun_async.reporting.exports.spool import write_parquet

                return write_parquet(spool, path)
            case "dta":
                from narrun_async.reporting.exports.stata import write_dta

                return write_dta(spool, path, title=title)
            case "sav":
                from narrun_async.reporting.exports.statistics import write_sav

                return write_sav(spool, path, title=title)
            case "xpt":
                from narrun_async.reporting.exports.statistics import write_xpt

                return write_xpt(spool, path, title=title, version=self._options.xpt_version)
        assert_never(wanted)


async def _write_rows(store: ResultStore, experiment: Experiment, files: _Files, *, with_text: bool) -> None:
    rows = store.iter_results(experiment.experiment_id)
    try:
        async for row in rows:
            files.write_row(row if with_text else _without_foreign_words(row, experiment))
    finally:
        # A generator that is left to the garbage collector would keep its cursor open until then.
        if isinstance(rows, AsyncGenerator):
            with anyio.CancelScope(shield=True):
                await rows.aclose()


def _without_foreign_words(row: Mapping[str, object], experiment: Experiment) -> Mapping[str, object]:
    """The predecessor's error messages may quote the answer that could not be read; ours quote nothing."""
    if row.get("run_id") is None:
        return {**row, "error_message": None, "first_error_message": None}
    if experiment.columns.get("r_version"):
        return {**row, "first_error_message": None}
    return row


def _title(experiment: Experiment) -> str:
    simulated = "SIMULATED: " if experiment.columns.get("model_provider") == "simulated" else ""
    return f"{simulated}{printable(experiment.name)}"


def _require_packages(formats: Sequence[ExportFormat]) -> None:
    for wanted in formats:
        for package in _PACKAGES.get(wanted, ()):
            if find_spec(package) is None:
                raise MissingPackageError(wanted=f"--format {wanted}", package=package)
