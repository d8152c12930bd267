"""Human review: a sample of narratives, the workbooks that carry it to readers, and the labels that come back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NewType

from narrun_async.models.ids import ExperimentId, NarrativeId

ReviewId = NewType("ReviewId", int)
#: a random id that stands in a workbook and in the database
WorkbookId = NewType("WorkbookId", str)


class ReaderRole(StrEnum):
    """Who fills a workbook."""

    #: reads on their own
    REVIEWER = "reviewer"
    #: decides where reviewers differ
    ADJUDICATOR = "adjudicator"


class Label(StrEnum):
    """What a reader may say."""

    YES = "yes"
    NO = "no"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """A sample that was drawn from an experiment; the fields are columns of `reviews`."""

    review_id: ReviewId
    experiment_id: ExperimentId
    #: UTC, ISO 8601
    drawn_at: str
    seed: int
    #: what the population was divided by, comma-separated
    strata: str
    #: upper ends of the bands of confidence, comma-separated
    bands: str
    allocation: str
    #: narratives with an answer when it was drawn
    n_population: int
    n_drawn: int
    narrun_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewItem:
    """One narrative of a sample."""

    narrative_id: NarrativeId
    #: what it is called in every workbook, such as `R3-0042`; says nothing about it
    item_key: str
    stratum: str
    stratum_size: int
    stratum_drawn: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewNarrative:
    """What a workbook shows of an item."""

    item_key: str
    narrative_id: NarrativeId
    incident_id: str
    narrative_type: str
    narrative_text: str | None = field(repr=False)
    #: the experiment's answer; None where it has none any more
    detected: bool | None
    confidence: float | None
    #: as stored, a JSON array
    indicators: str | None = field(repr=False)
    rationale: str | None = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewWorkbook:
    """One file that was written for one reader; the fields are columns of `review_workbooks`."""

    workbook_id: WorkbookId
    review_id: ReviewId
    reader: str
    role: ReaderRole
    #: it does not show what the model said
    is_blinded: bool
    #: UTC, ISO 8601
    written_at: str
    path: str
    #: the keys of its rows, in their order
    item_keys: Sequence[str] = field(repr=False)


#: what a workbook is recognised by: the sheet with the rows, and a hidden one with its id
REVIEW_SHEET, IDENTITY_SHEET = "review", "_narrun"
#: what stands in the first cell of the hidden sheet, above the workbook's id
IDENTITY_MARK = "narrun review workbook 1"
#: columns that are read back, by their names in the first row
KEY_COLUMN, TEXT_COLUMN, LABEL_COLUMN, COMMENT_COLUMN = "key", "narrative_text", "label", "comment"
WRITTEN_COLUMNS = (KEY_COLUMN, "incident_id", "narrative_type", TEXT_COLUMN)


@dataclass(frozen=True, slots=True, kw_only=True)
class FilledRow:
    """One row of a workbook that came back; None where a cell is blank."""

    #: 1-based row of the sheet
    row: int
    item_key: str | None
    incident_id: str | None
    narrative_type: str | None
    #: in the form in which texts are compared; empty where the cell is blank
    narrative_text: str = field(repr=False)
    label: str | None
    comment: str | None = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class FilledWorkbook:
    """A workbook that came back, as it is."""

    path: str
    file_sha256: str
    workbook_id: WorkbookId
    rows: Sequence[FilledRow] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadLabel:
    """What one reader said of one narrative."""

    item_key: str
    label: Label
    #: may quote the narrative
    comment: str | None = field(repr=False, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelImport:
    """One filled workbook that was taken in. The latest one of a workbook counts; earlier ones are kept."""

    workbook_id: WorkbookId
    #: UTC, ISO 8601
    imported_at: str
    file_name: str
    file_sha256: str
    labels: Sequence[ReadLabel] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewState:
    """A review as it stands: its items, its workbooks, and the labels that count."""

    review: Review
    items: Sequence[ReviewItem] = field(repr=False)
    workbooks: Sequence[ReviewWorkbook]
    #: reader → item key → label; of workbooks that were taken in
    labels: Mapping[WorkbookId, Mapping[str, ReadLabel]] = field(repr=False)
    #: file hashes of the imports that count
    imported: Mapping[WorkbookId, str]
