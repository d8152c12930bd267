"""The tree of values that a report is made of: the evaluation, and what only a report shows beside it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from narrun_async.analysis.evaluation_tree import EvaluationReport, Level
from narrun_async.analysis.values import Measure


class Withheld(StrEnum):
    """What is not shown because a count of people in it is small, or could be computed from what is shown."""

    #: how many incidents are detected, and all that follows from it
    INCIDENTS = "incidents"
    #: how many narratives are
    NARRATIVES = "narratives"
    #: the comparison of incidents with labels, and all that follows from it
    LABELS_OF_INCIDENTS = "labels of incidents"
    LABELS_OF_NARRATIVES = "labels of narratives"
    #: CME and LE narratives apart from each other
    KINDS = "kinds"
    LABELS_OF_KINDS = "labels of kinds"
    #: incidents of which both narratives are answered
    BOTH = "both"
    LABELS_OF_BOTH = "labels of both"
    #: the table of CME against LE answers
    CME_LE = "cme and le"
    #: intervals that allow for the narratives of an incident being alike; those shown take them for strangers
    CLUSTERS = "clusters"
    #: what errors leave open
    ERROR_BOUNDS = "error bounds"
    #: single years were put together
    SINGLE_YEARS = "single years"
    YEARS = "years"
    #: bands of confidence were put together
    SINGLE_BANDS = "single bands"
    CONFIDENCE = "confidence"
    #: confidence against labels
    CALIBRATION = "calibration"
    #: the precision-recall curve, each step of which is a person
    CURVE = "curve"
    #: indicators that few narratives share
    INDICATORS = "indicators"


#: what has to be shown for the detections of a level, and for its labels
DETECTIONS_OF = {
    Level.NARRATIVES: Withheld.NARRATIVES,
    Level.CME: Withheld.KINDS,
    Level.LE: Withheld.KINDS,
    Level.INCIDENTS: Withheld.INCIDENTS,
    Level.INCIDENTS_WITH_BOTH: Withheld.BOTH,
}
LABELS_OF = {
    Level.NARRATIVES: Withheld.LABELS_OF_NARRATIVES,
    Level.CME: Withheld.LABELS_OF_KINDS,
    Level.LE: Withheld.LABELS_OF_KINDS,
    Level.INCIDENTS: Withheld.LABELS_OF_INCIDENTS,
    Level.INCIDENTS_WITH_BOTH: Withheld.LABELS_OF_BOTH,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class YearGroup:
    """The answered narratives of one kind, or the incidents, of one or several years."""

    #: `cme`, `le`, or `incidents`
    kind: str
    #: sorted; empty: the year is not known
    years: tuple[int, ...]
    #: narratives of unknown year are among them
    has_unknown: bool
    #: share of the answered ones
    detected: Measure


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfidenceBand:
    """Answers whose stated confidence lies in [low, high), the last band including 1."""

    low: float
    high: float
    n_yes: int
    n_no: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CourseBin:
    """A stretch of working time. Time between runs is left out."""

    #: since the first run began to call
    start_s: float
    end_s: float
    #: calls that gave an answer, and calls that failed, a second
    answers_per_s: float
    failures_per_s: float
    #: on average over the stretch
    in_flight: float
    #: of the calls that gave an answer and ended here; None where there are none
    latency_median_s: float | None
    latency_p95_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStretch:
    """Where a run lies in working time, from its first call to the end of its last."""

    run_id: int
    start_s: float
    end_s: float
    n_calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyBin:
    """Calls that gave an answer within [low_s, high_s)."""

    low_s: float
    high_s: float
    n_calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How the calls went, from the ledger."""

    n_calls: int
    n_failed: int
    #: of calls that gave an answer, in seconds; None where none did
    latency_median_s: float | None
    latency_p95_s: float | None
    latency_max_s: float | None
    #: most calls in flight at one moment
    peak_in_flight: int
    #: from the first call of each run to the end of its last, summed
    working_s: float
    bins: tuple[CourseBin, ...]
    runs: tuple[RunStretch, ...]
    latencies: tuple[LatencyBin, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class IndicatorCount:
    """An indicator, spelled as most narratives spell it, and the narratives that it was found in."""

    indicator: str
    n_narratives: int
    #: by the answer that it was given for; None where they are not told apart
    n_yes: int | None
    n_no: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportAnalysis:
    """All that is computed for a report. What is withheld is not in it."""

    evaluation: EvaluationReport
    #: what a reader should know of how the answers were judged, one sentence each
    remarks: tuple[str, ...]
    #: by kind, then by time; empty where no year is known, or nothing may be shown
    by_year: tuple[YearGroup, ...]
    #: answered narratives whose year is not known; 0 where small counts are not shown
    n_without_year: int
    bands: tuple[ConfidenceBand, ...]
    #: None where the ledger holds no call
    course: Course | None
    withheld: frozenset[Withheld]
    #: counts of people below it are not shown; None: all are
    suppress_below: int | None
