"""`narrun list`, `show`, `status` and `export`."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import anyio
import typer

from narrun_async.cli.data import Database, chosen_database
from narrun_async.errors import UsageError

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

    async def look() -> None:
        while True:
            view = await look_at_status(path, experiment, as_json=as_json)
            _print(view.lines)
            if not (watch and view.is_running):
                return
            await anyio.sleep(WATCH_EVERY_S)

    anyio.run(look)


def export(
    experiment: ExperimentArgument,
    database: Database = None,
    directory: Annotated[Path, typer.Option("--export-dir", help="Where the files go.")] = Path("exports"),
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="csv, json, xlsx. [default: csv, json]", show_default=False),
    ] = None,
    with_text: Annotated[
        bool, typer.Option("--with-text", help="Include narratives and what quotes them. They are sensitive.")
    ] = False,
    excel_safe: Annotated[
        bool,
        typer.Option("--excel-safe", help="In the csv, an apostrophe before texts that Excel would take for formulas."),
    ] = False,
) -> None:
    """Write the results of an experiment into files."""
    from narrun_async.app.showing import export_experiment

    export_results = partial(
        export_experiment,
        chosen_database(database),
        experiment,
        directory,
        formats=_chosen_formats(formats or ["csv", "json"]),
        with_text=with_text,
        excel_safe=excel_safe,
    )
    _print(str(path) for path in anyio.run(export_results))


def _chosen_formats(wanted: list[str]) -> list[Literal["csv", "json", "xlsx"]]:
    formats: dict[str, Literal["csv", "json", "xlsx"]] = {"csv": "csv", "json": "json", "xlsx": "xlsx"}
    for one in wanted:
        if one not in formats:
            raise UsageError(f"--format must be csv, json or xlsx, not {one[:20]!r}")
    return [formats[one] for one in wanted]


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        typer.echo(line)
