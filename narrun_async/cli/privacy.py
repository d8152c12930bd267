"""`narrun scrub` and `narrun purge`: narratives that are no longer needed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from narrun_async.cli.data import Database, chosen_database
from narrun_async.errors import UsageError

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would go; change nothing.")]


def register(app: typer.Typer) -> None:
    app.command()(scrub)
    app.command()(purge)


def scrub(database: Database = None, yes: Yes = False, dry_run: DryRun = False) -> None:
    """Drop the narratives and all that may quote them; keep hashes, labels, verdicts and numbers. Cannot be undone.

    Results stay readable and `verify` goes on working. Nothing can be sent again: a resume is refused. No backup is
    made, for it would hold what is to go; backups from before are named and left alone. Prompts are kept.
    """
    import anyio

    from narrun_async.app.privacy import scrub_database

    anyio.run(
        partial(scrub_database, chosen_database(database), dry_run=dry_run, confirm=_confirmation(yes), tell=typer.echo)
    )


def purge(
    database: Database = None,
    certificate: Annotated[
        Path | None,
        typer.Option("--certificate", help="Where the certificate goes. [default: beside it]", show_default=False),
    ] = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Destroy a database with its side files and the log files of its experiments, and write a certificate.

    Each file is overwritten once and removed. The certificate (JSON) says what was removed, with size and SHA-256, and
    what cannot be reached: backups, exports, copies, what the endpoint kept, the medium itself.
    """
    import anyio

    from narrun_async.app.privacy import purge_database

    anyio.run(
        partial(
            purge_database,
            chosen_database(database),
            certificate=certificate,
            dry_run=dry_run,
            confirm=_confirmation(yes),
            tell=typer.echo,
        )
    )


def _confirmation(yes: bool) -> Callable[[Path], None]:
    def confirm(database: Path) -> None:
        if yes:
            return
        if not sys.stdin.isatty():
            raise UsageError("nobody can be asked here; nothing was changed", advice="add --yes if it is meant")
        answer = typer.prompt(f"This cannot be undone. Type the file's name ({database.name}) to go on", default="")
        if answer.strip() != database.name:
            raise UsageError("that was not its name; nothing was changed")

    return confirm
