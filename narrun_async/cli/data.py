"""`narrun ingest`, `narrun migrate` and `narrun synth`: workbooks and databases."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from narrun_async.app.databases import checked_database
from narrun_async.app.planning import DEFAULT_DATABASE
from narrun_async.cli.environment import read_text

Database = Annotated[
    Path | None,
    typer.Option("--db", help="Database file. [EXPERIMENTS_DB; default: data/experiments.db]", show_default=False),
]
PlaceholderRules = Annotated[
    Path | None,
    typer.Option("--placeholder-rules", help="A rule file in place of the packaged one.", show_default=False),
]

NoDedupe = Annotated[
    bool,
    typer.Option(
        "--no-dedupe",
        help="Refuse a database of the R project in which a narrative has several results, instead of keeping the"
        " newest success and setting the others aside.",
    ),
]


def chosen_database(database: Path | None) -> Path:
    """Flag > EXPERIMENTS_DB > default.

    :raises StorageError: that cannot be a database
    """
    return checked_database(database or Path(read_text("EXPERIMENTS_DB") or DEFAULT_DATABASE))


def storable(path: Path | None) -> Path | None:
    """A path that is recorded in the database, which holds text.

    :raises UsageError: its name is none
    """
    from narrun_async.errors import UsageError

    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UsageError(f"{str(path)!a}: this name is not UTF-8, and it is to be recorded") from None
    return path


def register(app: typer.Typer) -> None:
    app.command()(ingest)
    app.command()(screen)
    app.command()(migrate)
    app.command()(synth)


def ingest(
    workbook: Annotated[Path, typer.Argument(help="An .xlsx workbook or a CSV table.", show_default=False)],
    database: Database = None,
    sheet: Annotated[str | None, typer.Option(help="The worksheet, where several fit.", show_default=False)] = None,
    on_conflict: Annotated[
        str, typer.Option("--on-conflict", help="error, or first: which of two different texts of one narrative.")
    ] = "error",
    skip_blank_ids: Annotated[
        bool, typer.Option("--skip-blank-ids", help="Drop rows that have a text and no id, and count them.")
    ] = False,
    placeholder_rules: PlaceholderRules = None,
    no_dedupe: NoDedupe = False,
) -> None:
    """Load the narratives of a workbook into the database, all of them or none. A known file is a no-op."""
    import anyio
    from pydantic import ValidationError

    from narrun_async.app.loading import ingest_file
    from narrun_async.config import DataSection
    from narrun_async.config.complaints import complaint_about
    from narrun_async.errors import UsageError

    if on_conflict not in ("error", "first"):
        raise UsageError("--on-conflict must be error or first")
    given = {
        "file": str(workbook),
        "sheet": sheet,
        "on_conflict": on_conflict,
        "skip_blank_ids": skip_blank_ids,
        "placeholder_rules": None if placeholder_rules is None else str(placeholder_rules),
    }
    try:
        section = DataSection.model_validate(given)
    except ValidationError as error:
        # not chained: it holds what was given
        raise UsageError(complaint_about(error, known=DataSection, origin="ingest")) from None
    for line in anyio.run(partial(ingest_file, chosen_database(database), section, dedupe=not no_dedupe)):
        typer.echo(line)


def screen(database: Database = None, placeholder_rules: PlaceholderRules = None) -> None:
    """Look at the texts that are loaded, for placeholders, near-empty and cut-off ones, and repeats; flags only.

    Texts are looked at when they are loaded; this is for files that were loaded before that was so, and for other
    rules. Without --placeholder-rules the rules that come with the program are used (again).
    """
    import anyio

    from narrun_async.app.databases import require_database
    from narrun_async.app.loading import screen_database

    path = chosen_database(database)
    require_database(path)
    for line in anyio.run(screen_database, path, placeholder_rules):
        typer.echo(line)


def migrate(
    database: Database = None,
    fix_ids: Annotated[
        bool, typer.Option("--fix-ids", help="Repair ids that R wrote as numbers, such as 1e+05 for 100000.")
    ] = False,
    no_dedupe: NoDedupe = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change; change nothing.")] = False,
) -> None:
    """Bring a database to this version's schema, after a backup; safe to repeat.

    In a database of the R project a narrative may have several results in one experiment: the newest success stays,
    else the newest error; the others move to the table legacy_results, whole. Ids that R wrote as numbers are listed
    with what they stand for. `narrun verify` shows both again.
    """
    import anyio

    from narrun_async.app.databases import require_database
    from narrun_async.app.loading import migrate_database, preview_migration

    path = chosen_database(database)
    require_database(path)
    work = preview_migration if dry_run else migrate_database
    for line in anyio.run(partial(work, path, dedupe=not no_dedupe, fix_ids=fix_ids)):
        typer.echo(line)


def synth(
    output: Annotated[Path, typer.Argument(help="The workbook to write.", show_default=False)],
    cases: Annotated[int, typer.Option("--cases", min=1, help="Rows, each with two narratives.")] = 100,
    seed: Annotated[int, typer.Option(help="The same seed writes the same workbook.")] = 0,
    unlabelled: Annotated[bool, typer.Option("--unlabelled", help="Leave the manual flags out: --labelled 0.")] = False,
    labelled: Annotated[float, typer.Option("--labelled", min=0, max=1, help="Share of the cases with labels.")] = 1.0,
    repeated: Annotated[
        float, typer.Option("--repeated", min=0, max=1, help="Share of the texts that repeat an earlier case's.")
    ] = 0.0,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write a workbook of synthetic narratives, made up sentence by sentence; no real case is in it."""
    from narrun_async.app.synthesis import write_synthetic_workbook

    lines = write_synthetic_workbook(
        output,
        n_cases=cases,
        seed=seed,
        labelled=0.0 if unlabelled else labelled,
        repeated=repeated,
        overwrite=force,
    )
    for line in lines:
        typer.echo(line)
