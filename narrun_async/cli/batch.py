"""`narrun batch`: what remains of an experiment as files, for a provider's Batch API or a host without a network."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from narrun_async.app.planning import RunRequest
from narrun_async.cli.data import Database, chosen_database, storable
from narrun_async.cli.environment import read_switch
from narrun_async.cli.experiments import ExperimentArgument, Json
from narrun_async.cli.run import (
    AcceptRestored,
    ApiUrl,
    LogDir,
    MaxCost,
    MaxTokensTotal,
    OnModelChange,
    RetryErrors,
    RetryErrorsOnly,
)
from narrun_async.cli.streams import end_with, say, tell
from narrun_async.errors import UsageError

if TYPE_CHECKING:
    from narrun_async.app.batches import BatchRequest

batch = typer.Typer(
    help="Hand what remains over as files: to a provider's Batch API (half the price, a day), or to a host without a"
    " network.",
    no_args_is_help=True,
)

Numbers = Annotated[
    list[int] | None,
    typer.Option("--batch", "-b", min=1, help="Only this batch; may be repeated.", show_default=False),
]
Settle = Annotated[
    float,
    typer.Option(
        "--settle",
        min=0,
        help="Seconds after which the provider surely lists what it was asked to create. Fewer risk paying twice.",
    ),
]


def register(app: typer.Typer) -> None:
    app.add_typer(batch, name="batch")


@batch.command()
def export(
    experiment: Annotated[str | None, typer.Argument(help="Its id, a prefix, or `latest`.", show_default=False)] = None,
    new: Annotated[
        Path | None,
        typer.Option(
            "--new", callback=storable, help="Create an experiment from this configuration.", show_default=False
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            callback=storable,
            help="Of an experiment of R: says where the key is and whether narratives may leave.",
            show_default=False,
        ),
    ] = None,
    api_url: Annotated[
        str | None, typer.Option("--api-url", help="Of an experiment of R: another address.", show_default=False)
    ] = None,
    database: Database = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", callback=storable, help="Where the files go. [default: beside the logs]", show_default=False
        ),
    ] = None,
    max_requests: Annotated[int, typer.Option("--max-requests", help="Requests in one file, 50,000 at most.")] = 50_000,
    max_bytes: Annotated[
        int, typer.Option("--max-bytes", help="Bytes of one file, from 1,000,000 to 200,000,000.")
    ] = 200_000_000,
    max_narratives: Annotated[
        int | None,
        typer.Option("--max-narratives", min=1, help="Size of a new experiment's cohort.", show_default=False),
    ] = None,
    retry_errors_only: RetryErrorsOnly = None,
    retry_errors: RetryErrors = False,
    log_dir: LogDir = Path("logs"),
    accept_restored: AcceptRestored = False,
) -> None:
    """Write what remains into batch files (JSONL), each request exactly what a run would send. Needs no network.

    What is in an open batch already is left out. The files hold narratives; they are for their owner only.
    """
    from narrun_async.app.batches import export_experiment
    from narrun_async.batching.shards import ShardLimits

    if (experiment is None) == (new is None):
        raise UsageError("name an experiment, or a configuration for a new one with --new")
    if new is not None and (config is not None or api_url is not None):
        raise UsageError("--config and --api-url are for an experiment of R", advice="leave them out beside --new")
    request = _request(
        experiment,
        database,
        config_file=new or config,
        api_url=api_url,
        retry_errors=retry_errors,
        retry_errors_only=read_switch("RETRY_ERRORS_ONLY") if retry_errors_only is None else retry_errors_only,
        overrides={} if max_narratives is None else {"run.max_narratives": max_narratives},
        log_root=log_dir,
        accept_restored=accept_restored,
    )
    limits = ShardLimits(max_requests=max_requests, max_bytes=max_bytes)
    end_with(export_experiment(request, limits=limits, out=out, tell=tell, say=say))


@batch.command()
def submit(
    experiment: ExperimentArgument,
    database: Database = None,
    numbers: Numbers = None,
    api_url: ApiUrl = None,
    max_tokens_total: MaxTokensTotal = None,
    max_cost: MaxCost = None,
    resubmit: Annotated[
        bool,
        typer.Option(
            "--resubmit",
            help="Send batches again of which nobody can tell whether the provider has them. Look there first: it may"
            " be paid for twice.",
        ),
    ] = False,
    settle: Settle = 60.0,
    log_dir: LogDir = Path("logs"),
    accept_restored: AcceptRestored = False,
) -> None:
    """Upload the exported batches and have the provider work on them, each exactly once.

    After a kill, or where an answer was lost, the provider is asked first what it has; run the same command again.
    """
    from narrun_async.app.batches import submit_batches

    flags = {"run.max_tokens_total": max_tokens_total, "run.max_cost": max_cost}
    request = _request(
        experiment,
        database,
        numbers=numbers,
        settle_s=settle,
        api_url=api_url,
        overrides={name: value for name, value in flags.items() if value is not None},
        log_root=log_dir,
        accept_restored=accept_restored,
    )
    end_with(submit_batches(request, resubmit=resubmit, tell=tell))


@batch.command()
def poll(
    experiment: ExperimentArgument,
    database: Database = None,
    numbers: Numbers = None,
    wait: Annotated[bool, typer.Option("--wait", help="Ask again until all have ended.")] = False,
    interval: Annotated[float, typer.Option("--interval", min=0.1, help="Seconds between two questions.")] = 60.0,
    api_url: ApiUrl = None,
) -> None:
    """Ask the provider how the batches stand. Exits with 75 while one goes on.

    The database is locked only for the moment in which news are noted.
    """
    from narrun_async.app.batch_answers import poll_batches

    request = _request(experiment, database, numbers=numbers, api_url=api_url)
    end_with(poll_batches(request, waits=wait, interval_s=interval, tell=tell, say=say))


@batch.command()
def collect(
    experiment: ExperimentArgument,
    database: Database = None,
    numbers: Numbers = None,
    files: Annotated[
        list[Path] | None,
        typer.Option("--from", help="Take the answers from this file; may be repeated.", show_default=False),
    ] = None,
    keep_files: Annotated[
        bool, typer.Option("--keep-files", help="Do not remove the files of batches that are closed.")
    ] = False,
    delete_remote: Annotated[
        bool, typer.Option("--delete-remote", help="Have the provider delete its files of them, too.")
    ] = False,
    accept_refusals: Annotated[
        bool,
        typer.Option("--accept-refusals", help="Make error rows of refusals even where no request was answered."),
    ] = False,
    on_model_change: OnModelChange = None,
    api_url: ApiUrl = None,
    log_dir: LogDir = Path("logs"),
    accept_restored: AcceptRestored = False,
) -> None:
    """Store the answers of batches that have ended, through the same parser and writer as those of a run.

    What was not answered is missing again. With --from nothing is asked of anybody: the files are those that a
    provider's page, or `vllm run-batch`, has written. Exit codes are those of `run`.
    """
    from narrun_async.app.batch_answers import CollectOptions, collect_batches

    if files and delete_remote:
        raise UsageError("--delete-remote belongs to answers that the provider itself gave, not to --from")
    request = _request(
        experiment,
        database,
        numbers=numbers,
        api_url=api_url,
        overrides={} if on_model_change is None else {"run.on_model_change": on_model_change},
        log_root=log_dir,
        accept_restored=accept_restored,
    )
    options = CollectOptions(
        files=files or (),
        keeps_files=keep_files,
        accepts_refusals=accept_refusals,
        deletes_remote=delete_remote,
    )
    end_with(collect_batches(request, options, tell=tell, say=say))


@batch.command("list")
def list_batches(
    experiment: Annotated[
        str | None, typer.Argument(help="Its id, a prefix, or `latest`. [default: all]", show_default=False)
    ] = None,
    database: Database = None,
    open_only: Annotated[bool, typer.Option("--open", help="Only those that are not closed.")] = False,
    as_json: Json = False,
) -> None:
    """List batches, oldest first, as they were when they were last asked about; asks nobody."""
    import anyio

    from narrun_async.app.batches import list_batches as load_lines

    path = chosen_database(database)
    for line in anyio.run(partial(load_lines, path, experiment, open_only=open_only, as_json=as_json)):
        typer.echo(line)


@batch.command()
def cancel(
    experiment: ExperimentArgument,
    database: Database = None,
    numbers: Numbers = None,
    abandon: Annotated[
        bool,
        typer.Option(
            "--abandon",
            help="Give the batch up without asking the provider, whatever it has; its answers may be paid for.",
        ),
    ] = False,
    api_url: ApiUrl = None,
    settle: Settle = 60.0,
    log_dir: LogDir = Path("logs"),
) -> None:
    """Withdraw batches that were not sent, and have the provider stop working on those that were.

    What was answered until then is kept for `collect`. The narratives of a closed batch are missing again.
    """
    from narrun_async.app.batches import cancel_batches

    request = _request(experiment, database, numbers=numbers, settle_s=settle, api_url=api_url, log_root=log_dir)
    end_with(cancel_batches(request, abandons=abandon, tell=tell))


def _request(
    experiment: str | None,
    database: Path | None,
    *,
    numbers: list[int] | None = None,
    settle_s: float = 60.0,
    config_file: Path | None = None,
    **wanted: object,
) -> BatchRequest:
    from narrun_async.app.batches import BatchRequest

    run = RunRequest(
        config_file=config_file,
        database=database,
        resume=experiment is not None or config_file is None,
        experiment_id=experiment,
        **wanted,  # type: ignore[arg-type]  # the names are fields
    )
    return BatchRequest(run=run, environment=os.environ, numbers=numbers or (), settle_s=settle_s)
