"""`narrun verify` and `narrun doctor`."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from narrun_async.app.planning import SMOKE_CONFIG, RunRequest
from narrun_async.cli.data import Database, chosen_database
from narrun_async.cli.environment import read_text
from narrun_async.cli.experiments import Json

if TYPE_CHECKING:
    from narrun_async.app.examining import Examination


def register(app: typer.Typer) -> None:
    app.command()(verify)
    app.command()(doctor)


def verify(
    experiment: Annotated[
        str | None, typer.Argument(help="Its id, a prefix, or `latest`. [default: all]", show_default=False)
    ] = None,
    database: Database = None,
    as_json: Json = False,
) -> None:
    """Check that the rows of a database keep every promise; safe beside a run, writes nothing.

    Exits with 65 where one is broken. What the predecessor left behind is listed and fails nothing.
    """
    import anyio

    from narrun_async.app.examining import verify_database

    _tell(anyio.run(partial(verify_database, chosen_database(database), experiment, as_json=as_json)))


def doctor(
    config: Annotated[
        Path | None,
        typer.Argument(help="Configuration. [NARRUN_CONFIG; default: the smoke run]", show_default=False),
    ] = None,
    database: Database = None,
) -> None:
    """Look at the database, the configuration and the endpoint, and say what to do; writes nothing.

    The endpoint gets one request for one token, and two tiny ones for structured output; none holds a narrative. Exits
    with 74 where the database is wrong, 78 where the configuration, the key or the model is, 65 where the data file is
    missing, 75 where the endpoint is down.
    """
    import anyio

    from narrun_async.app.examining import diagnose

    named = config or (Path(found) if (found := read_text("NARRUN_CONFIG")) else None)
    # Where nothing is named and the smoke run is not at hand, there still is a database to look at.
    default = SMOKE_CONFIG if SMOKE_CONFIG.is_file() else None
    request = RunRequest(config_file=named or default, config_is_default=named is None, database=database)
    _tell(anyio.run(diagnose, request, os.environ))


def _tell(examination: Examination) -> None:
    for line in examination.lines:
        typer.echo(line)
    raise typer.Exit(int(examination.exit_code))
