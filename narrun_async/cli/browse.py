"""`narrun browse`."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import anyio
import typer

from narrun_async.cli.data import Database, chosen_database


def register(app: typer.Typer) -> None:
    app.command()(browse)


def browse(
    experiment: Annotated[
        str | None, typer.Argument(help="Its id, a prefix, or `latest`. [default: all of them]", show_default=False)
    ] = None,
    database: Database = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")] = 0,
    with_text: Annotated[
        bool,
        typer.Option(
            "--with-text", help="Show narratives, what quotes them, and prompts, to whoever has the link. Sensitive."
        ),
    ] = False,
) -> None:
    """Look at experiments in a web browser of this machine.

    Tables with filters and counts, and ready questions, on a copy without texts that is renewed when the database has
    changed; safe beside a run. The address is the one line on standard output; no file is made. Ctrl-C ends it.
    """
    from narrun_async.app.browsing import browse_database

    anyio.run(
        partial(
            browse_database,
            chosen_database(database),
            experiment,
            port=port,
            with_text=with_text,
            tell=lambda line: typer.echo(line, err=True),
            say=typer.echo,
        )
    )
