"""Owns the counts of a run in progress: done, rate, time left, errors, tokens, in flight. Shows nothing itself."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from narrun_async.clock import local_text, utc_now
from narrun_async.logs import RUN_LOG
from narrun_async.models import Copy, Failure, Outcome, ProgressMark, Serving, Skip, WriterMessage

#: the rate is that of the last so many seconds of work
RATE_WINDOW_S = 120.0
#: latencies are those of the last so many calls that decided a narrative
LATENCY_WINDOW_CALLS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressSnapshot:
    """The state of a run at one moment."""

    #: rows of the experiment at the start of this run that it will not touch
    n_done_before: int
    #: narratives that this run set out to work on
    n_remaining_at_start: int
    #: narratives of this run that are on disk
    n_saved: int
    #: of those, narratives that were skipped
    n_skipped: int = 0
    #: of those, narratives that got the answer, or the error, of another one with the same text
    n_copied: int = 0
    #: error rows of this run by category
    errors: Mapping[str, int] = field(default_factory=dict)
    in_flight: int
    prompt_tokens: int
    completion_tokens: int
    #: calls that did not decide a narrative
    n_failed_calls: int
    #: saved narratives per second of work; None until there are some
    rate_per_s: float | None
    #: completion tokens per second of work
    tokens_per_s: float | None = None
    #: seconds of work left at this rate
    eta_s: float | None
    runtime_s: float
    downtime_s: float
    #: what the run waits for, or None while it works
    waiting_for: str | None

    @property
    def n_total(self) -> int:
        return self.n_done_before + self.n_remaining_at_start

    @property
    def n_done(self) -> int:
        return self.n_done_before + self.n_saved


class Progress:
    """Counts what the stages report.

    :param clock: monotonic seconds
    :param n_uncalled: of those that remain, narratives that get their rows without a call; no time is left for them
    :param downtime_s: seconds so far in which the endpoint let nobody work; left out of rate and time left
    """

    def __init__(
        self,
        *,
        n_done_before: int,
        n_remaining: int,
        n_uncalled: int = 0,
        clock: Callable[[], float],
        downtime_s: Callable[[], float] = lambda: 0.0,
        waiting_for: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._n_done_before = n_done_before
        self._n_remaining = n_remaining
        self._n_to_call = n_remaining - n_uncalled
        self._clock = clock
        self._downtime_s = downtime_s
        self._waiting_for = waiting_for
        self._started = clock()
        self._n_called = 0
        self._n_skipped = 0
        self._n_copied = 0
        self._errors: Counter[str] = Counter()
        self._prompt_tokens = 0
        self._completion_tokens = 0
        self._n_failed_calls = 0
        #: seconds of work, narratives that were called for and completion tokens saved until then
        self._points: deque[tuple[float, int, int]] = deque([(0.0, 0, 0)])
        self.recent_latencies_s: deque[float] = deque(maxlen=LATENCY_WINDOW_CALLS)
        #: calls on the wire; the caller counts it up and down
        self.in_flight = 0
        #: what people should know while the run goes on, in one sentence
        self.notice: str | None = None

    def tell(self, notice: str) -> None:
        """Something that people should know while the run goes on; the last such sentence is shown."""
        RUN_LOG.warning("%s", notice)
        self.notice = notice

    def record_saved(self, messages: Sequence[WriterMessage]) -> None:
        """A batch is on disk."""
        for message in messages:
            if isinstance(message, Serving):
                continue
            if isinstance(message, Skip):
                self._n_skipped += 1
                continue
            if isinstance(message, Copy):
                self._n_copied += 1
                if message.error_category is not None:
                    self._errors[message.error_category] += 1
                continue
            attempt = message.attempt if isinstance(message, Outcome) else message
            if attempt is not None:
                self._prompt_tokens += attempt.usage.prompt_tokens or 0
                self._completion_tokens += attempt.usage.completion_tokens or 0
            if not isinstance(message, Outcome):
                self._n_failed_calls += 1
                continue
            if message.item.is_canary:
                continue
            self._n_called += 1
            if attempt is not None:
                self.recent_latencies_s.append(attempt.duration_s)
            if isinstance(message.verdict, Failure):
                self._errors[message.verdict.category.value] += 1
        worked_s = self._worked_s()
        # One point a second is enough for a rate over two minutes, and keeps the memory flat.
        if worked_s - self._points[-1][0] >= 1.0 or len(self._points) == 1:
            self._points.append((worked_s, self._n_called, self._completion_tokens))
        while len(self._points) > 2 and worked_s - self._points[1][0] >= RATE_WINDOW_S:
            self._points.popleft()

    @property
    def runtime_s(self) -> float:
        return self._clock() - self._started

    def mark(self) -> ProgressMark:
        """What to note in the database beside the next batch."""
        eta_s = self._eta_s(self._rate_per_s())
        until = None if eta_s is None else local_text(_later(utc_now(), eta_s))
        return ProgressMark(runtime_s=self.runtime_s, estimated_completion_time=until)

    def snapshot(self) -> ProgressSnapshot:
        rate_per_s = self._rate_per_s()
        return ProgressSnapshot(
            n_done_before=self._n_done_before,
            n_remaining_at_start=self._n_remaining,
            n_saved=self._n_called + self._n_skipped + self._n_copied,
            n_skipped=self._n_skipped,
            n_copied=self._n_copied,
            errors=dict(self._errors),
            in_flight=self.in_flight,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            n_failed_calls=self._n_failed_calls,
            rate_per_s=rate_per_s,
            tokens_per_s=self._tokens_per_s(),
            eta_s=self._eta_s(rate_per_s),
            runtime_s=self.runtime_s,
            downtime_s=self._downtime_s(),
            waiting_for=self._waiting_for(),
        )

    def _worked_s(self) -> float:
        return max(0.0, self.runtime_s - self._downtime_s())

    def _rate_per_s(self) -> float | None:
        since_s, called_then, _ = self._points[0]
        elapsed_s = self._worked_s() - since_s
        called = self._n_called - called_then
        return called / elapsed_s if called and elapsed_s > 0 else None

    def _tokens_per_s(self) -> float | None:
        since_s, _, tokens_then = self._points[0]
        elapsed_s = self._worked_s() - since_s
        tokens = self._completion_tokens - tokens_then
        return tokens / elapsed_s if tokens and elapsed_s > 0 else None

    def _eta_s(self, rate_per_s: float | None) -> float | None:
        return None if rate_per_s is None else max(0, self._n_to_call - self._n_called) / rate_per_s


def _later(moment: datetime, seconds: float) -> datetime:
    # a century is far enough for a time left, and datetime overflows
    return moment + timedelta(seconds=min(seconds, 3.2e9))
