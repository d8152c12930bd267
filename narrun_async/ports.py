"""The seams of the house: what the stages need of a database, an endpoint and a source file.

Only domain operations cross them, never SQL and never HTTP. The Store is split by consumer, so that a stage
sees no more of it than it uses; one adapter implements all parts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

from narrun_async.metrics import ConfusionCounts
from narrun_async.metrics.sampling import ReviewUnit
from narrun_async.models import (
    AdoptionRecord,
    AnswerIndicators,
    Batch,
    BatchId,
    BatchItem,
    BatchState,
    CallRecord,
    CanaryCounts,
    Cohort,
    CohortRow,
    Copy,
    DataSource,
    Experiment,
    ExperimentId,
    FlagCounts,
    IdRepair,
    IdRow,
    IngestRecord,
    IngestReport,
    Inheritance,
    InvariantFinding,
    LabelImport,
    LegacySurvey,
    NarrativeId,
    NewBatch,
    NewExperiment,
    PageCursor,
    ProgressMark,
    RawReply,
    RemoteBatch,
    RemoteFile,
    ResultCounts,
    Review,
    ReviewId,
    ReviewItem,
    ReviewNarrative,
    ReviewState,
    ReviewWorkbook,
    RunEnd,
    RunId,
    RunRecord,
    RunStart,
    Screening,
    ScrubRecord,
    Selection,
    Serving,
    ServingUse,
    Skip,
    SourceNarrative,
    SourceSummary,
    Sweep,
    SweepId,
    TextHoldings,
    UncalledCounts,
    WorkbookId,
    WorkItem,
    WriterMessage,
)
from narrun_async.retrying import CallFailure
from narrun_async.screening import ScreeningRules

ConflictRule = Literal["error", "first"]


class NarrativeSource(Protocol):
    """One workbook or table, opened once and read once."""

    @property
    def path(self) -> str:
        """The path as it was given."""

    @property
    def checksum(self) -> str:
        """SHA-256 hex of the file's bytes, the same bytes that `iter_narratives` reads."""

    def iter_narratives(self) -> Iterator[SourceNarrative]:
        """Every narrative in file order, CME before LE within a case.

        :raises BadInputError: at the first thing that cannot be taken as it is
        """

    def summary(self) -> SourceSummary:
        """What was dropped and repaired; complete once `iter_narratives` is exhausted."""


class ChatProvider(Protocol):
    """An endpoint. `complete` is one attempt: it never retries and never sleeps."""

    async def complete(self, body: bytes) -> RawReply:
        """POST one chat completion request and return whatever HTTP answer came.

        Cancelling it closes its connection. The deadline is the caller's.

        :param body: the JSON request, encoded
        :raises CallError: no HTTP answer came (see `retrying`)
        """

    async def aclose(self) -> None:
        """Close every connection."""


class BatchProvider(Protocol):
    """A provider's Batch API. Every method sends each of its requests once, under a deadline of its own, and waits for
    nothing; what goes wrong comes back as a value that says whether the provider may have acted all the same
    (`retrying.may_have_acted`).
    """

    async def upload_file(self, path: Path, *, name: str) -> RemoteFile | CallFailure:
        """Send a file for use by a batch, streamed from disk.

        :raises StorageError: it cannot be read
        """

    async def find_file(self, name: str) -> RemoteFile | CallFailure | None:
        """The newest file of that name among all that the provider lists, or None where none has it."""

    async def load_file(self, file_id: str) -> RemoteFile | CallFailure:
        """What the provider says of a file now."""

    async def download_file(
        self, file_id: str, write: Callable[[bytes], None], *, max_bytes: int
    ) -> CallFailure | None:
        """Stream a file, piece by piece, the key taken out of it.

        :param write: what it raises goes through; it must not be an OSError
        :returns: None when it was whole; otherwise what was written is worth nothing
        """

    async def delete_file(self, file_id: str) -> CallFailure | None:
        """Have the provider forget a file."""

    async def create_batch(
        self, input_file_id: str, *, endpoint: str, metadata: Mapping[str, str]
    ) -> RemoteBatch | CallFailure:
        """Have the provider work on a file that it holds. From here on it costs money."""

    async def find_batch(self, *, token: str, input_file_id: str | None) -> RemoteBatch | CallFailure | None:
        """The batch with this token, or of this file, among all that the provider lists; None where it has none."""

    async def load_batch(self, remote_batch_id: str) -> RemoteBatch | CallFailure:
        """What the provider says of a batch now."""

    async def cancel_batch(self, remote_batch_id: str) -> RemoteBatch | CallFailure:
        """Ask for the end of a batch; what is answered until then is kept, and paid."""

    async def aclose(self) -> None:
        """Close every connection."""


