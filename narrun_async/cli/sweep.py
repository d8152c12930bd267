"""`narrun sweep`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from narrun_async.cli.data import storable
from narrun_async.cli.environment import read_concurrency
from narrun_async.cli.run import (
    AcceptRestored,
    AttemptDeadline,
    Concurrency,
    Database,
    ExportDir,
    LogDir,
    MaxConcurrency,
    MaxConsecutiveErrors,
    MaxWait,
    OnModelChange,
    Rpm,
    Tpm,
    run_overrides,
)
from narrun_async.cli.streams import end_with, outlive_terminal, say, tell

MaxTokensTotal = Annotated[
    int | None,
    typer.Option(
        "--max-tokens-total", min=1, help="Tokens for the whole sweep, earlier runs included.", show_default=False
    ),
]
MaxCost = Annotated[
    float | None,
    typer.Option("--max-cost", help="Cost of the whole sweep at `run.prices`, likewise.", show_default=False),
]


def register(app: typer.Typer) -> None:
    app.command()(sweep)


def sweep(
    sweep_file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", callback=storable, help="A sweep, such as configs/sweeps/smoke.yaml.", show_default=False
        ),
    ],
    database: Database = None,
    concurrency: Concurrency = None,
    max_concurrency: MaxConcurrency = None,
    rpm: Rpm = None,
    tpm: Tpm = None,
    max_tokens_total: MaxTokensTotal = None,
    max_cost: MaxCost = None,
    attempt_deadline: AttemptDeadline = None,
    max_wait: MaxWait = None,
    max_consecutive_errors: MaxConsecutiveErrors = None,
    on_model_change: OnModelChange = None,
    log_dir: LogDir = Path("logs"),
    export_dir: ExportDir = Path("exports"),
    accept_restored: AcceptRestored = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the experiments; write and send nothing.")] = False,
) -> None:
    """Run every combination of some settings, one experiment after another, and rank them.

    FILE names a base configuration and a matrix of settings (docs/sweeps.md). The same command goes on with a sweep
    that was stopped or killed. The table goes to standard output, everything else to standard error; exit codes as for
    `run`, the worst of all experiments.
    """
    from narrun_async.app.sweeping import SweepRequest, preview_sweep, run_sweep

    request = SweepRequest(
        sweep_file=sweep_file,
        database=database,
        overrides=run_overrides(
            concurrency=read_concurrency(concurrency),
            max_concurrency=max_concurrency,
            rpm=rpm,
            tpm=tpm,
            max_tokens_total=max_tokens_total,
            max_cost=max_cost,
            attempt_deadline_s=attempt_deadline,
            max_wait_s=max_wait,
            max_consecutive_errors=max_consecutive_errors,
            on_model_change=on_model_change,
        ),
        log_root=log_dir,
        export_root=export_dir,
        accept_restored=accept_restored,
    )

    if dry_run:
        end_with(preview_sweep(request, os.environ, tell=tell))
    outlive_terminal()
    end_with(run_sweep(request, os.environ, tell=tell, say=say, interactive=sys.stderr.isatty()))
