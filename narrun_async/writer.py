"""Owns the one way into the results: gathers outcomes into batches and stores each in one transaction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream

from narrun_async.control import RunControl
from narrun_async.errors import LockHeldError, NarrunError, StorageError
from narrun_async.logs import RUN_LOG
from narrun_async.models import ExperimentId, RunId, WriterMessage
from narrun_async.ports import OutcomeStore
from narrun_async.progress import Progress
from narrun_async.progress.commits import CommitJournal
from narrun_async.progress.journal import log_failures
from narrun_async.streams import receive

#: a disk that was freed is noticed within this time
LONGEST_STORAGE_PAUSE_S = 30.0


def storage_pauses(total_s: float) -> tuple[float, ...]:
    """Pauses that double from one second to thirty and together last that long; the last is shorter if it must be."""
    pauses: list[float] = []
    pause_s = 1.0
    while total_s > 0:
        pauses.append(min(pause_s, total_s))
        total_s -= pauses[-1]
        pause_s = min(2 * pause_s, LONGEST_STORAGE_PAUSE_S)
    return tuple(pauses)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPolicy:
    """How much is stored at once. At 250 rows/s, lingering 10 ms took a row from 390 to 261 µs of CPU, 50 ms to 151."""

    max_rows: int = 64
    linger_s: float = 0.020
    #: pauses before a batch that could not be stored is tried again; the endpoint is not called meanwhile
    storage_pauses_s: tuple[float, ...] = storage_pauses(300.0)


class Writer:
    """One coroutine, one connection. An outcome is saved, and said to be, when its COMMIT has returned.

    :param hold_calls: told True when a batch could not be stored, and False when it could: answers that nobody can
        keep are not bought
    """

    def __init__(
        self,
        store: OutcomeStore,
        experiment_id: ExperimentId,
        run_id: RunId,
        progress: Progress,
        control: RunControl,
        *,
        journal: CommitJournal,
        hold_calls: Callable[[bool], None] = lambda _: None,
        policy: BatchPolicy | None = None,
    ) -> None:
        self._store = store
        self._experiment_id = experiment_id
        self._run_id = run_id
        self._progress = progress
        self._control = control
        self._journal = journal
        self._hold_calls = hold_calls
        self._policy = policy or BatchPolicy()

    async def run(self, outcomes: MemoryObjectReceiveStream[WriterMessage]) -> None:
        """Store everything that arrives until the stream ends.

        A database that refuses for good stops the run; what is in memory then is lost, and still in the remaining set.
        """
        async with outcomes:
            try:
                while batch := await self._gather(outcomes):
                    await self._save(batch)
            except NarrunError as error:
                self._control.stop(error)
                self._control.leave()

    async def _gather(self, outcomes: MemoryObjectReceiveStream[WriterMessage]) -> list[WriterMessage]:
        """At least one message, then what arrives while lingering; empty at the end of the stream."""
        batch: list[WriterMessage] = []
        try:
            batch.append(await receive(outcomes))
            with anyio.move_on_after(self._policy.linger_s):
                while len(batch) < self._policy.max_rows:
                    batch.append(await receive(outcomes))
        except anyio.EndOfStream:
            pass
        return batch

    async def _save(self, batch: list[WriterMessage]) -> None:
        # A try may itself take half a minute, where another program holds the database.
        until = anyio.current_time() + sum(self._policy.storage_pauses_s)
        for pause_s in self._policy.storage_pauses_s:
            try:
                await self._write(batch)
            except (StorageError, LockHeldError) as error:
                if not _may_pass(error) or self._control.is_stopping or anyio.current_time() >= until:
                    raise
                self._hold_calls(True)
                RUN_LOG.warning("a batch cannot be stored, trying again in %g s: %s", pause_s, error)
            else:
                self._hold_calls(False)
                return
            # A run that stops does not sit the pause out: the batch gets its last try at once.
            with anyio.move_on_after(pause_s):
                await self._control.wait_stopping()
        await self._write(batch)
        self._hold_calls(False)

    async def _write(self, batch: list[WriterMessage]) -> None:
        await self._store.write_batch(self._experiment_id, self._run_id, batch, self._progress.mark())
        self._journal.note(batch)
        self._progress.record_saved(batch)
        log_failures(batch)


def _may_pass(error: StorageError | LockHeldError) -> bool:
    return isinstance(error, LockHeldError) or error.may_pass
