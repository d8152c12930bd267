"""Files of narratives, and what ingesting them did."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum

from narrun_async.models.ids import NarrativeType

#: what a source is known by whose file left no checksum: this, and 32 hex digits drawn from its rows
ROWS_IDENTITY = "rows-"


def text_sha256(text: str) -> str:
    """What a text is known by: SHA-256 hex of its UTF-8 bytes (2 µs for 1,500 characters).

    Any text has one, those of the predecessor with lone surrogates, too.
    """
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class TextFlag(StrEnum):
    """What makes a text a doubtful one, as far as it shows. Stored; never renamed."""

    #: it stands where a narrative would, and says that there is none
    PLACEHOLDER = "placeholder"
    #: hardly a word in it, and no known placeholder
    NEAR_EMPTY = "near_empty"
    #: something cut its end off before it came here
    TRUNCATED = "truncated"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceNarrative:
    """One narrative as a workbook or table gives it, after normalisation (design §5, faults §1)."""

    #: text, never a number; stripped
    incident_id: str
    narrative_type: NarrativeType
    #: canonical text: LF line ends, no NUL, no lone surrogates, never blank
    narrative_text: str = field(repr=False)
    #: SHA-256 hex of the UTF-8 bytes of the canonical text
    text_sha256: str
    #: 0/1: the flag of this narrative; None where unlabelled
    manual_flag_ind: int | None
    #: 0/1: the flag of the case; None where unlabelled
    manual_flag: int | None
    #: 1-based row of the file it came from
    row: int
    #: of the incident; None where the file does not say
    incident_year: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSummary:
    """What a file held besides its narratives; known once all of it has been read."""

    n_cases: int = 0
    #: blank or whitespace-only cells, dropped
    n_blank: int = 0
    #: rows without an id, dropped because `--skip-blank-ids` was given
    n_blank_ids: int = 0
    #: texts in which characters were replaced or decoded to make them canonical
    n_texts_repaired: int = 0
    #: one sentence each, no text in them
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestRecord:
    """What one file held besides the narratives that were loaded from it; the fields are columns of `ingests`."""

    #: incidents with an id
    n_cases: int
    #: blank or whitespace-only cells, dropped
    n_blank: int
    #: rows without an id, dropped
    n_blank_ids: int
    n_texts_repaired: int
    #: same key and same text, collapsed
    n_duplicates: int
    #: same key and different text, dropped
    n_conflicts_dropped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Screening:
    """One look at every text of a data source, as the database remembers it."""

    #: what the rule file calls itself
    rules_name: str
    #: SHA-256 hex of the rule file's bytes
    rules_sha256: str
    #: UTC, ISO 8601
    screened_at: str
    #: texts that were looked at; those that were scrubbed before could not be
    n_screened: int
    n_placeholder: int
    n_near_empty: int
    n_truncated: int
    #: narratives whose text is that of an earlier one of the same source, placeholders apart
    n_identical: int

    @property
    def rules(self) -> str:
        return f"{self.rules_name} (sha256 {self.rules_sha256[:12]})"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSource:
    """One workbook or table that the database holds."""

    #: the path as it was given
    path: str
    #: SHA-256 hex of the file's bytes; of what the predecessor loaded its MD5, or an identity drawn from the rows
    checksum: str
    n_narratives: int
    #: local `YYYY-MM-DD HH:MM:SS`
    loaded_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestReport:
    """What an ingest did; printed as the summary."""

    source: DataSource
    #: False when the file, or all of its rows, were in the database already
    loaded: bool
    #: the file is gone; the database has its narratives
    is_missing: bool = False
    #: the latest; None where the texts were never looked at
    screening: Screening | None = None
    summary: SourceSummary = SourceSummary()
    n_cme: int = 0
    n_le: int = 0
    n_labelled: int = 0
    n_positive: int = 0
    #: same key and same text, collapsed
    n_duplicates: int = 0
    #: same key and different text, dropped because `--on-conflict first` was given
    n_conflicts_dropped: int = 0
