"""What a report is written from: everything that was counted, computed and read, and nothing that may not be shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from narrun_async.analysis.evaluation_tree import EvaluationReport, Level, LevelReport
from narrun_async.analysis.report_tree import LABELS_OF, IndicatorCount, ReportAnalysis, Withheld
from narrun_async.analysis.values import Measure
from narrun_async.models import (
    CanaryCounts,
    DataSource,
    Experiment,
    ExperimentStatus,
    IngestRecord,
    RunRecord,
    Screening,
    ScrubRecord,
    ServingUse,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderPairFacts:
    """Two people who read the same texts. They are known by numbers: a report goes to strangers."""

    first: int
    second: int
    n: int
    n_agreed: int
    #: texts of which one of them could not tell
    n_undecided: int
    #: beyond chance
    kappa: Measure


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewFacts:
    """A sample that people have read, or are reading."""

    review_id: int
    #: UTC, ISO 8601
    drawn_at: str
    seed: int
    strata: str
    allocation: str
    n_population: int
    n_drawn: int
    n_final: int
    n_adjudicated: int
    n_disputed: int
    n_readers: int
    #: readers who do not see what the model said
    n_blinded: int
    pairs: Sequence[ReaderPairFacts]
    #: on how many texts readers differ may not be shown: `pairs` is empty, and nothing is said of disputes
    hides_agreement: bool
    #: by the answers of another experiment
    is_drawn_elsewhere: bool
    #: the report's labels are those of this review
    is_used: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportMaterial:
    """All of it."""

    experiment: Experiment
    #: as people are told it
    status: ExperimentStatus
    is_simulated: bool
    source: DataSource | None
    #: None where the file was loaded before anybody noted it
    ingest: IngestRecord | None
    #: by which placeholders were known; None where nobody looked
    screening: Screening | None
    canaries: CanaryCounts
    #: of all calls, failed ones included
    prompt_tokens: int
    completion_tokens: int
    #: calls that went through batches of the provider, which the course of the calls leaves out
    n_batched_calls: int
    analysis: ReportAnalysis
    #: the settings of the snapshot by dotted key, prompts by their hash
    settings: Mapping[str, str] = field(repr=False)
    system_prompt: str | None = field(repr=False)
    user_template: str | None = field(repr=False)
    #: who approved that narratives leave for other addresses; None: nobody had to
    approval_note: str | None
    runs: Sequence[RunRecord]
    servings: Sequence[ServingUse]
    #: experiments of this database that were judged on labels of the same file, this one included
    n_configurations: int
    #: by number
    reviews: Sequence[ReviewFacts]
    scrub: ScrubRecord | None
    #: None: they quote narratives, and were not asked for
    indicators: Sequence[IndicatorCount] | None = field(repr=False)
    #: UTC
    written_at: datetime
    narrun_version: str

    @property
    def evaluation(self) -> EvaluationReport:
        return self.analysis.evaluation

    def level(self, wanted: Level) -> LevelReport | None:
        """None where the cohort has none of these, or they may not be shown."""
        return next((one for one in self.evaluation.levels if one.level is wanted), None)

    def hides(self, *what: Withheld) -> bool:
        """Any of these may not be shown."""
        return not self.analysis.withheld.isdisjoint(what)

    def hides_labels(self, level: Level) -> bool:
        """What labels say of this level may not be shown."""
        return self.hides(LABELS_OF[level])

    @property
    def not_shown(self) -> str:
        """One sentence in the place of what is withheld."""
        return f"Not shown, because of counts of people below {self.analysis.suppress_below}."

    @property
    def review(self) -> ReviewFacts | None:
        """The one whose labels are the yardstick."""
        return next((one for one in self.reviews if one.is_used), None)

    def column(self, name: str) -> str | None:
        """A column of `experiments` as text; None where it is empty."""
        value = self.experiment.columns.get(name)
        return None if value in (None, "") else str(value)