class SourceStore(Protocol):
    """What ingest needs."""

    async def find_source(self, *, checksums: Sequence[str]) -> DataSource | None:
        """The data source with one of these checksums (a legacy file is known by its MD5)."""

    async def find_source_by_path(self, path: str) -> DataSource | None:
        """The newest data source that was loaded from this path."""

    async def list_sources(self) -> Sequence[DataSource]:
        """Every data source, oldest first."""

    async def add_source(
        self, source: NarrativeSource, *, on_conflict: ConflictRule, rules: ScreeningRules | None = None
    ) -> IngestReport:
        """Read the file and store its narratives in one transaction: all of them or none.

        :param rules: screen the texts by these; None: leave that for later
        :raises BadInputError: duplicates with different text, or keys that the database holds already
        """

    async def load_cohort(self, checksum: str, *, max_narratives: int | None) -> Cohort:
        """The first `max_narratives` narratives of a data source, or all of them."""


class ScreeningStore(Protocol):
    """What screening texts that are loaded already needs, and telling what came of it."""

    async def screen_source(self, checksum: str, rules: ScreeningRules) -> Screening:
        """Flag every text of a source and mark the repeats, in one transaction. Safe to repeat.

        Texts that were scrubbed keep the flags they had.
        """

    async def load_screening(self, checksum: str) -> Screening | None:
        """The latest look at the texts of a source; None: there was none."""

    async def count_flags(self, cohort: Cohort) -> FlagCounts | None:
        """Doubtful texts of a cohort; None: nobody has looked at its source."""


class ExperimentStore(Protocol):
    """What creating, resuming, finishing and showing experiments needs."""

    async def create_experiment(self, new: NewExperiment) -> None:
        """Store a new experiment with status `running` and empty counters."""

    async def load_experiment(self, experiment_id: ExperimentId) -> Experiment:
        """:raises UnknownExperimentError: there is none with exactly this id"""

    async def list_experiments(self) -> Sequence[Experiment]:
        """Every experiment, newest first."""

    async def begin_run(self, start: RunStart) -> RunId:
        """Record a process life and set its experiment to `running`, in one transaction."""

    async def end_run(self, experiment_id: ExperimentId, run_id: RunId, end: RunEnd) -> None:
        """Record how a process life ended, the experiment's status and its total runtime. Safe to repeat."""

    async def list_runs(self, experiment_id: ExperimentId) -> Sequence[RunRecord]:
        """Every process life of an experiment, oldest first."""

    async def update_experiment(self, experiment_id: ExperimentId, columns: Mapping[str, object]) -> None:
        """Set columns that are derived from rows. Safe to repeat."""


class SweepStore(Protocol):
    """What making and going through a sweep needs; apart from `Store`, because no run does."""

    async def create_sweep(self, sweep: Sweep, experiments: Sequence[NewExperiment]) -> None:
        """Store a sweep and its experiments in one transaction, each as `create_experiment` does."""

    async def find_sweep(self, name: str) -> Sweep | None:
        """The sweep of that name."""

    async def list_sweep(self, sweep_id: SweepId) -> Sequence[Experiment]:
        """The experiments of a sweep, in their order."""


class ReviewStore(Protocol):
    """What human review needs; apart from `Store`, because no run does. Labels are only added, never changed."""

    async def list_review_units(self, experiment: Experiment) -> Sequence[ReviewUnit]:
        """Every narrative of the cohort that has an answer, in narrative order."""

    async def create_review(self, review: Review, items: Sequence[ReviewItem]) -> ReviewId:
        """Store a sample in one transaction.

        :param review: its id is given here
        :param items: their keys are numbers, and get the review's id put before them
        """

    async def list_reviews(self) -> Sequence[Review]:
        """Every sample, oldest first."""

    async def load_review(self, review_id: ReviewId) -> ReviewState:
        """:raises UsageError: there is none with this id"""

    async def load_review_narratives(self, review_id: ReviewId) -> Sequence[ReviewNarrative]:
        """What workbooks show, in the order of the keys."""

    async def add_review_workbook(self, workbook: ReviewWorkbook) -> None:
        """:raises StorageError: the reader has one already"""

    async def find_review_of(self, workbook_id: WorkbookId) -> ReviewId | None:
        """Which review a workbook belongs to; None where this database has not written it."""

    async def add_labels(self, taken: LabelImport) -> None:
        """What a workbook says from now on; what it said before is kept and counts no more."""


