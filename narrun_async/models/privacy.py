"""What a database holds of narratives, which files belong to it, and how both were taken away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from narrun_async.models.ids import NarrativeId


@dataclass(frozen=True, slots=True, kw_only=True)
class TextHoldings:
    """Where a database holds narratives, or what may quote them."""

    #: `table.column` → rows in which it holds something, in the order of the schema; columns that hold nothing too
    counts: Mapping[str, int]
    #: tables and views of other programs in the same file; nobody here knows what they hold
    foreign_tables: tuple[str, ...] = ()

    @property
    def n_values(self) -> int:
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrubRecord:
    """One `narrun scrub`, as the database remembers it."""

    #: UTC, ISO 8601
    scrubbed_at: str
    narrun_version: str
    host: str
    #: texts of narratives up to this one were removed; what was loaded later is untouched
    last_narrative_id: NarrativeId
    n_narratives: int
    #: those that were set aside, too
    n_results: int
    #: calls of the ledger whose sentence was removed
    n_calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftAlone:
    """Something that was expected to be ours and is not certain to be."""

    path: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFiles:
    """What belongs to a database."""

    #: in the order in which they are to go
    files: Sequence[Path]
    #: to be removed if they are empty then
    directories: Sequence[Path] = ()
    left: Sequence[LeftAlone] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovedFile:
    """A file that is gone, as the certificate names it."""

    path: str
    size_bytes: int
    #: of what it held
    sha256: str
    #: False: it has other names, under which it must stay as it is
    is_overwritten: bool
