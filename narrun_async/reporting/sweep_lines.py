"""Puts the experiments of a sweep into one table: ranked where labels allow it, in their own order where not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from narrun_async.config.sweeps import short_names
from narrun_async.models import Experiment, ExperimentStatus
from narrun_async.reporting.summary import ExperimentSummary
from narrun_async.reporting.tables import SIMULATED_NOTICE
from narrun_async.reporting.wording import aligned, percent_text


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRow:
    """One experiment of a sweep, and what it holds."""

    experiment_id: str
    #: from 1
    position: int
    #: axis → its value in words
    settings: Mapping[str, str]
    status: ExperimentStatus
    summary: ExperimentSummary

    @classmethod
    def of(cls, experiment: Experiment, summary: ExperimentSummary) -> Self:
        columns = experiment.columns
        return cls(
            experiment_id=experiment.experiment_id,
            position=int(str(columns["sweep_position"])),
            settings=json.loads(str(columns["sweep_settings"])),
            status=experiment.status,
            summary=summary,
        )


def ranking_lines(rows: Sequence[SweepRow], *, simulated: bool) -> list[str]:
    """A line an experiment, the best F1 first; without labels in the order of the matrix.

    What the ranking is worth is said below it: on one set of labels the best of many is partly luck.

    :param rows: at least one, all of the same axes
    """
    n_labelled = max(row.summary.confusion.n_labelled for row in rows)
    ranked = sorted(rows, key=lambda row: (_merit(row) if n_labelled else (False, 0.0), row.position))
    axes = list(rows[0].settings)
    names = short_names(axes)
    header = ("", *names, "status", "rows", "errors", "detected", "TP", "FP", "FN", "precision", "recall", "F1", "id")
    places = [1 + sum(_merit(other) < _merit(row) for other in rows) if n_labelled else row.position for row in ranked]
    cells = [
        (str(place), *(row.settings.get(axis, "") for axis in axes), *_cells(row))
        for place, row in zip(places, ranked, strict=True)
    ]
    n_left = 1 + len(axes)
    numbers = frozenset({0, *range(n_left + 1, n_left + 10)})
    lines = aligned([header, *cells], right=numbers)
    if n_labelled:
        n_positive = max(row.summary.confusion.tp + row.summary.confusion.fn for row in rows)
        lines += [
            f"{len(rows)} experiments were judged on the same {n_labelled:,} labelled narratives ({n_positive:,}"
            " positive): differences of a few",
            "cases are within chance, and the best of many is partly luck.",
        ]
    else:
        lines.append("no narrative has a manual label: nothing says which of these is better")
    return [*lines, SIMULATED_NOTICE] if simulated else lines


def _merit(row: SweepRow) -> tuple[bool, float]:
    """Smaller is better; equal ones share a place."""
    f1 = row.summary.metrics.f1
    return (f1 is None, -(f1 or 0.0))


def _cells(row: SweepRow) -> tuple[str, ...]:
    counts, confusion, metrics = row.summary.counts, row.summary.confusion, row.summary.metrics
    n_answers = row.summary.n_detected + row.summary.n_not_detected
    return (
        row.status.value,
        f"{counts.n_success + counts.n_errors:,}",
        f"{counts.n_errors:,}",
        percent_text(row.summary.n_detected, n_answers) if n_answers else "-",
        *(f"{count:,}" for count in (confusion.tp, confusion.fp, confusion.fn)),
        *("-" if value is None else f"{value:.3f}" for value in (metrics.precision, metrics.recall, metrics.f1)),
        row.experiment_id[:8],
    )
