"""Stores what came back of batches: through the one writer, each narrative once, in whatever order it came.

A run is opened for it, as for calls: its rows, its calls in the ledger, its commits in the journal, its end. Cut short
at any moment it can be repeated; what the ledger has of a batch is not stored again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeVar

import anyio
from anyio.streams.memory import MemoryObjectSendStream

from narrun_async.batching.requests import RequestKey, experiment_key
from narrun_async.clock import utc_end, utc_now
from narrun_async.control import RunControl
from narrun_async.errors import ConfigurationError, FatalEndpointError, NarrunError
from narrun_async.finalizer import finalize
from narrun_async.limits import ServingGuard
from narrun_async.logs import RUN_LOG
from narrun_async.models import (
    Batch,
    BatchLine,
    BatchState,
    Copy,
    ErrorCategory,
    Experiment,
    Outcome,
    PageCursor,
    ResultCounts,
    RunEnd,
    RunId,
    RunStart,
    Selection,
    Serving,
    Skip,
    WorkItem,
    WriterMessage,
)
from narrun_async.operations.batches.answers import Survey, Target, iter_answers, judge_line
from narrun_async.planner import plan_uncalled
from narrun_async.ports import BatchStore, Store
from narrun_async.progress import Progress
from narrun_async.progress.commits import CommitJournal
from narrun_async.reporting.summary import ExperimentSummary
from narrun_async.retrying import CallFailure, FailureClass
from narrun_async.statuses import RunVerdict, judge_run
from narrun_async.streams import send
from narrun_async.writer import BatchPolicy, Writer

#: lines whose narratives are looked up at once
CHUNK_LINES = 200
#: between reading and writing
QUEUE = 64
#: rows that take no request, read from the database at once
PAGE_ROWS = 500
#: rows a commit: nobody waits for them one by one
COMMIT_ROWS = 512
#: refusals that a wrong setting would also cause
_SUSPECT = ErrorCategory.BAD_REQUEST

Item = TypeVar("Item")


class CollectingStore(Store, BatchStore, Protocol):
    """What collecting needs of a store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """What is to be stored, and how."""

    experiment: Experiment
    counts: ResultCounts
    targets: Mapping[int, Target]
    files: Sequence[Path]
    surveyed: Survey
    #: refusals become error rows even where nothing shows that the settings work
    accepts_refusals: bool
    #: another model in mid-experiment stops it instead of being told
    stops_on_model_change: bool
    storage_pauses_s: tuple[float, ...]
    #: the files of batches that are closed are wanted
    keeps_files: bool = False
    #: the database holds less than its journal says, and a person wants to go on from there
    accepts_restored: bool = False


@dataclass(slots=True, kw_only=True)
class Collected:
    """What became of it."""

    verdict: RunVerdict
    summary: ExperimentSummary
    #: what stopped it, or is wrong with the settings
    problem: NarrunError | None
    #: requests that led to rows
    n_decided: int
    #: what led to none though it was answered, by its category
    undecided: Mapping[str, int]
    closed: Sequence[Batch] = field(default_factory=list)


async def collect(
    store: CollectingStore, collection: Collection, start: RunStart, *, tell: Callable[[str], None]
) -> Collected:
    """Store every answer that is not stored yet, end the run, and close the batches that have nothing more to give.

    :raises StorageError: the end could not be recorded
    """
    experiment_id = collection.experiment.experiment_id
    started = time.monotonic()
    run_id = await store.begin_run(start)
    control = RunControl()
    taker = _Taker(store, collection, control, tell, known=await store.list_servings(experiment_id))
    n_new = sum(not is_stored for target in collection.targets.values() for is_stored in target.members.values())
    progress = Progress(n_done_before=0, n_remaining=n_new, clock=time.monotonic)
    tell(f"storing    {collection.surveyed.n_ours:,} answers")
    RUN_LOG.info("run %d begins: batch, %d lines of files", run_id, collection.surveyed.n_lines)
    writer = _open_writer(store, collection, control, progress, run_id)
    await _write(taker, writer)
    await _write_uncalled(store, collection.experiment, writer, control, start.selection)
    problem = control.reason if isinstance(control.reason, NarrunError) else taker.problem()
    verdict = judge_run(
        await store.count_results(collection.experiment),
        n_left=n_new - taker.n_decided,
        stopped_with=problem.exit_code if problem else None,
        stopped_why=str(problem),
    )
    summary = await _end(store, collection, start, run_id, verdict, runtime_s=time.monotonic() - started)
    closed = [] if control.is_stopping or taker.has_refusals else await _close(store, collection, taker)
    return Collected(
        verdict=verdict,
        summary=summary,
        problem=problem,
        n_decided=taker.n_decided,
        undecided=dict(taker.undecided),
        closed=closed,
    )


