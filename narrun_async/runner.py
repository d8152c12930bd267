"""Runs one life of a process on an experiment: passes over the remaining set, signals, drain, and the run record."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import anyio
from anyio.streams.memory import MemoryObjectSendStream

from narrun_async.caller import Caller, CallSpec, choose_format, make_probe
from narrun_async.clock import utc_end
from narrun_async.control import LiveSettings, RunControl, StopSignal, follow_live_settings
from narrun_async.control.live_settings import FILE_NAME as CONTROL_FILE
from narrun_async.dispatcher import Dispatcher
from narrun_async.errors import NarrunError, RunStopping
from narrun_async.finalizer import finalize
from narrun_async.limits import Budget, EndpointLimits, ErrorGuard, LimitSettings, ServingGuard
from narrun_async.limits.endpoint import BY_THE_DISK
from narrun_async.logs import RUN_LOG
from narrun_async.models import (
    AnswerFormat,
    Copy,
    Experiment,
    PageCursor,
    ResultCounts,
    RunEnd,
    RunId,
    RunStart,
    Selection,
    Skip,
    WorkItem,
    WriterMessage,
)
from narrun_async.planner import CanaryPlan, plan_pass, plan_uncalled
from narrun_async.ports import ChatProvider, Store
from narrun_async.progress import Progress, ProgressSnapshot
from narrun_async.progress.commits import CommitJournal
from narrun_async.progress.journal import log_progress
from narrun_async.progress.live_view import FILE_NAME as VIEW_FILE
from narrun_async.progress.live_view import LimitView, write_live_views
from narrun_async.reporting.summary import ExperimentSummary
from narrun_async.statuses import RunVerdict, judge_run
from narrun_async.writer import BatchPolicy, Writer

#: items between planner and workers; the page behind them is the real buffer
WORK_QUEUE_ITEMS = 16
#: outcomes between workers and writer (design §6, Q)
OUTCOME_QUEUE_ITEMS = 16
#: how long calls in flight may take to end after a first request to stop
DRAIN_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """What may change from run to run (design §6)."""

    limits: LimitSettings
    max_passes: int
    max_consecutive_errors: int
    page_size: int
    #: another model in mid-experiment stops the run instead of being told
    stops_on_model_change: bool = False
    canaries: CanaryPlan = field(default_factory=CanaryPlan)
    #: what the process can serve at a time, whatever a person asks for while it goes; None: anything
    most_calls: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a run ended, and what the experiment holds now."""

    verdict: RunVerdict
    summary: ExperimentSummary
    progress: ProgressSnapshot
    #: the failure that stopped the run, if one did
    problem: NarrunError | None
    #: what a probe found out in this run
    answer_format: AnswerFormat | None = None


#: shows a run to people until it is cancelled
Watch = Callable[[Progress, RunControl], Coroutine[None, None, None]]


