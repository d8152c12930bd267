"""`narrun estimate`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from narrun_async.app.planning import SMOKE_CONFIG, RunRequest
from narrun_async.cli.environment import read_concurrency, read_text
from narrun_async.cli.run import Concurrency, Database, Rpm, Tpm, run_overrides
from narrun_async.cli.streams import end_with, say, tell


def register(app: typer.Typer) -> None:
    app.command()(estimate)


def estimate(
    config: Annotated[
        Path | None,
        typer.Argument(help="Configuration. [NARRUN_CONFIG; default: the smoke run]", show_default=False),
    ] = None,
    database: Database = None,
    k: Annotated[int, typer.Option("-k", "--sample", min=1, help="Narratives to send.")] = 8,
    keep: Annotated[
        bool, typer.Option("--keep", help="Create the experiment and store these answers as its beginning.")
    ] = False,
    concurrency: Concurrency = None,
    rpm: Rpm = None,
    tpm: Tpm = None,
    max_narratives: Annotated[
        int | None, typer.Option("--max-narratives", min=1, help="Size of the cohort.", show_default=False)
    ] = None,
) -> None:
    """Send a few narratives, and tell how long all of them will take, how many tokens and what cost.

    They are spread evenly over the cohort. Prices come from `run.prices`. Without --keep nothing is written.
    """
    from narrun_async.app.foretelling import estimate_experiment

    named = config or (Path(found) if (found := read_text("NARRUN_CONFIG")) else None)
    request = RunRequest(
        config_file=named or SMOKE_CONFIG,
        config_is_default=named is None,
        database=database,
        overrides=run_overrides(
            concurrency=read_concurrency(concurrency), rpm=rpm, tpm=tpm, max_narratives=max_narratives
        ),
    )

    end_with(estimate_experiment(request, os.environ, k=k, keep=keep, tell=tell, say=say))