def _open_writer(
    store: CollectingStore, collection: Collection, control: RunControl, progress: Progress, run_id: RunId
) -> Writer:
    journal = CommitJournal(run_id, collection.counts)
    if collection.accepts_restored:
        journal.note_restored()
    return Writer(
        store,
        collection.experiment.experiment_id,
        run_id,
        progress,
        control,
        journal=journal,
        policy=BatchPolicy(max_rows=COMMIT_ROWS, storage_pauses_s=collection.storage_pauses_s),
    )


async def _write(taker: _Taker, writer: Writer) -> None:
    outcomes, arriving = anyio.create_memory_object_stream[WriterMessage](QUEUE)
    async with anyio.create_task_group() as stages:
        stages.start_soon(writer.run, arriving)
        async with outcomes:
            await taker.take_all(outcomes)


async def _write_uncalled(
    store: CollectingStore, experiment: Experiment, writer: Writer, control: RunControl, selection: Selection
) -> None:
    """What gets its row without a request: placeholders, and texts of which another one has been answered."""
    pages: list[Callable[[PageCursor], Awaitable[Sequence[Skip] | Sequence[Copy]]]] = []
    if experiment.skips_placeholders and selection is not Selection.ERRORS:
        pages.append(lambda after: store.load_skips(experiment, after=after, limit=PAGE_ROWS))
    if experiment.asks_identical_once:
        pages.append(lambda after: store.load_copies(experiment, selection, after=after, limit=PAGE_ROWS))
    for load_page in pages:
        if control.is_stopping:
            return
        rows, arriving = anyio.create_memory_object_stream[WriterMessage](QUEUE)
        async with anyio.create_task_group() as stages:
            stages.start_soon(writer.run, arriving)
            try:
                await plan_uncalled(load_page, rows)
            except NarrunError as error:
                control.stop(error)


