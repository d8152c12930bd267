"""`narrun metrics` and `narrun compare`."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from narrun_async.cli.data import Database, chosen_database
from narrun_async.cli.experiments import ExperimentArgument, Json
from narrun_async.errors import UsageError
from narrun_async.metrics.resampling import DEFAULT_RESAMPLES, DEFAULT_SEED

if TYPE_CHECKING:
    from narrun_async.app.evaluating import EvaluationRequest, Fraction
    from narrun_async.models import ReviewId

Resamples = Annotated[
    int, typer.Option("--bootstrap", min=0, max=100_000, help="Resamples for the intervals that need them; 0: none.")
]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same intervals.")]
ValidatedBy = Annotated[
    str | None, typer.Option(help="Take sensitivity and specificity from this experiment's labels.", show_default=False)
]
Sensitivity = Annotated[
    str | None, typer.Option(help="Take this one, such as 42/48: detected of labelled yes.", show_default=False)
]
Specificity = Annotated[
    str | None, typer.Option(help="Take this one, such as 342/356: not detected of labelled no.", show_default=False)
]
OfIncidents = Annotated[
    bool, typer.Option("--of-incidents", help="Those two were measured on incidents, not on narratives.")
]
Labels = Annotated[
    str, typer.Option(help="Whose labels: manual, the flags of the file; or review:N, the final ones of a review.")
]

_FRACTION = re.compile(r"(\d{1,9})\s*/\s*(\d{1,9})")


def register(app: typer.Typer) -> None:
    app.command()(metrics)
    app.command()(compare)


def metrics(
    experiment: ExperimentArgument,
    database: Database = None,
    resamples: Resamples = DEFAULT_RESAMPLES,
    seed: Seed = DEFAULT_SEED,
    validated_by: ValidatedBy = None,
    sensitivity: Sensitivity = None,
    specificity: Specificity = None,
    of_incidents: OfIncidents = False,
    labels: Labels = "manual",
    as_json: Json = False,
) -> None:
    """Tell what the answers of an experiment are worth, against its labels; safe beside a run, writes nothing.

    For every narrative, each type and every incident: 2x2 table, sensitivity, specificity, predictive values, F1 and
    more, each with its 95 % interval; agreement beyond chance; how common the thing is, corrected for what the answers
    miss and invent. Needs the extra packages of `make analysis`.
    """
    import anyio

    from narrun_async.app.evaluating import tell_metrics

    request = evaluation_request(
        experiment,
        resamples=resamples,
        seed=seed,
        validated_by=validated_by,
        sensitivity=sensitivity,
        specificity=specificity,
        of_incidents=of_incidents,
        labels=labels,
        as_json=as_json,
    )
    for line in anyio.run(partial(tell_metrics, chosen_database(database), request)):
        typer.echo(line)


def compare(
    experiments: Annotated[
        list[str], typer.Argument(help="Ids, prefixes, or `latest`; two or more.", show_default=False)
    ],
    database: Database = None,
    resamples: Resamples = DEFAULT_RESAMPLES,
    seed: Seed = DEFAULT_SEED,
    limit: Annotated[int, typer.Option(min=0, help="Narratives to list on which they differ.")] = 20,
    as_json: Json = False,
) -> None:
    """Compare experiments on the narratives that all of them have answered; safe beside a run, writes nothing.

    Each against the labels; each pair by exact McNemar, Holm's correction and a paired interval of the difference in
    F1; how far their answers agree, and how far repetitions of the same question do; and what the best of many owes to
    luck. Needs the extra packages of `make analysis`.
    """
    import anyio

    from narrun_async.app.comparing import ComparisonRequest, tell_comparison

    request = ComparisonRequest(wanted=experiments, n_resamples=resamples, seed=seed, limit=limit, as_json=as_json)
    for line in anyio.run(partial(tell_comparison, chosen_database(database), request)):
        typer.echo(line)


def evaluation_request(
    experiment: str,
    *,
    resamples: int,
    seed: int,
    validated_by: str | None,
    sensitivity: str | None,
    specificity: str | None,
    of_incidents: bool,
    labels: str,
    as_json: bool = False,
) -> EvaluationRequest:
    """What the flags of `metrics` and `report` come to.

    :raises UsageError: they contradict each other, or one of them cannot be read
    """
    from narrun_async.app.evaluating import EvaluationRequest

    if (sensitivity is None) != (specificity is None):
        raise UsageError("--sensitivity and --specificity go together")
    if sensitivity is not None and validated_by is not None:
        raise UsageError("--validated-by and --sensitivity both say where sensitivity comes from", advice="give one")
    if of_incidents and sensitivity is None:
        raise UsageError("--of-incidents says something of --sensitivity and --specificity, which are not given")
    return EvaluationRequest(
        wanted=experiment,
        n_resamples=resamples,
        seed=seed,
        as_json=as_json,
        validated_by=validated_by,
        sensitivity=_read_fraction("--sensitivity", sensitivity),
        specificity=_read_fraction("--specificity", specificity),
        measured_on_incidents=of_incidents,
        review=read_review(labels),
    )


def read_review(labels: str) -> ReviewId | None:
    """The review that `--labels` names; None for the manual flags.

    :raises UsageError: it names nothing
    """
    from narrun_async.models import ReviewId

    if labels == "manual":
        return None
    source, _, number = labels.partition(":")
    if source != "review" or not (number.isascii() and number.isdigit() and len(number) < 10):
        raise UsageError("--labels must be manual, or review:N with the number of a review (`narrun review list`)")
    return ReviewId(int(number))


def _read_fraction(flag: str, text: str | None) -> Fraction | None:
    """:raises UsageError: it is no count of a count; a decimal number would hide how sure it is"""
    from narrun_async.app.evaluating import Fraction

    if text is None:
        return None
    found = _FRACTION.fullmatch(text.strip())
    hits, n = map(int, found.groups()) if found else (0, 0)
    if not 0 <= hits <= n or not n:
        raise UsageError(
            f"{flag} must be a count of a count, such as 42/48, not {text[:20]!r}",
            advice="the counts say how sure it is, which a decimal number does not",
        )
    return Fraction(hits=hits, n=n)
