"""Puts a review into lines for people: what was drawn, who has read what, where readers agree, what is still open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from narrun_async.models import ReviewState, ReviewWorkbook
from narrun_async.reporting.wording import aligned, percent_text

HOLDS_TEXTS = "these workbooks hold narratives: keep them where you may keep narratives"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewCounts:
    """What the labels of a review come to."""

    n_final: int
    n_positive: int
    n_adjudicated: int
    #: read, without a final label, not decided by anybody
    n_disputed: int


def review_lines(state: ReviewState, counts: ReviewCounts, agreement: Sequence[str]) -> list[str]:
    """One review.

    :param agreement: lines on how far reviewers agree
    """
    review = state.review
    rows = [
        ("review", str(review.review_id)),
        ("experiment", review.experiment_id),
        ("drawn", f"{review.drawn_at}, seed {review.seed}"),
        ("sample", f"{review.n_drawn:,} of {review.n_population:,} narratives with an answer ({review.allocation})"),
        ("strata", review.strata or "none"),
        (
            "final",
            f"{counts.n_final:,} labels ({counts.n_positive:,} yes), {counts.n_adjudicated:,} adjudicated",
        ),
        ("open", f"{counts.n_disputed:,} on which readers differ or cannot tell"),
    ]
    return [*aligned(rows), "", *strata_lines(state), "", *workbook_lines(state), *agreement]


def strata_lines(state: ReviewState) -> list[str]:
    """Each stratum with its size, how many were drawn of it, and what each of those stands for."""
    strata = sorted({(item.stratum, item.stratum_size, item.stratum_drawn) for item in state.items})
    header = ("stratum", "narratives", "drawn", "each stands for")
    rows = [(name, f"{size:,}", f"{drawn:,}", f"{size / drawn:.4g}") for name, size, drawn in strata]
    return aligned([header, *rows], right=frozenset({1, 2, 3}))


def workbook_lines(state: ReviewState) -> list[str]:
    """Who has a workbook, and how much of it came back."""
    if not state.workbooks:
        return ["no workbook was written yet"]
    header = ("reader", "role", "shows the model", "texts", "labelled", "file")
    rows = [_workbook_row(workbook, state) for workbook in state.workbooks]
    return aligned([header, *rows], right=frozenset({3, 4}))


def _workbook_row(workbook: ReviewWorkbook, state: ReviewState) -> tuple[str, ...]:
    said = state.labels.get(workbook.workbook_id)
    return (
        workbook.reader,
        workbook.role.value,
        "no" if workbook.is_blinded else "yes",
        f"{len(workbook.item_keys):,}",
        "-" if said is None else f"{len(said):,}",
        workbook.path,
    )


def raw_agreement_line(first: str, second: str, *, n_agreed: int, n: int, n_undecided: int) -> str:
    """How often two readers chose the same label."""
    undecided = f"; {n_undecided:,} left out, where one of them cannot tell" if n_undecided else ""
    return f"{first} and {second} agree on {n_agreed:,} of {n:,} ({percent_text(n_agreed, n)}){undecided}"
