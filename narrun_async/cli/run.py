"""`narrun run` and `narrun resume`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from narrun_async.app.planning import SMOKE_CONFIG, RunRequest
from narrun_async.cli.data import NoDedupe, storable
from narrun_async.cli.environment import read_concurrency, read_switch, read_text
from narrun_async.cli.streams import end_with, outlive_terminal, say, tell

Database = Annotated[
    Path | None,
    typer.Option("--db", help="Database file. [EXPERIMENTS_DB; default: data/experiments.db]", show_default=False),
]
Concurrency = Annotated[
    str | None,
    typer.Option(
        "--concurrency", "-c", help="Calls in flight, or `auto` to find the best. [default: auto]", show_default=False
    ),
]
MaxConcurrency = Annotated[
    int | None,
    typer.Option("--max-concurrency", min=1, help="What `auto` may go up to. [default: 64]", show_default=False),
]
Rpm = Annotated[float | None, typer.Option("--rpm", help="Requests a minute at most.", show_default=False)]
Tpm = Annotated[float | None, typer.Option("--tpm", help="Tokens a minute at most.", show_default=False)]
MaxTokensTotal = Annotated[
    int | None,
    typer.Option(
        "--max-tokens-total", min=1, help="Tokens for the experiment, earlier runs included.", show_default=False
    ),
]
MaxCost = Annotated[
    float | None,
    typer.Option("--max-cost", help="Cost of the experiment at `run.prices`, likewise.", show_default=False),
]
RetryErrorsOnly = Annotated[
    bool | None,
    typer.Option(
        "--retry-errors-only/--no-retry-errors-only",
        help="Work on error rows and nothing else. [RETRY_ERRORS_ONLY]",
        show_default=False,
    ),
]
RetryErrors = Annotated[bool, typer.Option("--retry-errors", help="Work on error rows, too.")]
ApiUrl = Annotated[
    str | None, typer.Option("--api-url", help="Use this endpoint instead; recorded with the run.", show_default=False)
]
MaxWait = Annotated[
    float | None,
    typer.Option("--max-wait", min=0, help="Seconds to wait for a sick endpoint. [default: 3600]", show_default=False),
]
AttemptDeadline = Annotated[
    float | None,
    typer.Option("--attempt-deadline", help="Seconds that one call may take. [default: 120]", show_default=False),
]
MaxConsecutiveErrors = Annotated[
    int | None,
    typer.Option(
        "--max-consecutive-errors",
        min=1,
        help="Identical errors in a row that stop the run. [default: 50]",
        show_default=False,
    ),
]
OnModelChange = Annotated[
    Literal["warn", "stop"] | None,
    typer.Option(
        "--on-model-change",
        help="What to do when another model answers than before. [default: warn]",
        show_default=False,
    ),
]
Canaries = Annotated[
    int | None,
    typer.Option(
        "--canaries",
        min=0,
        help="Narratives asked again in mid-run, to see answers flip. [default: 0]",
        show_default=False,
    ),
]
Backup = Annotated[
    bool,
    typer.Option("--backup", help="Before a resume, copy the database beside itself. The copy is as sensitive."),
]
LogDir = Annotated[
    Path, typer.Option("--log-dir", callback=storable, help="Where experiments/<id>/ with the log files is made.")
]
AcceptRestored = Annotated[
    bool,
    typer.Option("--accept-restored", help="Go on with a database that was put back from an older copy."),
]
MaxNarratives = Annotated[
    int | None,
    typer.Option(
        "--max-narratives",
        min=1,
        help="Size of the cohort: of a new experiment, or of one of R that is taken up.",
        show_default=False,
    ),
]
ExportDir = Annotated[Path, typer.Option("--export-dir", help="Where exports go.")]


def register(app: typer.Typer) -> None:
    app.command()(run)
    app.command()(resume)


def run(
    config: Annotated[
        Path | None,
        typer.Argument(
            callback=storable,
            help="Configuration. [NARRUN_CONFIG; default: configs/exp_101_smoke.yaml]",
            show_default=False,
        ),
    ] = None,
    database: Database = None,
    concurrency: Concurrency = None,
    max_concurrency: MaxConcurrency = None,
    rpm: Rpm = None,
    tpm: Tpm = None,
    max_tokens_total: MaxTokensTotal = None,
    max_cost: MaxCost = None,
    max_narratives: MaxNarratives = None,
    resume: Annotated[
        bool | None, typer.Option("--resume/--no-resume", help="Go on with an experiment. [RESUME]", show_default=False)
    ] = None,
    experiment_id: Annotated[
        str | None,
        typer.Option(
            "--experiment-id", help="Which one: its id, a prefix, or `latest`. [EXPERIMENT_ID]", show_default=False
        ),
    ] = None,
    retry_errors_only: RetryErrorsOnly = None,
    retry_errors: RetryErrors = False,
    api_url: ApiUrl = None,
    backup: Backup = False,
    attempt_deadline: AttemptDeadline = None,
    max_wait: MaxWait = None,
    max_consecutive_errors: MaxConsecutiveErrors = None,
    on_model_change: OnModelChange = None,
    canaries: Canaries = None,
    log_dir: LogDir = Path("logs"),
    export_dir: ExportDir = Path("exports"),
    accept_restored: AcceptRestored = False,
    no_dedupe: NoDedupe = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan; write and send nothing.")] = False,
) -> None:
    """Create an experiment and run it, or go on with one.

    The results go to standard output, everything else to standard error. Exit codes: 0 completed, 1 completed with
    error rows, 2 usage, 65 bad data, 74 storage, 75 try again later, 78 configuration, 130/143 stopped by a signal.
    """
    named = config or (Path(from_environment) if (from_environment := read_text("NARRUN_CONFIG")) else None)
    request = RunRequest(
        config_file=named or SMOKE_CONFIG,
        config_is_default=named is None,
        database=database,
        resume=read_switch("RESUME") if resume is None else resume,
        experiment_id=experiment_id or read_text("EXPERIMENT_ID"),
        retry_errors_only=read_switch("RETRY_ERRORS_ONLY") if retry_errors_only is None else retry_errors_only,
        retry_errors=retry_errors,
        api_url=api_url,
        backup=backup,
        overrides=run_overrides(
            concurrency=read_concurrency(concurrency),
            max_concurrency=max_concurrency,
            rpm=rpm,
            tpm=tpm,
            max_tokens_total=max_tokens_total,
            max_cost=max_cost,
            max_narratives=max_narratives,
            attempt_deadline_s=attempt_deadline,
            max_wait_s=max_wait,
            max_consecutive_errors=max_consecutive_errors,
            on_model_change=on_model_change,
            canaries=canaries,
        ),
        log_root=log_dir,
        export_root=export_dir,
        accept_restored=accept_restored,
        dedupe=not no_dedupe,
    )
    _carry_out(request, dry_run=dry_run)


def resume(
    experiment_id: Annotated[
        str, typer.Argument(help="Its id, a prefix, or `latest`, the newest incomplete one.")
    ] = "latest",
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            help="Compare with this configuration; the stored one is used. For an experiment of R it says where the key"
            " is and whether narratives may leave.",
            show_default=False,
        ),
    ] = None,
    database: Database = None,
    concurrency: Concurrency = None,
    max_concurrency: MaxConcurrency = None,
    rpm: Rpm = None,
    tpm: Tpm = None,
    max_tokens_total: MaxTokensTotal = None,
    max_cost: MaxCost = None,
    max_narratives: MaxNarratives = None,
    retry_errors_only: RetryErrorsOnly = None,
    retry_errors: RetryErrors = False,
    api_url: ApiUrl = None,
    backup: Backup = False,
    attempt_deadline: AttemptDeadline = None,
    max_wait: MaxWait = None,
    max_consecutive_errors: MaxConsecutiveErrors = None,
    on_model_change: OnModelChange = None,
    canaries: Canaries = None,
    log_dir: LogDir = Path("logs"),
    export_dir: ExportDir = Path("exports"),
    accept_restored: AcceptRestored = False,
    no_dedupe: NoDedupe = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan; write and send nothing.")] = False,
) -> None:
    """Go on with an experiment: its stored configuration, its frozen cohort, what remains of it.

    An experiment of the R project is taken up under its own id, with its own prompts, model and address.
    """
    run(
        config,
        database=database,
        concurrency=concurrency,
        max_concurrency=max_concurrency,
        rpm=rpm,
        tpm=tpm,
        max_tokens_total=max_tokens_total,
        max_cost=max_cost,
        max_narratives=max_narratives,
        resume=True,
        experiment_id=experiment_id,
        retry_errors_only=retry_errors_only,
        retry_errors=retry_errors,
        api_url=api_url,
        backup=backup,
        attempt_deadline=attempt_deadline,
        max_wait=max_wait,
        max_consecutive_errors=max_consecutive_errors,
        on_model_change=on_model_change,
        canaries=canaries,
        log_dir=log_dir,
        export_dir=export_dir,
        accept_restored=accept_restored,
        no_dedupe=no_dedupe,
        dry_run=dry_run,
    )


def run_overrides(**flags: object) -> dict[str, object]:
    """Flags that were given, as settings of `run`."""
    return {f"run.{name}": value for name, value in flags.items() if value is not None}


def _carry_out(request: RunRequest, *, dry_run: bool) -> None:
    from narrun_async.app.running import preview_run, run_experiment

    if dry_run:
        end_with(preview_run(request, os.environ, tell=tell))
    outlive_terminal()
    end_with(run_experiment(request, os.environ, tell=tell, say=say, interactive=sys.stderr.isatty()))