class RemainingStore(Protocol):
    """What the planner needs."""

    async def load_page(
        self, experiment: Experiment, selection: Selection, *, run_id: RunId, after: PageCursor, limit: int
    ) -> Sequence[WorkItem]:
        """The next items of the remaining set that are to be sent, in narrative order; empty at the end.

        Error rows that this run itself wrote are not met again. What gets its row without a call is left out.
        """

    async def count_remaining(self, experiment: Experiment, selection: Selection) -> int:
        """The size of the remaining set: rows to be made or made anew, with a call or without."""

    async def count_uncalled(self, experiment: Experiment, selection: Selection) -> UncalledCounts:
        """What of the remaining set gets its row without a call."""

    async def load_skips(self, experiment: Experiment, *, after: PageCursor, limit: int) -> Sequence[Skip]:
        """The next narratives of the cohort that are to be skipped and have no row; empty at the end."""

    async def load_copies(
        self, experiment: Experiment, selection: Selection, *, after: PageCursor, limit: int
    ) -> Sequence[Copy]:
        """The next narratives of the cohort whose rows are to be those of their originals; empty at the end.

        Copies that are errors and have fallen behind are among them; with `ERRORS` nothing else is.
        """

    async def load_canaries(self, experiment: Experiment, *, limit: int) -> Sequence[WorkItem]:
        """The first narratives of the cohort that were asked and answered, as items that are marked `is_canary`."""


class OutcomeStore(Protocol):
    """What the writer needs."""

    async def write_batch(
        self, experiment_id: ExperimentId, run_id: RunId, messages: Sequence[WriterMessage], mark: ProgressMark
    ) -> None:
        """Store a batch in one transaction; when this returns, the batch is on disk.

        Repeating a batch changes no row and no counter, only the ledger and the canaries get their calls again; a
        success is never overwritten. The answer to a canary goes beside the results, never among them. A copy takes
        what its original's row says at that moment.

        :raises StorageError: nothing of the batch was stored
        :raises LockHeldError: likewise, because another process writes; may be tried again
        """


class ResultStore(Protocol):
    """What the finalizer, exports and displays need."""

    async def count_results(self, experiment: Experiment) -> ResultCounts:
        """Rows of the experiment, by kind."""

    async def count_confusion(self, experiment_id: ExperimentId) -> ConfusionCounts:
        """Detections against manual flags, over labelled rows without an error."""

    async def count_detected(self, experiment_id: ExperimentId) -> tuple[int, int]:
        """Rows detected and not detected, labelled or not."""

    async def count_second_tries(self, experiment_id: ExperimentId) -> int:
        """Successes whose answer came when it was asked for once more."""

    async def count_errors(self, experiment_id: ExperimentId) -> Mapping[str, int]:
        """Error rows by category, most frequent first."""

    async def sum_tokens(self, experiment_id: ExperimentId) -> tuple[int, int]:
        """Prompt and completion tokens of all calls, failed ones included."""

    async def list_servings(self, experiment_id: ExperimentId) -> Sequence[Serving]:
        """Who has answered for this experiment, oldest first."""

    async def count_canaries(self, experiment_id: ExperimentId) -> CanaryCounts:
        """Canaries of all runs against the results as they stand."""

    def iter_results(self, experiment_id: ExperimentId) -> AsyncIterator[Mapping[str, object]]:
        """Result rows in cohort order, as column → value."""

    def iter_cohort(self, experiment: Experiment) -> AsyncIterator[CohortRow]:
        """Every narrative of the cohort in its order, with its result where there is one.

        Of an experiment whose cohort nobody recorded, the narratives that have a result.
        """


