"""`narrun set`, `narrun pause` and `narrun unpause`."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from narrun_async.cli.data import Database, chosen_database
from narrun_async.cli.environment import read_concurrency
from narrun_async.errors import UsageError

settings = typer.Typer(help="Change the run that is going.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(settings, name="set")
    app.command()(pause)
    app.command()(unpause)


@settings.command()
def concurrency(
    value: Annotated[str, typer.Argument(help="Calls in flight, or `auto`.", show_default=False)],
    database: Database = None,
) -> None:
    """Change how many calls the run keeps in flight, from now on."""
    import anyio

    from narrun_async.app.steering import set_concurrency

    wanted = read_concurrency(value)
    if wanted is None:
        raise UsageError("a concurrency is a number, or `auto`")
    typer.echo(anyio.run(set_concurrency, chosen_database(database), wanted))


def pause(database: Database = None) -> None:
    """Let the run send nothing more until `narrun unpause`; calls in flight come to their end."""
    _set_paused(database, is_paused=True)


def unpause(database: Database = None) -> None:
    """Let a paused run go on."""
    _set_paused(database, is_paused=False)


def _set_paused(database: Database, *, is_paused: bool) -> None:
    import anyio

    from narrun_async.app.steering import set_paused

    typer.echo(anyio.run(partial(set_paused, chosen_database(database), is_paused)))
