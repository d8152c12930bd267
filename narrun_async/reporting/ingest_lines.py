"""The summary of an ingest, as lines for people; counts only, no text and no ids."""

from __future__ import annotations

from collections.abc import Sequence

from narrun_async.models import DataSource, IngestReport, Screening
from narrun_async.reporting.tables import flags_text


def ingest_lines(report: IngestReport) -> Sequence[str]:
    """What was read, dropped and repaired."""
    source = report.source
    if report.is_missing:
        return [f"data       {source.path} is gone; the database holds its {source.n_narratives} narratives"]
    if not report.loaded:
        return [f"data       {source.path}: {source.n_narratives} narratives, already in the database"]
    summary = report.summary
    lines = [
        f"data       {source.path}: {source.n_narratives} narratives ({report.n_cme} CME, {report.n_le} LE)"
        f" in a file of {summary.n_cases} cases",
        f"           {report.n_labelled} labelled, {report.n_positive} of them positive",
    ]
    notable = [
        (summary.n_blank, "blank cells dropped"),
        (summary.n_blank_ids, "rows without an id dropped"),
        (report.n_duplicates, "exact duplicates collapsed"),
        (report.n_conflicts_dropped, "duplicates with other text dropped, the first was kept"),
        (summary.n_texts_repaired, "texts with repaired characters"),
    ]
    lines += [f"           {count} {what}" for count, what in notable if count]
    if report.screening is not None and (words := flags_text(report.screening)):
        lines.append(f"texts      {words}, by the rules {report.screening.rules}")
    return lines + [f"WARNING: {warning}" for warning in summary.warnings]


def screening_lines(source: DataSource, screening: Screening) -> Sequence[str]:
    """What a look at the texts of a source has shown."""
    lines = [
        f"data       {source.path}: {screening.n_screened} of {source.n_narratives} texts screened"
        f" by the rules {screening.rules}",
        f"texts      {flags_text(screening) or 'none is doubtful'}",
    ]
    if n_unseen := source.n_narratives - screening.n_screened:
        lines.append(f"           {n_unseen} were scrubbed before anybody looked, and have no flags")
    return lines
