"""`narrun list`, `show`, `status` and `export`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from narrun_async.cli.data import Database, chosen_database
from narrun_async.errors import UsageError

if TYPE_CHECKING:
    from narrun_async.reporting.exports import ExportFormat

Json = Annotated[bool, typer.Option("--json", help="For scripts.")]
ExperimentArgument = Annotated[str, typer.Argument(help="Its id, a prefix, or `latest`.", show_default=False)]

#: how often --watch looks again
WATCH_EVERY_S = 2.0


def register(app: typer.Typer) -> None:
    app.command("list")(list_experiments)
    app.command()(show)
    app.command()(status)
    app.command()(export)


def list_experiments(
    database: Database = None,
    incomplete: Annotated[bool, typer.Option("--incomplete", help="Only those that can be resumed.")] = False,
    name: Annotated[str | None, typer.Option(help="Only those of this name.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """List the experiments of a database, newest first."""
    from narrun_async.app.showing import list_experiments as load_lines

    path = chosen_database(database)
    _print(anyio.run(partial(load_lines, path, incomplete_only=incomplete, name=name, as_json=as_json)))


def show(experiment: ExperimentArgument, database: Database = None, as_json: Json = False) -> None:
    """Show one experiment: its settings, its runs and its results."""
    from narrun_async.app.showing import show_experiment

    _print(anyio.run(partial(show_experiment, chosen_database(database), experiment, as_json=as_json)))


def status(
    experiment: Annotated[
        str | None, typer.Argument(help="Its id, a prefix, or `latest`. [default: the running one]", show_default=False)
    ] = None,
    database: Database = None,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every two seconds while it runs.")] = False,
    as_json: Json = False,
) -> None:
    """Show how far an experiment is; safe beside a run."""
    from narrun_async.app.showing import look_at_status

    path = chosen_database(database)

    async def look(show: Callable[[Sequence[str]], None]) -> None:
        while True:
            view = await look_at_status(path, experiment, as_json=as_json)
            show(view.lines)
            if not (watch and view.is_running):
                return
            await anyio.sleep(WATCH_EVERY_S)

    if not (watch and sys.stdout.isatty()):
        anyio.run(look, _print)
        return
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False, vertical_overflow="visible") as screen:
        anyio.run(look, lambda lines: screen.update(Text("\n".join(lines)), refresh=True))


def export(
    experiment: ExperimentArgument,
    database: Database = None,
    directory: Annotated[Path, typer.Option("--export-dir", help="Where the files go.")] = Path("exports"),
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="csv, json, jsonl, xlsx, parquet, dta (Stata), sav (SPSS), xpt (SAS); may be repeated."
            " [default: csv, json]",
            show_default=False,
        ),
    ] = None,
    with_text: Annotated[
        bool, typer.Option("--with-text", help="Include narratives and what quotes them. They are sensitive.")
    ] = False,
    excel_safe: Annotated[
        bool,
        typer.Option("--excel-safe", help="In the csv, an apostrophe before texts that Excel would take for formulas."),
    ] = False,
    bom: Annotated[
        bool, typer.Option("--bom", help="Begin the csv with a byte order mark, by which Excel knows UTF-8.")
    ] = False,
    xpt_version: Annotated[
        int,
        typer.Option(
            "--xpt-version", help="5: every SAS reads it, names of 8 letters, texts of 200 bytes. 8: longer ones."
        ),
    ] = 5,
    r_snippet: Annotated[
        bool, typer.Option("--r-snippet", help="Write no file; print R code that reads the database itself.")
    ] = False,
) -> None:
    """Write the results of an experiment into files.

    Beside them a codebook explains every column, and says what a format could not hold.
    """
    from narrun_async.app.showing import export_experiment, r_snippet_lines
    from narrun_async.reporting.exports import ExportOptions

    path = chosen_database(database)
    if r_snippet:
        _print(anyio.run(partial(r_snippet_lines, path, experiment, with_text=with_text)))
        return
    if xpt_version not in (5, 8):
        raise UsageError(f"--xpt-version must be 5 or 8, not {xpt_version}")
    options = ExportOptions(
        formats=_chosen_formats(formats or ["csv", "json"]),
        with_text=with_text,
        excel_safe=excel_safe,
        bom=bom,
        xpt_version=8 if xpt_version == 8 else 5,
    )
    exported = anyio.run(export_experiment, path, experiment, directory, options)
    _print(str(one) for one in exported.files.paths)
    for notice in exported.notices:
        typer.echo(notice, err=True)


def _chosen_formats(wanted: list[str]) -> list[ExportFormat]:
    from narrun_async.reporting.exports import EXPORT_FORMATS

    known = {str(one): one for one in EXPORT_FORMATS}
    for one in wanted:
        if one not in known:
            raise UsageError(f"--format must be one of {', '.join(known)}, not {one[:20]!r}")
    return [known[one] for one in wanted]


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        typer.echo(line)