class Runner:
    """One run of one experiment over one store and one endpoint.

    :param spec: what a call is made of
    :param rng: for jitter only; nothing that is stored depends on it
    :param accepts_restored: the database holds less than its journal says, and a person wants to go on from there
    :param after: the `limits` of an earlier runner of this process on the same endpoint
    :param clock: monotonic seconds
    """

    def __init__(
        self,
        store: Store,
        provider: ChatProvider,
        experiment: Experiment,
        *,
        spec: CallSpec,
        settings: RunSettings,
        budget: Budget | None = None,
        batches: BatchPolicy | None = None,
        rng: random.Random | None = None,
        accepts_restored: bool = False,
        after: EndpointLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._provider = provider
        self._experiment = experiment
        self._spec = spec
        self._settings = settings
        self._batches = batches
        self._rng = rng or random.Random()
        self._accepts_restored = accepts_restored
        self._clock = clock
        self._control = RunControl()
        probe = make_probe(provider, spec.template, deadline_s=spec.attempt_deadline_s)
        #: of the endpoint; a later run on it may go on from here
        self.limits = EndpointLimits(
            settings.limits,
            budget=budget,
            # An endpoint that takes a probe and never answers it must not hold the first signal.
            probe=lambda: self._control.abandon_on_stop(probe),
            clock=clock,
            sleep=self._control.sleep,
            rng=self._rng,
            after=after,
        )
        self._control.on_stop(self.limits.close)
        self._calls = anyio.CancelScope()
        self._answer_format: AnswerFormat | None = None

    async def run(self, start: RunStart, watch: Watch) -> RunResult:
        """Work on the remaining set until it is empty or something stops the run; the run record is closed in any case.

        :param watch: runs beside the work and is cancelled at its end
        :raises StorageError: the end could not be recorded; the experiment still shows `running`
        """
        counts = await self._store.count_results(self._experiment)
        n_remaining = await self._store.count_remaining(self._experiment, start.selection)
        uncalled = await self._store.count_uncalled(self._experiment, start.selection)
        run_id = await self._store.begin_run(start)
        progress = Progress(
            n_done_before=_untouched(counts, start.selection, n_remaining=n_remaining),
            n_remaining=n_remaining,
            n_uncalled=uncalled.n_rows,
            clock=self._clock,
            downtime_s=lambda: self.limits.downtime_s,
            waiting_for=lambda: self.limits.waiting_for,
        )
        RUN_LOG.info("run %d begins: %s, %d narratives to do", run_id, start.mode.value, n_remaining)
        async with anyio.create_task_group() as beside:
            beside.start_soon(self._obey_signals)
            beside.start_soon(self._limit_drain)
            beside.start_soon(log_progress, progress)
            if self._experiment.log_dir is not None:
                log_dir = Path(self._experiment.log_dir)
                beside.start_soon(follow_live_settings, log_dir / CONTROL_FILE, self._obey)
                beside.start_soon(
                    write_live_views, progress, log_dir / VIEW_FILE, start.experiment_id, self._view_limits
                )
            beside.start_soon(watch, progress, self._control)
            writer = Writer(
                self._store,
                self._experiment.experiment_id,
                run_id,
                progress,
                self._control,
                journal=self._open_journal(run_id, counts),
                hold_calls=self._hold_calls,
                policy=self._batches,
            )
            await self._skip_placeholders(writer, start.selection)
            if not self._control.is_stopping and (spec := await self._settle_spec(progress)) is not None:
                await self._run_passes(spec, run_id, start.selection, progress, counts, writer)
            await self._copy_answers(writer, start.selection)
            beside.cancel_scope.cancel()
        return await self._finish(run_id, progress, start.started_at)

    async def _settle_spec(self, progress: Progress) -> CallSpec | None:
        """What every call is made of, nothing left open; None where the run stops before that is known.

        What the endpoint has shown is stored before the first narrative is sent, for it is part of what is asked.
        """
        spec = self._spec
        if spec.choice is None or not progress.snapshot().n_remaining_at_start:
            return spec
        choice, deadline_s = spec.choice, spec.attempt_deadline_s
        progress.notice = "asking whether answers can be bound to JSON"
        try:
            found = await self._control.abandon_on_stop(
                lambda: choose_format(choice, self._provider, self.limits, deadline_s=deadline_s, clock=self._clock)
            )
            await self._store.update_experiment(self._experiment.experiment_id, {"answer_format": found.value})
        except RunStopping:
            return None
        except NarrunError as error:
            self._control.stop(error)
            return None
        self._answer_format, progress.notice = found, None
        return spec.decided(found)

    async def _skip_placeholders(self, writer: Writer, selection: Selection) -> None:
        """Before the first call, so that all that is left takes one."""
        if self._experiment.skips_placeholders and selection is not Selection.ERRORS:
            await self._write_uncalled(
                writer,
                lambda after: self._store.load_skips(self._experiment, after=after, limit=self._settings.page_size),
            )

    async def _copy_answers(self, writer: Writer, selection: Selection) -> None:
        """After the last call, also where a run is cut short: what was answered is answered for equal texts, too."""
        if self._experiment.asks_identical_once:
            await self._write_uncalled(
                writer,
                lambda after: self._store.load_copies(
                    self._experiment, selection, after=after, limit=self._settings.page_size
                ),
            )

    async def _write_uncalled(
        self, writer: Writer, load_page: Callable[[PageCursor], Awaitable[Sequence[Skip] | Sequence[Copy]]]
    ) -> None:
        """Given up when the run leaves at once, or cannot store; the next run goes on with it."""
        if self._control.is_leaving:
            return
        rows, arriving = anyio.create_memory_object_stream[WriterMessage](OUTCOME_QUEUE_ITEMS)
        async with anyio.create_task_group() as stages:
            stages.start_soon(writer.run, arriving)
            async with rows, anyio.create_task_group() as planning:
                planning.start_soon(self._abandon_on_leaving, planning.cancel_scope)
                try:
                    await plan_uncalled(load_page, rows)
                except NarrunError as error:
                    self._control.stop(error)
                planning.cancel_scope.cancel()

    async def _abandon_on_leaving(self, scope: anyio.CancelScope) -> None:
        await self._control.wait_leaving()
        scope.cancel()

    async def _run_passes(
        self,
        spec: CallSpec,
        run_id: RunId,
        selection: Selection,
        progress: Progress,
        counts: ResultCounts,
        writer: Writer,
    ) -> None:
        guard = ErrorGuard(is_proven=counts.n_success > 0, max_consecutive_errors=self._settings.max_consecutive_errors)
        serving = ServingGuard(
            await self._store.list_servings(self._experiment.experiment_id),
            stops=self._settings.stops_on_model_change,
            tell=progress.tell,
        )
        for number in range(1, self._settings.max_passes + 1):
            outcomes, arriving = anyio.create_memory_object_stream[WriterMessage](OUTCOME_QUEUE_ITEMS)
            caller = Caller(
                spec,
                self._provider,
                self.limits,
                progress,
                record=outcomes.send,
                sleep=self._control.sleep,
                rng=self._rng,
                clock=self._clock,
            )
            is_last_pass = number == self._settings.max_passes
            dispatcher = Dispatcher(caller, self.limits, guard, serving, self._control, is_last_pass=is_last_pass)
            work, waiting = anyio.create_memory_object_stream[WorkItem](WORK_QUEUE_ITEMS)
            async with anyio.create_task_group() as stages:
                stages.start_soon(self._plan, selection, run_id, work, number == 1)
                stages.start_soon(writer.run, arriving)
                with anyio.CancelScope() as self._calls:
                    await dispatcher.run_pass(waiting, outcomes)
            if self._control.is_stopping or not self._goes_on(guard, dispatcher):
                return

    def _goes_on(self, guard: ErrorGuard, dispatcher: Dispatcher) -> bool:
        if dispatcher.n_deferred:
            guard.begin_again()
            return True
        try:
            guard.finish()
        except NarrunError as error:
            self._control.stop(error)
        return False

    def _open_journal(self, run_id: RunId, counts: ResultCounts) -> CommitJournal:
        journal = CommitJournal(run_id, counts)
        if self._accepts_restored:
            RUN_LOG.warning("run %d begins with fewer results than there were before, as was asked for", run_id)
            journal.note_restored()
        return journal

    def _hold_calls(self, is_held: bool) -> None:
        if is_held:
            self.limits.pause(BY_THE_DISK)
        else:
            self.limits.unpause(BY_THE_DISK)

    async def _plan(
        self, selection: Selection, run_id: RunId, work: MemoryObjectSendStream[WorkItem], is_first_pass: bool
    ) -> None:
        try:
            await plan_pass(
                self._store,
                self._experiment,
                selection,
                run_id=run_id,
                page_size=self._settings.page_size,
                work=work,
                # Later passes meet what little was put off; their canaries would cost more than they tell.
                canaries=self._settings.canaries if is_first_pass else None,
            )
        except NarrunError as error:
            self._control.stop(error)

    async def _obey_signals(self) -> None:
        """The first SIGINT or SIGTERM drains, the next one leaves at once."""
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for number in signals:
                if self._control.is_stopping:
                    self._control.leave()
                self._control.stop(StopSignal(number=number))

    def _obey(self, settings: LiveSettings) -> None:
        """Do what `narrun set`, `pause` and `unpause` ask for."""
        RUN_LOG.info("asked for: concurrency %s, paused %s", settings.concurrency or "as started", settings.is_paused)
        if settings.concurrency == "auto":
            self.limits.set_concurrency(None)
        elif settings.concurrency is not None:
            self.limits.set_concurrency(min(settings.concurrency, self._settings.most_calls or settings.concurrency))
        if settings.is_paused and not self._control.is_stopping:
            self.limits.pause()
        else:
            self.limits.unpause()

    def _view_limits(self) -> LimitView:
        limits, auto = self.limits, self.limits.auto
        return LimitView(
            limit=limits.slots.limit,
            is_auto=auto is not None,
            pace_per_s=limits.pace_per_s,
            is_paused=limits.is_paused,
            history=tuple(limits.history),
        )

    async def _limit_drain(self) -> None:
        await self._control.wait_stopping()
        with anyio.move_on_after(DRAIN_S):
            await self._control.wait_leaving()
        self._calls.cancel()

    async def _finish(self, run_id: RunId, progress: Progress, started_at: datetime) -> RunResult:
        experiment_id = self._experiment.experiment_id
        reason = self._control.reason
        snapshot = progress.snapshot()
        verdict = judge_run(
            await self._store.count_results(self._experiment),
            n_left=snapshot.n_remaining_at_start - snapshot.n_saved,
            stopped_with=reason.exit_code if reason else None,
            stopped_why=str(reason),
        )
        earlier = await self._store.list_runs(experiment_id)
        runtime_s = progress.runtime_s
        total_s = sum(run.runtime_s for run in earlier if run.run_id != run_id) + runtime_s
        summary = await finalize(self._store, self._experiment, runtime_s=total_s)
        await self._store.end_run(
            experiment_id,
            run_id,
            RunEnd(
                status=verdict.status,
                ended_at=utc_end(started_at, runtime_s),
                runtime_s=runtime_s,
                exit_code=verdict.exit_code,
                ended_why=verdict.why,
            ),
        )
        RUN_LOG.info("run %d ends: %s: %s", run_id, verdict.status.value, verdict.why)
        return RunResult(
            verdict=verdict,
            summary=summary,
            progress=snapshot,
            problem=reason if isinstance(reason, NarrunError) else None,
            answer_format=self._answer_format,
        )


def _untouched(counts: ResultCounts, selection: Selection, *, n_remaining: int) -> int:
    """Rows that a run with this selection leaves as they are."""
    return (counts.n_rows if selection is Selection.ERRORS else counts.n_total) - n_remaining
