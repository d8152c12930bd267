"""What the predecessor left in a database, and what was changed of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from narrun_async.models.experiments import Cohort
from narrun_async.models.ids import ExperimentId, NarrativeId

#: how R writes a large round number that it takes for a text: one digit, perhaps more of them, an exponent; each number
#: in one way, so that no two ids stand for the same
_AS_R_WRITES = re.compile(r"(?P<first>[1-9])(?:\.(?P<more>[0-9]{0,13}[1-9]))?e\+(?P<exponent>[0-9]{2}|[1-9][0-9]{2})")
#: R writes at most so many significant digits; of a longer number the last ones are gone
_DIGITS_OF_R = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class OddId:
    """An id that R wrote as a number with an exponent."""

    written: str
    #: None: the number has more digits than R writes, so nobody can know it again
    stands_for: str | None


def read_odd_id(written: str) -> OddId | None:
    """What `1e+05` stands for; None for an id that is not so written."""
    match = _AS_R_WRITES.fullmatch(written)
    if match is None:
        return None
    digits, exponent = match["first"] + (match["more"] or ""), int(match["exponent"])
    zeros = exponent + 1 - len(digits)
    if zeros < 0:
        return None  # a fraction, which no id is
    return OddId(written=written, stands_for=digits + "0" * zeros if exponent < _DIGITS_OF_R else None)


# --- ids -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class IdRow:
    """A row whose id is odd, or is what an odd one stands for."""

    #: None: a narrative, or a result that names no experiment
    experiment_id: ExperimentId | None
    is_narrative: bool
    #: narrative_id or result_id
    row_id: int
    incident_id: str
    narrative_type: str | None

    @property
    def key(self) -> tuple[str, str | None]:
        return self.incident_id, self.narrative_type


@dataclass(frozen=True, slots=True, kw_only=True)
class IdRepair:
    """A row that is to get the id which its odd one stands for."""

    row: IdRow
    stands_for: str


class IdObstacle(StrEnum):
    """Why an odd id stays."""

    UNKNOWN = "R wrote 15 digits of it, so it cannot be known again"
    NARRATIVE_TAKEN = "another narrative has that id already"
    RESULT_TAKEN = "the same experiment has a result under that id already"
    FOLLOWS_NARRATIVE = "its narrative keeps it"


@dataclass(frozen=True, slots=True, kw_only=True)
class IdLeft:
    """A row whose odd id stays as it is."""

    row: IdRow
    stands_for: str | None
    obstacle: IdObstacle


@dataclass(frozen=True, slots=True, kw_only=True)
class IdPlan:
    """What repairing the odd ids of a database would do."""

    repairs: Sequence[IdRepair] = ()
    left: Sequence[IdLeft] = ()


# --- rows ------------------------------------------------------------------------------------------------------------


class SetAsideReason(StrEnum):
    """Why result rows of the predecessor cannot stay among the results."""

    DUPLICATE = "duplicate"
    OUTSIDE = "outside the cohort"


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """Result rows of one experiment that went, or would go, to `legacy_results`."""

    #: None: rows that name no experiment
    experiment_id: ExperimentId | None
    reason: SetAsideReason
    n_before: int
    n_moved: int
    #: UTC, ISO 8601; None: not done
    set_aside_at: str | None = None

    @property
    def n_after(self) -> int:
        return self.n_before - self.n_moved


@dataclass(frozen=True, slots=True, kw_only=True)
class Migrated:
    """What bringing a database up to date did."""

    #: the file as it was; None where nothing had to be done, or nothing was there
    backup: Path | None = None
    #: results that could not stay beside others of the same narrative
    set_aside: Sequence[SetAside] = ()
    #: the file, which others can read as they could before; None where they cannot, or nothing was done
    open_to_others: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationForecast:
    """What bringing a database up to date would do."""

    schema_version: int
    known_schema_version: int
    #: results that could not stay beside others of the same narrative
    set_aside: Sequence[SetAside] = ()
    #: as they would be afterwards
    rows_of_odd_ids: Sequence[IdRow] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LegacySurvey:
    """The results of an experiment of the predecessor, counted against a data source.

    Rows of no narrative of it count in `n_outside`, `response_sec` and the moments, and in nothing else.
    """

    n_success: int
    n_errors: int
    #: rows of no narrative of this source
    n_outside: int
    #: the last narrative of the source that has a result; 0 where none has
    last_narrative_id: NarrativeId
    #: its place in the source, from 1
    last_rank: int
    n_detected: int
    n_not_detected: int
    n_true_positive: int
    n_false_positive: int
    n_false_negative: int
    n_true_negative: int
    response_sec: float
    #: local text, as R wrote it
    first_processed_at: str | None
    last_processed_at: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRun:
    """The predecessor's own work on an experiment, as a row of `runs`; the fields are its columns."""

    host: str | None
    api_url: str | None
    started_at: datetime
    ended_at: datetime | None
    runtime_s: float
    n_saved: int
    ended_why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptionRecord:
    """What taking up an experiment of the predecessor writes, all of it in one transaction."""

    experiment_id: ExperimentId
    cohort: Cohort
    #: columns of `experiments` → new values
    columns: Mapping[str, object]
    past: PastRun


@dataclass(frozen=True, slots=True, kw_only=True)
class Inheritance:
    """What a database holds of the predecessor's."""

    #: experiments that it left and nobody has taken up
    n_untouched: int = 0
    #: experiments that were taken up
    n_adopted: int = 0
    #: result rows that it wrote and that are still among the results
    n_results: int = 0
    set_aside: Sequence[SetAside] = ()
    #: ids that were repaired, row by row
    n_ids_repaired: int = 0
    #: columns of experiments that were overwritten when they were taken up
    n_columns_overwritten: int = 0

    @property
    def is_nothing(self) -> bool:
        return not (self.n_untouched or self.n_adopted or self.n_results or self.set_aside or self.n_ids_repaired)
