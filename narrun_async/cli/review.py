"""`narrun review`: samples for people to read, and the labels that they bring back."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import anyio
import typer

from narrun_async.cli.data import Database, chosen_database, storable
from narrun_async.cli.experiments import ExperimentArgument, Json
from narrun_async.errors import UsageError
from narrun_async.metrics.sampling import Allocation, Stratifier

review = typer.Typer(help="Have people read a sample, and take in what they say.", no_args_is_help=True)

ReviewArgument = Annotated[
    int, typer.Argument(metavar="REVIEW", help="Its number (`review list`).", show_default=False)
]
Out = Annotated[Path, typer.Option("--out", callback=storable, help="Where the workbooks go. They hold narratives.")]


def register(app: typer.Typer) -> None:
    app.add_typer(review, name="review")


@review.command()
def sample(
    experiment: ExperimentArgument,
    reviewers: Annotated[
        list[str], typer.Option("--reviewer", help="Who reads; repeat it for several readers.", show_default=False)
    ],
    n: Annotated[int, typer.Option("--n", min=1, help="Narratives to draw.")] = 100,
    strata: Annotated[
        str, typer.Option(help="What to divide by: any of predicted, confidence, availability, disagreement; or none.")
    ] = "predicted,confidence,availability,disagreement",
    bands: Annotated[str, typer.Option(help="Where bands of confidence end.")] = "0.5,0.8,0.95",
    allocation: Annotated[
        str, typer.Option(help="equal: small strata are seen well; proportional: as the population is.")
    ] = "equal",
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=2**63 - 1,
            help="The same seed draws the same sample. [default: at random, recorded]",
            show_default=False,
        ),
    ] = None,
    unblinded: Annotated[bool, typer.Option("--unblinded", help="Show readers what the model said.")] = False,
    out: Out = Path("reviews"),
    database: Database = None,
) -> None:
    """Draw a stratified sample of the narratives that have an answer, and write one workbook for each reader."""
    from narrun_async.app.reviewing import Readers, sample_review
    from narrun_async.operations.reviewing import SampleRequest

    if len(set(reviewers)) != len(reviewers):
        raise UsageError("two readers have the same name")
    request = SampleRequest(
        n=n,
        stratifiers=_stratifiers(strata),
        bands=_bands(bands),
        allocation=_allocation(allocation),
        seed=seed,
    )
    readers = Readers(names=reviewers, are_blinded=not unblinded)
    path = chosen_database(database)
    anyio.run(partial(sample_review, path, experiment, request, readers, out, tell=typer.echo))


@review.command("import")
def take_in(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Filled workbooks.", show_default=False)],
    accepts_partial: Annotated[
        bool, typer.Option("--partial", help="Take what is there where labels are missing.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Let labels that were taken before change; the earlier ones are kept.")
    ] = False,
    database: Database = None,
) -> None:
    """Take in filled workbooks: labels by the key of each row, each file whole or not at all.

    A file in which rows are missing, keys, ids or texts were edited, or a label is none, is refused (65).
    """
    from narrun_async.app.reviewing import import_workbooks

    path = chosen_database(database)
    take = partial(import_workbooks, path, files, accepts_partial=accepts_partial, replaces=replace, tell=typer.echo)
    anyio.run(take)


@review.command()
def adjudicate(
    number: ReviewArgument,
    reader: Annotated[str, typer.Option("--reader", help="Who decides.")] = "adjudicator",
    out: Out = Path("reviews"),
    database: Database = None,
) -> None:
    """Write what readers differ on, or could not tell, into a workbook for another reader; `import` takes it in."""
    from narrun_async.app.reviewing import adjudicate_review
    from narrun_async.models import ReviewId

    anyio.run(partial(adjudicate_review, chosen_database(database), ReviewId(number), reader, out, tell=typer.echo))


@review.command()
def rewrite(
    number: ReviewArgument,
    reader: Annotated[str, typer.Option("--reader", help="Whose.", show_default=False)],
    out: Out = Path("reviews"),
    database: Database = None,
) -> None:
    """Write a reader's workbook again, empty, as it was written first; what is there stays, beside it."""
    from narrun_async.app.reviewing import rewrite_workbook
    from narrun_async.models import ReviewId

    anyio.run(partial(rewrite_workbook, chosen_database(database), ReviewId(number), reader, out, tell=typer.echo))


@review.command("list")
def list_all(database: Database = None) -> None:
    """List the reviews of a database."""
    from narrun_async.app.reviewing import list_reviews

    for line in anyio.run(list_reviews, chosen_database(database)):
        typer.echo(line)


@review.command()
def show(number: ReviewArgument, database: Database = None, as_json: Json = False) -> None:
    """Show one review: its strata, who has read what, how far readers agree, what is open."""
    from narrun_async.app.reviewing import show_review
    from narrun_async.models import ReviewId

    for line in anyio.run(partial(show_review, chosen_database(database), ReviewId(number), as_json=as_json)):
        typer.echo(line)


@review.command()
def labels(
    number: ReviewArgument,
    target: Annotated[Path, typer.Option("--out", help="The CSV file to write.", show_default=False)],
    database: Database = None,
) -> None:
    """Write the final labels with their strata and weights into a CSV file; no texts, no comments."""
    from narrun_async.app.reviewing import write_labels
    from narrun_async.models import ReviewId

    n_rows = anyio.run(write_labels, chosen_database(database), ReviewId(number), target)
    typer.echo(f"{target}: {n_rows:,} narratives")


def _stratifiers(text: str) -> list[Stratifier]:
    names = [] if text.strip() in ("", "none") else [name.strip() for name in text.split(",")]
    try:
        chosen = [Stratifier(name) for name in names]
    except ValueError:
        raise UsageError(f"--strata takes {', '.join(Stratifier)}, or none") from None
    return list(dict.fromkeys(chosen))


def _bands(text: str) -> tuple[float, ...]:
    try:
        bands = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        bands = (0.0,)
    if sorted(set(bands)) != list(bands) or not all(0 < band < 1 for band in bands):
        raise UsageError("--bands takes rising numbers between 0 and 1, such as 0.5,0.8")
    return bands


def _allocation(text: str) -> Allocation:
    try:
        return Allocation(text)
    except ValueError:
        raise UsageError(f"--allocation takes {', '.join(Allocation)}") from None