class BatchStore(Protocol):
    """What batches need; apart from `Store`, because no run does."""

    async def add_batch(self, new: NewBatch, items: Sequence[BatchItem]) -> Batch:
        """Record a batch whose file is whole, and which narratives are in it, in one transaction."""

    async def list_batches(self, experiment_id: ExperimentId | None = None) -> Sequence[Batch]:
        """Every batch of an experiment, or of all of them, oldest first."""

    async def advance_batch(self, batch: Batch, state: BatchState, changes: Mapping[str, object]) -> Batch:
        """Bring a batch into another state, or a state again, and set columns of it; on disk when this returns.

        :returns: the batch as it is now
        :raises ValueError: the life of a batch knows no such step (`batching.states`)
        :raises BatchChangedError: another process has brought it into another state meanwhile
        """

    async def list_spoken_for(
        self, experiment_id: ExperimentId, *, after: NarrativeId, until: NarrativeId
    ) -> Collection[NarrativeId]:
        """Narratives between two, the latter included, that are in an open batch of the experiment."""

    async def load_members(self, batch_id: BatchId) -> Mapping[NarrativeId, bool]:
        """Every narrative of a batch, and whether it is done with: the ledger has a call of this batch for it, or it
        has a row that no answer of the batch may change.
        """

    async def load_batch_items(self, batch_id: BatchId, narrative_ids: Sequence[NarrativeId]) -> Sequence[WorkItem]:
        """Those of these narratives that are in the batch, as items; in no order."""

    async def count_recorded(self, experiment_id: ExperimentId | None = None) -> Mapping[BatchId, int]:
        """How many calls of each batch the ledger has; batches without any are left out."""


class ReportStore(Protocol):
    """What a report needs beside the results; apart from `Store`, because no run does."""

    async def load_ingest(self, checksum: str) -> IngestRecord | None:
        """What the file of a data source held besides its narratives; None where nobody noted it."""

    def iter_calls(self, experiment_id: ExperimentId) -> AsyncIterator[CallRecord]:
        """Every call of the ledger, in the order in which their ends were stored; those of batches are left out."""

    def iter_indicators(self, experiment_id: ExperimentId) -> AsyncIterator[AnswerIndicators]:
        """What each answer was based on; answers that name nothing may be left out."""

    async def list_serving_uses(self, experiment_id: ExperimentId) -> Sequence[ServingUse]:
        """Who has answered for this experiment, oldest first, and how often."""


class VerificationStore(Protocol):
    """What verifying needs; apart from `Store`, because no run does."""

    async def check_invariants(self, experiment_id: ExperimentId | None) -> Sequence[InvariantFinding]:
        """Look for violations of every invariant that rows can show, in one read transaction, beside whoever writes.

        :param experiment_id: look at this experiment and its cohort only; None: at everything
        :raises StorageError: the file cannot be read
        """


class TextPresence(Protocol):
    """What planning needs, to refuse work on narratives whose text was taken away."""

    async def count_textless(self, cohort: Cohort) -> int:
        """Narratives of a cohort that have no text any more."""

    async def load_latest_scrub(self) -> ScrubRecord | None:
        """The last time texts were taken away on purpose."""


class ScrubStore(TextPresence, Protocol):
    """What scrubbing needs; apart from `Store`, because no run does."""

    async def survey_texts(self) -> TextHoldings:
        """Where narratives are held, or quoted."""

    async def scrub_texts(self, *, narrun_version: str, host: str) -> ScrubRecord | None:
        """Take every narrative and every quotation out of the rows, and out of what the file kept of them.

        The rows change in one transaction; the rest is safe to repeat, and a repetition finishes what was cut short.

        :returns: the latest record; None where there never was a text
        :raises LockHeldError: the rows are scrubbed, but a reader keeps the older state alive
        :raises StorageError: the disk refuses, or has no room for the file to be written anew
        """


class LegacyStore(Protocol):
    """What carrying on the predecessor's work needs; apart from `Store`, because an experiment of ours has none."""

    async def list_rows_of_odd_ids(self) -> Sequence[IdRow]:
        """Every row whose id is odd (`read_odd_id`), and every row whose id an odd one stands for; narratives first."""

    async def repair_ids(self, repairs: Sequence[IdRepair]) -> None:
        """Give rows the ids that theirs stand for, and keep what they had: all of it in one transaction."""

    async def survey_results(self, experiment_id: ExperimentId, data_checksum: str) -> LegacySurvey:
        """Count an experiment's results against a data source."""

    async def adopt_experiment(self, record: AdoptionRecord) -> None:
        """Take an experiment up, in one transaction.

        Results outside the cohort are set aside, the predecessor's own work becomes a run, the columns are set, and
        what they held is kept.
        """

    async def load_inheritance(self, experiment_id: ExperimentId | None) -> Inheritance:
        """What is there of the predecessor's, and what was set aside.

        :param experiment_id: of this experiment only; None: of the whole database
        """


class Store(SourceStore, ScreeningStore, ExperimentStore, RemainingStore, OutcomeStore, ResultStore, Protocol):
    """All parts together, over one database."""

    async def aclose(self) -> None:
        """Close every connection."""