class _Taker:
    """Turns lines into rows and calls, and hands them to the writer."""

    def __init__(
        self,
        store: BatchStore,
        collection: Collection,
        control: RunControl,
        tell: Callable[[str], None],
        *,
        known: Iterable[Serving],
    ) -> None:
        self._store = store
        self._collection = collection
        self._control = control
        self._tell = tell
        self._serving = ServingGuard(known, stops=collection.stops_on_model_change, tell=self._tell_change)
        self._is_proven = (
            collection.accepts_refusals or collection.counts.n_success > 0 or bool(collection.surveyed.answered)
        )
        self.n_decided = 0
        self.undecided = Counter[str]()
        #: narratives whose line was handed to the writer, by batch number
        self.taken = Counter[int]()
        self._refusals = Counter[str]()
        self._fatal: CallFailure | None = None

    async def take_all(self, outcomes: MemoryObjectSendStream[WriterMessage]) -> None:
        """Until the files are at their end, or somebody stops it."""
        collection = self._collection
        key = experiment_key(collection.experiment.experiment_id)
        lines = iter_answers(collection.files, key, collection.targets, collection.surveyed)
        try:
            for chunk in _chunked(lines, CHUNK_LINES):
                await self._take(chunk, outcomes)
        except anyio.BrokenResourceError:
            pass  # the writer has stopped, and said why
        except NarrunError as error:
            self._control.stop(error)

    def _tell_change(self, sentence: str) -> None:
        RUN_LOG.warning("%s", sentence)
        self._tell(f"NOTE: {sentence}")

    @property
    def has_refusals(self) -> bool:
        """Refusals were held back, and a person is to decide what they are."""
        return bool(self._refusals)

    def problem(self) -> NarrunError | None:
        """What the lines say of the settings; None where nothing is wrong with them."""
        if self.has_refusals:
            message, _ = self._refusals.most_common(1)[0]
            return ConfigurationError(
                f"{self._refusals.total()} requests were refused and none was answered ({message}), so it may be the"
                " setting and not the texts; the refusals were not stored",
                advice="`narrun batch collect --accept-refusals` makes error rows of them, `narrun batch cancel"
                " --abandon` gives the narratives back; a setting can be corrected in a new experiment only",
            )
        if self._fatal is not None and not self.n_decided:
            return FatalEndpointError(f"no request was answered: {self._fatal.message}")
        return None

    async def _take(
        self, chunk: Sequence[tuple[RequestKey, BatchLine]], outcomes: MemoryObjectSendStream[WriterMessage]
    ) -> None:
        for number in dict.fromkeys(key.number for key, _ in chunk):
            batch = self._collection.targets[number].batch
            lines = {key.narrative_id: line for key, line in chunk if key.number == number}
            items = {one.narrative_id: one for one in await self._store.load_batch_items(batch.batch_id, [*lines])}
            for narrative_id, line in lines.items():
                item = items.get(narrative_id)
                if item is not None:
                    await self._take_line(item, line, batch, outcomes)

    async def _take_line(
        self, item: WorkItem, line: BatchLine, batch: Batch, outcomes: MemoryObjectSendStream[WriterMessage]
    ) -> None:
        judged = judge_line(item, line, batch, now=utc_now())
        message, failure = judged.message, judged.failure
        if failure is not None and failure.category is _SUSPECT and not self._is_proven:
            # Nothing has shown that the settings work, so this is no verdict about the narrative.
            self._refusals[failure.message] += 1
            return
        if isinstance(message, Outcome):
            serving = self._serving.meet(message)
            if serving is not None:
                await send(outcomes, serving)
            self.n_decided += 1
        elif failure is not None:
            self.undecided[failure.category.value] += 1
            if failure.failure_class is FailureClass.FATAL:
                self._fatal = self._fatal or failure
        await send(outcomes, message)
        self.taken[batch.number] += 1


async def _end(
    store: CollectingStore,
    collection: Collection,
    start: RunStart,
    run_id: RunId,
    verdict: RunVerdict,
    *,
    runtime_s: float,
) -> ExperimentSummary:
    experiment = collection.experiment
    earlier = await store.list_runs(experiment.experiment_id)
    total_s = sum(run.runtime_s for run in earlier if run.run_id != run_id) + runtime_s
    summary = await finalize(store, experiment, runtime_s=total_s)
    end = RunEnd(
        status=verdict.status,
        ended_at=utc_end(start.started_at, runtime_s),
        runtime_s=runtime_s,
        exit_code=verdict.exit_code,
        ended_why=verdict.why,
    )
    await store.end_run(experiment.experiment_id, run_id, end)
    RUN_LOG.info("run %d ends: %s: %s", run_id, verdict.status.value, verdict.why)
    return summary


async def _close(store: CollectingStore, collection: Collection, taker: _Taker) -> list[Batch]:
    """Close what the provider has ended, and what has a line for each of its requests."""
    closed: list[Batch] = []
    for number, target in collection.targets.items():
        batch = target.batch
        n_stored = sum(target.members.values()) + taker.taken[number]
        if batch.state is BatchState.CLOSED or (batch.state is not BatchState.ENDED and n_stored < len(target.members)):
            continue
        why = f"collected: {n_stored:,} of {batch.n_requests:,} requests were answered"
        changes = {
            "closed_at": utc_now(),
            "closed_why": why,
            "intended_at": None,
            "keeps_files": collection.keeps_files,
        }
        closed.append(await store.advance_batch(batch, BatchState.CLOSED, changes))
    return closed


def _chunked(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
