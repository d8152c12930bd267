"""The seams of the house: what the stages need of a database, an endpoint and a source file.

Only domain operations cross them, never SQL and never HTTP. The Store is split by consumer, so that a stage
sees no more of it than it uses; one adapter implements all parts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Literal, Protocol

from narrun_async.metrics import ConfusionCounts
from narrun_async.models import (
    AdoptionRecord,
    CanaryCounts,
    Cohort,
    DataSource,
    Experiment,
    ExperimentId,
    IdRepair,
    IdRow,
    IngestReport,
    Inheritance,
    InvariantFinding,
    LegacySurvey,
    NewExperiment,
    PageCursor,
    ProgressMark,
    RawReply,
    ResultCounts,
    RunEnd,
    RunId,
    RunRecord,
    RunStart,
    ScrubRecord,
    Selection,
    Serving,
    SourceNarrative,
    SourceSummary,
    TextHoldings,
    WorkItem,
    WriterMessage,
)

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


class SourceStore(Protocol):
    """What ingest needs."""

    async def find_source(self, *, checksums: Sequence[str]) -> DataSource | None:
        """The data source with one of these checksums (a legacy file is known by its MD5)."""

    async def find_source_by_path(self, path: str) -> DataSource | None:
        """The newest data source that was loaded from this path."""

    async def list_sources(self) -> Sequence[DataSource]:
        """Every data source, oldest first."""

    async def add_source(self, source: NarrativeSource, *, on_conflict: ConflictRule) -> IngestReport:
        """Read the file and store its narratives in one transaction: all of them or none.

        :raises BadInputError: duplicates with different text, or keys that the database holds already
        """

    async def load_cohort(self, checksum: str, *, max_narratives: int | None) -> Cohort:
        """The first `max_narratives` narratives of a data source, or all of them."""


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


class RemainingStore(Protocol):
    """What the planner needs."""

    async def load_page(
        self, experiment: Experiment, selection: Selection, *, run_id: RunId, after: PageCursor, limit: int
    ) -> Sequence[WorkItem]:
        """The next items of the remaining set in narrative order; empty at the end.

        Error rows that this run itself wrote are not met again.
        """

    async def count_remaining(self, experiment: Experiment, selection: Selection) -> int:
        """The size of the remaining set."""

    async def load_canaries(self, experiment: Experiment, *, limit: int) -> Sequence[WorkItem]:
        """The first narratives of the cohort that have a success, as items that are marked `is_canary`."""


class OutcomeStore(Protocol):
    """What the writer needs."""

    async def write_batch(
        self, experiment_id: ExperimentId, run_id: RunId, messages: Sequence[WriterMessage], mark: ProgressMark
    ) -> None:
        """Store a batch in one transaction; when this returns, the batch is on disk.

        Repeating a batch changes no row and no counter, only the ledger and the canaries get their calls again; a
        success is never overwritten. The answer to a canary goes beside the results, never among them.

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


class Store(SourceStore, ExperimentStore, RemainingStore, OutcomeStore, ResultStore, Protocol):
    """All parts together, over one database."""

    async def aclose(self) -> None:
        """Close every connection."""
