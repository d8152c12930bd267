"""The tree of values that evaluating one experiment gives: for lines, for `--json`, for a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from narrun_async.analysis.values import Agreement, Bounds, Confusion, Measure, Performance, Share


class Level(StrEnum):
    """What is counted as one."""

    NARRATIVES = "narratives"
    CME = "cme narratives"
    LE = "le narratives"
    #: an incident is positive if any of its answered narratives is
    INCIDENTS = "incidents"
    #: the same, over incidents whose CME and LE narratives both have an answer
    INCIDENTS_WITH_BOTH = "incidents with both"


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """What became of a cohort: eligible = missing + skipped + sent + copied; sent + copied = answered + errors."""

    n_eligible: int
    n_incidents: int
    #: flagged when they were ingested; None: nobody looked
    n_placeholders: int | None
    n_near_empty: int | None
    n_truncated: int | None
    #: have no row yet
    n_missing: int
    #: by reason, most frequent first
    skipped: Mapping[str, int]
    #: have the answer of a narrative with the same text
    n_copied: int
    n_sent: int
    #: by category, most frequent first; errors that were copied included
    errors: Mapping[str, int]
    #: have an answer, asked or copied
    n_answered: int
    #: of those
    n_unlabelled: int
    n_evaluated: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitCounts:
    """The denominators of one level. An incident counts as answered if one of its narratives is."""

    n_units: int
    n_answered: int
    n_detected: int
    #: no answer, because of an error
    n_errors: int
    n_skipped: int
    n_missing: int
    #: have a label, answered or not
    n_labelled: int
    #: have both
    n_evaluated: int
    #: incidents that the evaluated ones belong to
    n_clusters: int

    @property
    def is_all_evaluated(self) -> bool:
        """Every answer has a label, so that the labels themselves say how common it is."""
        return self.n_evaluated == self.n_answered > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorBounds:
    """The measures if errors had all been answered wrongly, and if rightly; labelled units only.

    An incident is open while one of its narratives is an error and none of the others is detected.
    """

    n_open: int
    sensitivity: Bounds
    specificity: Bounds
    ppv: Bounds
    npv: Bounds
    f1: Bounds
    #: share detected, labelled or not: if all that is open were negative, and if positive
    apparent: Bounds
    #: open units, labelled or not
    n_open_all: int
    #: of which `apparent` is the share: answered or open
    n_units: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Validity:
    """How well answers are known to find what the labels say."""

    sensitivity: Share
    specificity: Share
    #: in words, for people
    source: str
    #: from labels of the very units whose rate is to be corrected
    is_own: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictiveValues:
    """What a yes and a no would be worth where the thing is more or less common."""

    prevalence: float
    ppv: Measure
    npv: Measure


@dataclass(frozen=True, slots=True, kw_only=True)
class Prevalence:
    """How common the thing is: as detected, and corrected for what the answers miss and invent."""

    #: share of the answered units that is detected
    apparent: Measure
    #: None where nothing is known of it
    validity: Validity | None
    #: of all that the cohort stands for, if its labelled part is as hard as the rest (Rogan-Gladen)
    corrected: Measure
    #: whether the corrected interval reaches zero; None where there is none
    includes_zero: bool | None
    #: share labelled positive among the evaluated; the cohort's only if the labelled are a random sample of it
    labelled: Measure
    #: share detected among the evaluated, to be held against `apparent`
    apparent_of_labelled: Measure
    predictive_values: tuple[PredictiveValues, ...]
    #: sentences that a reader should know
    remarks: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelReport:
    """One level: everything about it."""

    level: Level
    counts: UnitCounts
    confusion: Confusion
    performance: Performance
    #: of answers and labels
    agreement: Agreement
    if_errors: ErrorBounds
    prevalence: Prevalence


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthBin:
    """A tenth of the narratives by length of text."""

    #: characters, both included
    shortest: int
    longest: int
    failed: Measure


@dataclass(frozen=True, slots=True, kw_only=True)
class FailuresByLength:
    """Whether errors fall on texts of any length alike."""

    bins: tuple[LengthBin, ...]
    #: Cochran-Armitage test for a trend over the bins; None where there is nothing to test
    p_trend: float | None
    #: have a row, but their text is gone
    n_without_length: int
    remark: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationBin:
    """Answers whose stated confidence lies in [low, high), the last bin including 1."""

    low: float
    high: float
    #: all answers, labelled or not
    n_answers: int
    #: of the evaluated ones; None where there is none
    mean_confidence: float | None
    #: share of the evaluated ones that agree with the label
    right: Measure


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionRecallPoint:
    """What detecting at a threshold would give, if the answer were `P(yes) ≥ threshold`."""

    threshold: float
    precision: float
    recall: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Whether the model is right as often as it says; confidence is that in its own answer, yes or no."""

    n_without_confidence: int
    mean_confidence: float | None
    right: Measure
    bins: tuple[CalibrationBin, ...]
    #: mean squared distance of P(yes) from the label: 0 is perfect; 0.25 is what always saying a half gives
    brier: Measure
    #: of always saying the labelled rate, for comparison
    brier_of_base_rate: float | None
    #: area under the precision-recall curve as a sum of steps
    average_precision: Measure
    curve: tuple[PrecisionRecallPoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The experiment that is evaluated, for headings."""

    experiment_id: str
    name: str
    #: the answers come from a keyword rule and mean nothing
    is_simulated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationReport:
    """All that the answers of one experiment are worth."""

    subject: Subject
    #: where the labels come from, in words
    labels: str
    flow: Flow
    #: in the order of `Level`, those that the cohort has
    levels: tuple[LevelReport, ...]
    #: of the answers about the CME and the LE narrative of the same incident
    cme_le: Agreement
    calibration: Calibration
    failures_by_length: FailuresByLength
    n_resamples: int
    seed: int
    remarks: tuple[str, ...]
