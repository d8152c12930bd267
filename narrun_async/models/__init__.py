"""The nouns of the program as frozen values; no behaviour beyond what a value knows of itself.

Texts, prompts and answers are `repr=False`: a value that lands in a log or a traceback shows none of them.
Times are UTC `datetime`s unless a name says otherwise; `_s` are seconds.
"""

from narrun_async.models.calls import (
    NO_USAGE,
    Attempt,
    Detection,
    Envelope,
    ErrorCategory,
    Failure,
    Outcome,
    Prices,
    RawReply,
    Serving,
    Usage,
    Verdict,
    WorkItem,
    WriterMessage,
)
from narrun_async.models.experiments import (
    AnswerFormat,
    CanaryCounts,
    Cohort,
    Experiment,
    ExperimentStatus,
    NewExperiment,
    PageCursor,
    ProgressMark,
    ResultCounts,
    RunEnd,
    RunMode,
    RunRecord,
    RunStart,
    Selection,
)
from narrun_async.models.ids import ExperimentId, NarrativeId, NarrativeType, RunId
from narrun_async.models.privacy import FoundFiles, LeftAlone, RemovedFile, ScrubRecord, TextHoldings
from narrun_async.models.sources import DataSource, IngestReport, SourceNarrative, SourceSummary, text_sha256
from narrun_async.models.verification import InvariantFinding

__all__ = [
    "NO_USAGE",
    "AnswerFormat",
    "Attempt",
    "CanaryCounts",
    "Cohort",
    "DataSource",
    "Detection",
    "Envelope",
    "ErrorCategory",
    "Experiment",
    "ExperimentId",
    "ExperimentStatus",
    "Failure",
    "FoundFiles",
    "IngestReport",
    "InvariantFinding",
    "LeftAlone",
    "NarrativeId",
    "NarrativeType",
    "NewExperiment",
    "Outcome",
    "PageCursor",
    "Prices",
    "ProgressMark",
    "RawReply",
    "RemovedFile",
    "ResultCounts",
    "RunEnd",
    "RunId",
    "RunMode",
    "RunRecord",
    "RunStart",
    "ScrubRecord",
    "Selection",
    "Serving",
    "SourceNarrative",
    "SourceSummary",
    "TextHoldings",
    "Usage",
    "Verdict",
    "WorkItem",
    "WriterMessage",
    "text_sha256",
]
