"""Samples that people have read: how they were drawn, who read them, how far the readers agree."""

from __future__ import annotations

from collections.abc import Sequence

from narrun_async.reporting.html.blocks import Block, Fact, Facts, Heading, Paragraph, Row, Section, Table
from narrun_async.reporting.html.material import ReportMaterial, ReviewFacts
from narrun_async.reporting.html.wording import clean, fraction_words, plural
from narrun_async.reporting.measure_text import percent_of


def reviews_section(material: ReportMaterial) -> Section | None:
    """None where nothing was drawn."""
    if not material.reviews:
        return None
    blocks: list[Block] = []
    for review in material.reviews:
        blocks += _review(review, not_shown=material.not_shown)
    return Section(slug="review", title="Read by people", blocks=tuple(blocks))


def _review(review: ReviewFacts, *, not_shown: str) -> Sequence[Block]:
    used = " Its labels are the yardstick of this report." if review.is_used else ""
    facts = {
        "drawn": f"{review.drawn_at[:10]}, seed {review.seed}",
        "sample": f"{review.n_drawn:,} of {plural(review.n_population, 'narrative')} {_population_words(review)}",
        "strata": clean(review.strata) or "none",
        "allocation": clean(review.allocation),
        "readers": f"{review.n_readers:,}, of them {review.n_blinded:,} blinded to what the model said",
        "final labels": f"{review.n_final:,}",
    }
    if review.hides_agreement:
        facts["how far readers agree"] = not_shown
    else:
        facts["final labels"] += f", of them {review.n_adjudicated:,} by adjudication"
        facts["still disputed"] = f"{review.n_disputed:,}"
    blocks: list[Block] = [
        Heading(text=f"Review {review.review_id}"),
        Paragraph(
            text="Narratives were drawn at random within strata, and given to readers in workbooks. A label counts "
            f"with the inverse of its chance to be drawn (Horvitz and Thompson).{used}"
        ),
        Facts(items=tuple(Fact(name=name, value=value) for name, value in facts.items())),
    ]
    if review.pairs:
        rows = tuple(
            Row(
                head=f"{pair.first} and {pair.second}",
                cells=(
                    f"{pair.n_agreed:,} of {pair.n:,}",
                    percent_of(pair.n_agreed / pair.n if pair.n else None),
                    fraction_words(pair.kappa),
                    f"{pair.n_undecided:,}",
                ),
            )
            for pair in review.pairs
        )
        caption = "How far readers agree"
        blocks.append(
            Table(caption=caption, head=("Readers", "Agree", "Share", "Cohen's kappa", "Could not tell"), rows=rows)
        )
    return blocks


def _population_words(review: ReviewFacts) -> str:
    return "that had an answer in another experiment" if review.is_drawn_elsewhere else "that had an answer"
