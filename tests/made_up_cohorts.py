"""Owns cohorts whose truth is known: rows as a store would yield them, drawn from stated rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from narrun_async.models import CohortRow


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What a cohort is drawn from."""

    n_incidents: int
    #: of incidents that are positive; their narratives say so with `told`, those of others never
    prevalence: float = 0.1
    told: float = 0.9
    sensitivity: float = 0.875
    specificity: float = 0.96
    #: of answers of one incident that share one coin instead of having one each: 0 independent, 1 the same
    likeness: float = 0.0
    #: of incidents that have an LE narrative beside the CME one
    both: float = 0.8
    labelled: float = 1.0
    failed: float = 0.0
    missing: float = 0.0


def make_row(
    incident_id: str = "case1",
    narrative_type: str = "cme",
    *,
    detected: int | None = None,
    label: int | None = None,
    case_label: int | None = None,
    confidence: float | None = None,
    error: str | None = None,
    skipped: str | None = None,
    copied_from: int | None = None,
    has_result: bool = True,
    text_chars: int | None = 1000,
    text_flags: str | None = None,
    year: int | None = None,
) -> CohortRow:
    """One narrative; answered if `detected` is given."""
    return CohortRow(
        incident_id=incident_id,
        narrative_type=narrative_type,
        manual_flag_ind=label,
        manual_flag=case_label,
        text_chars=text_chars,
        text_flags=text_flags,
        has_result=has_result,
        detected=detected,
        confidence=confidence,
        error_category=error,
        skip_reason=skipped,
        copied_from=copied_from,  # type: ignore[arg-type]  # a number is enough
        incident_year=year,
    )


def rows_of_table(tp: int, fp: int, fn: int, tn: int) -> list[CohortRow]:
    """A narrative an incident, with answers and labels that make this table."""
    cells = [(1, 1)] * tp + [(1, 0)] * fp + [(0, 1)] * fn + [(0, 0)] * tn
    return [
        make_row(f"case{number}", detected=detected, label=label, case_label=label, confidence=0.8)
        for number, (detected, label) in enumerate(cells)
    ]


def draw_cohort(rates: Rates, seed: int) -> Sequence[CohortRow]:
    """The same seed draws the same cohort."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(rates.n_incidents):
        is_case = rng.random() < rates.prevalence
        is_labelled = rng.random() < rates.labelled
        kinds = ("cme", "le") if rng.random() < rates.both else ("cme",)
        common, told_coin = rng.random(), rng.random()
        truths = [is_case and (told_coin if rates.likeness else rng.random()) < rates.told for _ in kinds]
        for kind, truth in zip(kinds, truths, strict=True):
            coin = common if rng.random() < rates.likeness else rng.random()
            says_yes = coin < rates.sensitivity if truth else coin < 1 - rates.specificity
            fate = rng.random()
            is_missing, is_failed = fate < rates.missing, rates.missing <= fate < rates.missing + rates.failed
            is_answered = not (is_missing or is_failed)
            rows.append(
                make_row(
                    f"case{number}",
                    kind,
                    detected=int(says_yes) if is_answered else None,
                    label=int(truth) if is_labelled else None,
                    case_label=int(any(truths)) if is_labelled else None,
                    confidence=round(0.5 + rng.random() / 2, 2) if is_answered else None,
                    error="timeout" if is_failed else None,
                    has_result=not is_missing,
                    text_chars=int(rng.integers(200, 3000)),
                )
            )
    return rows
