"""The program: its commands in one Typer application, and the way every failure becomes a sentence and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from typing import Any

import typer
import typer.core

from narrun_async import __version__
from narrun_async.cli import (
    batch,
    browse,
    configurations,
    data,
    estimate,
    evaluate,
    examine,
    experiments,
    privacy,
    report,
    review,
    run,
    simulate,
    steer,
    sweep,
)
from narrun_async.cli.environment import refuse_unknown
from narrun_async.cli.streams import open_missing_streams
from narrun_async.errors import ExitCode, NarrunError

#: a defect of ours, after sysexits.h
EXIT_SOFTWARE = 70

#: as a person meets them: work, look, evaluate, hand on, prepare, look after
_ORDER = (
    *("run", "resume", "sweep", "batch", "estimate"),
    *("list", "show", "status", "set", "pause", "unpause"),
    *("metrics", "compare", "report", "review", "export", "browse"),
    *("ingest", "screen", "migrate", "migrate-config", "synth", "simulate"),
    *("doctor", "verify", "scrub", "purge"),
)


class _InOrder(typer.core.TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=_ORDER.index)


app = typer.Typer(
    name="narrun",
    cls=_InOrder,
    context_settings={"max_content_width": 120},
    help="Classify case narratives with an LLM: bounded concurrency, exactly-once rows, resume after any kill.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"narrun_async {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Show the version."),
) -> None:
    refuse_unknown()


run.register(app)
batch.register(app)
experiments.register(app)
browse.register(app)
data.register(app)
configurations.register(app)
estimate.register(app)
evaluate.register(app)
examine.register(app)
privacy.register(app)
report.register(app)
review.register(app)
simulate.register(app)
steer.register(app)
sweep.register(app)


def main() -> None:
    """Run one command and leave with its exit code."""
    open_missing_streams()
    try:
        app()
    except BaseExceptionGroup as group:
        sys.exit(_explain(_only_member(group)))
    except (Exception, KeyboardInterrupt) as error:
        sys.exit(_explain(error))


def _explain(error: BaseException) -> int:
    if isinstance(error, NarrunError):
        _tell(f"narrun: {error}")
        return int(error.exit_code)
    if isinstance(error, KeyboardInterrupt):
        _tell("narrun: stopped")
        return int(ExitCode.SIGINT)
    if isinstance(error, BrokenPipeError):
        # Whoever read our output has gone; keep the interpreter from complaining about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(ExitCode.COMPLETED)
    # The places only: an exception's own words may hold a narrative.
    _tell("".join(traceback.format_tb(error.__traceback__)).rstrip())
    _tell(f"narrun: a defect in narrun itself ({type(error).__name__}); what is saved stays saved")
    return EXIT_SOFTWARE


def _only_member(group: BaseException) -> BaseException:
    """The one failure inside nested groups; a NarrunError among several comes first."""
    while isinstance(group, BaseExceptionGroup):
        ours = group.subgroup(NarrunError)
        group = (ours or group).exceptions[0]
    return group


def _tell(line: str) -> None:
    with suppress(OSError):
        print(line, file=sys.stderr)  # noqa: T201 - the one place where a failure is told
