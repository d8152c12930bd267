"""`narrun report`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from narrun_async.cli.data import Database, chosen_database
from narrun_async.cli.evaluate import (
    Labels,
    OfIncidents,
    Resamples,
    Seed,
    Sensitivity,
    Specificity,
    ValidatedBy,
    evaluation_request,
)
from narrun_async.cli.experiments import ExperimentArgument
from narrun_async.metrics.resampling import DEFAULT_RESAMPLES, DEFAULT_SEED


def register(app: typer.Typer) -> None:
    app.command()(report)


def report(
    experiment: ExperimentArgument,
    database: Database = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="The file. [default: reports/<id>.html]", show_default=False)
    ] = None,
    labels: Labels = "manual",
    suppress_below: Annotated[
        int | None,
        typer.Option(
            "--suppress-below",
            min=2,
            max=1000,
            help="Show no count of people below this, and nothing that would give one away.",
            show_default=False,
        ),
    ] = None,
    with_text: Annotated[
        bool, typer.Option("--with-text", help="Include indicators, which quote narratives. They are sensitive.")
    ] = False,
    resamples: Resamples = DEFAULT_RESAMPLES,
    seed: Seed = DEFAULT_SEED,
    validated_by: ValidatedBy = None,
    sensitivity: Sensitivity = None,
    specificity: Specificity = None,
    of_incidents: OfIncidents = False,
) -> None:
    """Write a report of an experiment as one HTML file, for readers who have never seen this program.

    What was asked, of how many, what came out with its intervals and what it does not mean; flow, accuracy, agreement,
    prevalence, errors, runs, provenance, checklists, a methods paragraph. The file loads nothing from anywhere, and
    without --with-text quotes no narrative. Safe beside a run. Needs the extra packages of `make analysis`.
    """
    import anyio

    from narrun_async.app.documenting import ReportRequest, write_report

    request = evaluation_request(
        experiment,
        resamples=resamples,
        seed=seed,
        validated_by=validated_by,
        sensitivity=sensitivity,
        specificity=specificity,
        of_incidents=of_incidents,
        labels=labels,
    )
    wanted = ReportRequest(evaluation=replace(request, suppress_below=suppress_below), target=html, with_text=with_text)
    typer.echo(anyio.run(partial(write_report, chosen_database(database), wanted)))
