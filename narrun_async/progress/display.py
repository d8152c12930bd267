"""Shows a run on a terminal, or as plain lines where there is none; it can never hold up or end the run.

Every write is made in a thread: a terminal that has been stopped, a pager that nobody scrolls or a connection that
hangs blocks that thread, and the event loop goes on.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Protocol, TextIO

import anyio
import anyio.to_thread
from rich.console import Console
from rich.live import Live
from rich.text import Text

from narrun_async.progress.tally import Progress, ProgressSnapshot
from narrun_async.reporting.wording import (
    categories_text,
    clock_text,
    duration_text,
    percent_text,
    printable,
    rate_text,
    short_count,
)

#: four pictures a second take about 0.6 % of a core
REFRESH_EVERY_S = 0.25
#: a first plain line soon, so that a wrong setting is seen, then few enough to keep a log readable
FIRST_LINE_AFTER_S = 2.0
LINE_EVERY_S = 10.0
#: how long the last picture may take before the run ends without it
LAST_PICTURE_S = 1.0

#: error categories that are named; the others are summed up
_CATEGORIES_SHOWN = 3
_SHORTEST_BAR, _LONGEST_BAR = 8, 32
_LONGEST_DESCRIPTION = 24

# A closed terminal or pipe raises OSError, a closed Python stream ValueError. Neither says anything about the run.
_STREAM_IS_GONE = (OSError, ValueError)


async def show_progress(
    progress: Progress,
    *,
    stream: TextIO,
    interactive: bool,
    description: str = "",
    note: Callable[[], str | None] = lambda: None,
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
) -> None:
    """Show the run until cancelled; then show its last state and leave the cursor visible, on a line of its own.

    Returns early, without a word, when the stream is gone.

    :param stream: stderr
    :param interactive: the stream is a terminal
    :param description: name of the experiment
    :param note: a few words beside the figures while there is something to say, such as that the run drains
    """
    view = _view(stream, description, interactive=interactive)
    one_at_a_time = threading.Lock()

    async def show(act: Callable[[ProgressSnapshot, str | None], None]) -> None:
        snapshot, words = progress.snapshot(), note()

        def write() -> None:
            with one_at_a_time:
                act(snapshot, words)

        # Abandoned on cancellation, because a write into a stopped terminal may never return.
        await anyio.to_thread.run_sync(write, abandon_on_cancel=True)

    try:
        await show(view.start)
        for pause_s in view.pauses_s():
            await sleep(pause_s)
            await show(view.update)
    except _STREAM_IS_GONE:
        return
    finally:
        with anyio.move_on_after(LAST_PICTURE_S, shield=True):
            with suppress(*_STREAM_IS_GONE):
                await show(view.finish)


def render_line(snapshot: ProgressSnapshot, note: str | None = None) -> str:
    """The state of a run in one line of plain ASCII, most important first."""
    return ", ".join(_figures(snapshot, note))


def _figures(snapshot: ProgressSnapshot, note: str | None) -> list[str]:
    """What is to be said, most important first: a narrow terminal shows the head of the list."""
    done, total = snapshot.n_done, snapshot.n_total
    figures = [f"{done:,}/{total:,} ({percent_text(done, total)})"]
    if note:
        figures.append(printable(note))
    if snapshot.waiting_for:
        figures.append(f"waiting: {printable(snapshot.waiting_for)}")
    if snapshot.eta_s is not None and done < total:
        figures.append(f"{clock_text(snapshot.eta_s)} left")
    if snapshot.rate_per_s is not None:
        figures.append(rate_text(snapshot.rate_per_s))
    n_errors = sum(snapshot.errors.values())
    if n_errors:
        named = categories_text(snapshot.errors, at_most=_CATEGORIES_SHOWN)
        figures.append(f"{n_errors:,} error{'s' * (n_errors > 1)} ({named})")
    figures.append(f"{snapshot.in_flight:,} in flight")
    if snapshot.n_skipped:
        figures.append(f"{snapshot.n_skipped:,} skipped")
    if snapshot.n_copied:
        figures.append(f"{snapshot.n_copied:,} copied")
    if snapshot.prompt_tokens or snapshot.completion_tokens:
        figures.append(f"{short_count(snapshot.prompt_tokens)}+{short_count(snapshot.completion_tokens)} tokens")
    if snapshot.n_failed_calls:
        figures.append(f"{snapshot.n_failed_calls:,} failed call{'s' * (snapshot.n_failed_calls > 1)}")
    if snapshot.downtime_s >= 1:
        figures.append(f"waited {duration_text(snapshot.downtime_s)}")
    figures.append(f"running {clock_text(snapshot.runtime_s)}")
    return figures


class _View(Protocol):
    """Writes; called in a thread, never by two at once."""

    def start(self, snapshot: ProgressSnapshot, note: str | None) -> None: ...

    def update(self, snapshot: ProgressSnapshot, note: str | None) -> None: ...

    def finish(self, snapshot: ProgressSnapshot, note: str | None) -> None: ...

    def pauses_s(self) -> Iterable[float]: ...


def _view(stream: TextIO, description: str, *, interactive: bool) -> _View:
    console = _Console(file=stream, force_terminal=True) if interactive else None
    if console is None or console.is_dumb_terminal:
        return _PlainLines(stream, printable(description))
    return _LiveLine(console, printable(description))


class _PlainLines:
    """One line a state, no control characters: for files, pipes and dumb terminals."""

    def __init__(self, stream: TextIO, description: str) -> None:
        self._stream = stream
        self._lead = f"{description}: " if description else ""

    def update(self, snapshot: ProgressSnapshot, note: str | None) -> None:
        line = f"{self._lead}{render_line(snapshot, note)}\n"
        encoding = self._stream.encoding or "ascii"
        self._stream.write(line.encode(encoding, "backslashreplace").decode(encoding))
        self._stream.flush()

    start = finish = update

    def pauses_s(self) -> Iterable[float]:
        return itertools.chain([FIRST_LINE_AFTER_S], itertools.repeat(LINE_EVERY_S))


class _LiveLine:
    """One line that is drawn again and again; what others print on stderr meanwhile appears above it."""

    def __init__(self, console: Console, description: str) -> None:
        self._console = console
        self._description = description.encode(console.encoding, "replace").decode(console.encoding)
        self._description = self._description[:_LONGEST_DESCRIPTION]
        self._picture = Text()
        self._live = Live(
            console=console,
            auto_refresh=False,
            get_renderable=lambda: self._picture,
            # Results go to stdout, and it may be a file.
            redirect_stdout=False,
            vertical_overflow="crop",
        )

    def start(self, snapshot: ProgressSnapshot, note: str | None) -> None:
        self._picture = self._draw(snapshot, note)
        self._live.start(refresh=True)

    def update(self, snapshot: ProgressSnapshot, note: str | None) -> None:
        self._picture = self._draw(snapshot, note)
        self._live.refresh()

    def finish(self, snapshot: ProgressSnapshot, note: str | None) -> None:
        self._picture = self._draw(snapshot, note)
        self._live.stop()

    def pauses_s(self) -> Iterable[float]:
        return itertools.repeat(REFRESH_EVERY_S)

    def _draw(self, snapshot: ProgressSnapshot, note: str | None) -> Text:
        # One column stays free: some terminals wrap when the last one is written.
        width = self._console.width - 1
        figures = _figures(snapshot, note)
        lead = f"{self._description} " if self._description else ""
        # The bar's length depends on the terminal alone, so that the figures stay where they are.
        bar_width = min(max(_SHORTEST_BAR, width // 5), _LONGEST_BAR)
        room = width - Text(lead).cell_len - bar_width - 1
        if room < len(figures[0]):
            lead, bar_width, room = "", 0, width
        done_width = bar_width * snapshot.n_done // max(1, snapshot.n_total)
        done, left = ("━", "─") if self._console.encoding.startswith("utf") else ("#", "-")
        return Text.assemble(
            (lead, "bold"),
            (done * done_width, "bar.complete"),
            (left * (bar_width - done_width), "bar.back"),
            " " if bar_width else "",
            (_fit(figures, room)[:room], "yellow" if snapshot.waiting_for or note else ""),
            no_wrap=True,
            overflow="crop",
        )


def _fit(figures: list[str], width: int) -> str:
    """As many of the first figures as fit, and the very first in any case."""
    line = figures[0]
    for figure in figures[1:]:
        if len(line) + 2 + len(figure) > width:
            break
        line = f"{line}, {figure}"
    return line


class _Console(Console):
    """A console that reports a closed pipe, where rich would end the process, and never hides the cursor.

    A killed run could not show it again.
    """

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError("the terminal is gone")

    def show_cursor(self, show: bool = True) -> bool:
        return show and super().show_cursor(show)
