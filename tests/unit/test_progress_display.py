"""What people see of a run, on a terminal and where there is none."""

from __future__ import annotations

import io
import os
import re
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.file_proxy import FileProxy

from narrun_async.logs import open_experiment_logs
from narrun_async.models import Attempt, Detection, ErrorCategory, Failure, NarrativeId, Outcome, WorkItem
from narrun_async.progress import Progress, ProgressSnapshot
from narrun_async.progress.display import (
    FIRST_LINE_AFTER_S,
    LAST_PICTURE_S,
    LINE_EVERY_S,
    REFRESH_EVERY_S,
    render_line,
    show_progress,
)
from narrun_async.progress.journal import log_failures, log_progress

ITEM = WorkItem(
    narrative_id=NarrativeId(7),
    row_num=7,
    incident_id="A-7",
    narrative_type="cme",
    narrative_text="synthetic",
    text_sha256=None,
    manual_flag_ind=None,
    manual_flag=None,
)


def call(category: ErrorCategory | None = None) -> Attempt:
    return Attempt(
        narrative_id=NarrativeId(7),
        started_at=datetime(2024, 1, 1, tzinfo=UTC),
        duration_s=1.0,
        error_category=category,
        error_message="gone" if category else None,
        http_status=None,
        charged=category is not ErrorCategory.UNREACHABLE,
    )


def success() -> Outcome:
    return Outcome(item=ITEM, verdict=Detection(detected=True, confidence=1.0, parse_method="json"), attempt=call())


def error(category: ErrorCategory) -> Outcome:
    return Outcome(item=ITEM, verdict=Failure(category=category, message="unusable"), attempt=call(category))


CONTROL_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def snapshot(**changes: Any) -> ProgressSnapshot:
    fields: dict[str, Any] = {
        "n_done_before": 500,
        "n_remaining_at_start": 34_812,
        "n_saved": 11_845,
        "in_flight": 8,
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "n_failed_calls": 0,
        "rate_per_s": 4.21,
        "eta_s": 5455.0,
        "runtime_s": 2813.0,
        "downtime_s": 0.0,
        "waiting_for": None,
    }
    return ProgressSnapshot(**(fields | changes))


class Scene:
    """A run whose time passes only in the display's pauses; after the last one the display waits for its end."""

    def __init__(self, *, n_pauses: int, on_pause: Callable[[], None] = lambda: None) -> None:
        self.now_s = 0.0
        self.pauses_s: list[float] = []
        self.waiting_for: str | None = None
        self.progress = Progress(
            n_done_before=0, n_remaining=100, clock=lambda: self.now_s, waiting_for=lambda: self.waiting_for
        )
        self.over = anyio.Event()
        self._n_pauses = n_pauses
        self._on_pause = on_pause

    async def sleep(self, seconds: float) -> None:
        if len(self.pauses_s) == self._n_pauses:
            self.over.set()
            await anyio.sleep_forever()
        self.pauses_s.append(seconds)
        self.now_s += seconds
        self._on_pause()

    async def show(self, stream: TextIO, *, interactive: bool, **options: Any) -> None:
        """Until the last pause, then cancelled; also ends when the display ends by itself."""
        async with anyio.create_task_group() as beside:

            async def display() -> None:
                await show_progress(self.progress, stream=stream, interactive=interactive, sleep=self.sleep, **options)
                self.over.set()

            beside.start_soon(display)
            with anyio.fail_after(10):
                await self.over.wait()
            beside.cancel_scope.cancel()


def text_stream(encoding: str = "utf-8") -> tuple[io.TextIOWrapper, io.BytesIO]:
    written = io.BytesIO()
    return io.TextIOWrapper(written, encoding=encoding), written


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the width of the terminal."""
    monkeypatch.setenv("TERM", "xterm-256color")

    def set_width(width: int) -> None:
        monkeypatch.setenv("COLUMNS", str(width))

    set_width(100)
    return set_width


# --- the line --------------------------------------------------------------------------------------------------------


def test_line_of_a_run_that_goes_well() -> None:
    assert render_line(snapshot()) == "12,345/35,312 (34.9%), 1:30:55 left, 4.2/s, 8 in flight, running 0:46:53"


def test_line_of_a_run_in_trouble_names_the_trouble_first() -> None:
    line = render_line(
        snapshot(
            errors={"empty": 1, "timeout": 12, "refusal": 3, "schema": 2},
            prompt_tokens=1_234_567,
            completion_tokens=80_400,
            n_failed_calls=31,
            rate_per_s=0.2,
            downtime_s=72.0,
            waiting_for="the endpoint is not well",
        )
    )
    assert line == (
        "12,345/35,312 (34.9%), waiting: the endpoint is not well, 1:30:55 left, 5.0 s per narrative, "
        "18 errors (timeout 12, refusal 3, schema 2, and 1 more), 8 in flight, 1.2M+80k tokens, 31 failed calls, "
        "waited 0:01:12, running 0:46:53"
    )


def test_line_of_a_run_that_is_done_foretells_nothing() -> None:
    line = render_line(snapshot(n_saved=34_812, eta_s=0.0, in_flight=0))
    assert line.startswith("35,312/35,312 (100.0%), 4.2/s, 0 in flight")


counts = st.integers(0, 10**9)


@given(
    done_before=counts,
    remaining=counts,
    saved=counts,
    rate=st.none() | st.floats(1e-9, 1e9),
    eta=st.none() | st.floats(0, 1e300),
    waiting=st.none() | st.text(),
    note=st.none() | st.text(st.characters(max_codepoint=127)),
)
def test_every_state_is_one_line_without_control_characters(
    done_before: int,
    remaining: int,
    saved: int,
    rate: float | None,
    eta: float | None,
    waiting: str | None,
    note: str | None,
) -> None:
    state = snapshot(
        n_done_before=done_before,
        n_remaining_at_start=remaining,
        n_saved=min(saved, remaining),
        rate_per_s=rate,
        eta_s=eta,
        waiting_for=waiting,
    )
    assert render_line(state, note).isprintable()


# --- plain lines -----------------------------------------------------------------------------------------------------


async def test_plain_lines_come_at_the_start_soon_after_then_every_ten_seconds_and_at_the_end() -> None:
    scene = Scene(n_pauses=3, on_pause=lambda: scene.progress.record_saved([success()] * 10))
    stream, written = text_stream()
    await scene.show(stream, interactive=False, description="pilot")
    assert scene.pauses_s == [FIRST_LINE_AFTER_S, LINE_EVERY_S, LINE_EVERY_S]
    lines = written.getvalue().decode().splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "pilot: 0/100 (0.0%)",
        "pilot: 10/100 (10.0%)",
        "pilot: 20/100 (20.0%)",
        "pilot: 30/100 (30.0%)",
        "pilot: 30/100 (30.0%)",
    ]


async def test_plain_lines_hold_no_control_characters_and_fit_every_encoding() -> None:
    scene = Scene(n_pauses=1)
    stream, written = text_stream("ascii")
    await scene.show(stream, interactive=False, description="Versuch\x1b[2J\r äöü")
    said = written.getvalue().decode("ascii")
    assert said.startswith("Versuch?[2J? \\xe4\\xf6\\xfc: 0/100")
    assert all(sign == "\n" or sign.isprintable() for sign in said)


async def test_a_note_is_shown_while_there_is_one() -> None:
    scene = Scene(n_pauses=1)
    stream, written = text_stream()
    notes = iter(["draining", None, None])
    await scene.show(stream, interactive=False, note=lambda: next(notes))
    assert ["draining" in line for line in written.getvalue().decode().splitlines()] == [True, False, False]


async def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    scene = Scene(n_pauses=1)
    stream, written = text_stream()
    await scene.show(stream, interactive=True)
    assert b"\x1b" not in written.getvalue()
    assert written.getvalue().count(b"\n") == 3


# --- the live line ---------------------------------------------------------------------------------------------------


def pictures(written: io.BytesIO) -> list[str]:
    return CONTROL_SEQUENCE.sub("", written.getvalue().decode()).rstrip("\r\n").split("\r")


@pytest.mark.parametrize("width", [20, 40, *range(72, 104, 3), 200])
async def test_live_line_never_wraps(terminal: Callable[[int], None], width: int) -> None:
    terminal(width)

    def go_wrong() -> None:
        scene.progress.record_saved([error(ErrorCategory.TIMEOUT), error(ErrorCategory.CONFIDENCE_OUT_OF_RANGE)])
        scene.waiting_for = "the endpoint is overloaded"

    scene = Scene(n_pauses=4, on_pause=go_wrong)
    stream, written = text_stream()
    await scene.show(stream, interactive=True, description="exp_100_production_20k_with_a_long_name")
    assert scene.pauses_s == [REFRESH_EVERY_S] * 4
    assert len(pictures(written)) >= 5
    assert max(map(len, pictures(written))) < width
    assert written.getvalue().count(b"\n") == 1


async def test_live_line_shows_bar_figures_and_what_it_waits_for(terminal: Callable[[int], None]) -> None:
    terminal(101)

    def work() -> None:
        scene.progress.record_saved([success()] * 25)
        scene.waiting_for = "the endpoint is not well"

    scene = Scene(n_pauses=2, on_pause=work)
    stream, written = text_stream()
    await scene.show(stream, interactive=True, description="pilot")
    last = pictures(written)[-1]
    assert re.match(r"pilot (━+)(─+) 50/100 \(50\.0%\), waiting: the endpoint is not well, ", last)
    assert (last.count("━"), last.count("─")) == (10, 10)


@pytest.mark.usefixtures("terminal")
async def test_live_line_leaves_the_cursor_visible_on_a_line_of_its_own() -> None:
    scene = Scene(n_pauses=2)
    stream, written = text_stream()
    stderr = sys.stderr
    await scene.show(stream, interactive=True)
    said = written.getvalue().decode()
    assert "\x1b[?25l" not in said  # a killed run could not show the cursor again
    assert said.endswith("\n\x1b[?25h")
    assert sys.stderr is stderr


@pytest.mark.usefixtures("terminal")
async def test_what_others_print_on_stderr_meanwhile_stays_whole() -> None:
    scene = Scene(n_pauses=2, on_pause=lambda: print("drains now", file=sys.stderr))
    stream, written = text_stream()
    await scene.show(stream, interactive=True)
    assert "\ndrains now\n" in "\n" + "\n".join(pictures(written)) + "\n"


@pytest.mark.usefixtures("terminal")
async def test_results_on_stdout_are_left_alone() -> None:
    stdout = sys.stdout
    seen: list[TextIO] = []
    scene = Scene(n_pauses=1, on_pause=lambda: seen.append(sys.stdout))
    await scene.show(text_stream()[0], interactive=True)
    assert seen == [stdout]


@pytest.mark.usefixtures("terminal")
async def test_an_ascii_terminal_gets_an_ascii_bar() -> None:
    scene = Scene(n_pauses=1, on_pause=lambda: scene.progress.record_saved([success()] * 50))
    stream, written = text_stream("ascii")
    await scene.show(stream, interactive=True, description="ä")
    assert re.match(r"\? #+-+ 50/100", pictures(written)[-1])


# --- streams that fail -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("interactive", [False, True])
async def test_a_closed_pipe_ends_the_display_and_not_the_run(interactive: bool) -> None:
    reading, writing = os.pipe()
    stream = os.fdopen(writing, "w", encoding="utf-8")
    stderr = sys.stderr
    scene = Scene(n_pauses=1000, on_pause=lambda: os.close(reading) if len(scene.pauses_s) == 3 else None)
    await scene.show(stream, interactive=interactive)
    assert len(scene.pauses_s) == 3
    assert sys.stderr is stderr
    with suppress(BrokenPipeError):
        stream.close()


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("interactive", [False, True])
async def test_a_closed_stream_ends_the_display_and_not_the_run(interactive: bool) -> None:
    stream, _ = text_stream()
    scene = Scene(n_pauses=1000, on_pause=lambda: stream.close() if len(scene.pauses_s) == 3 else None)
    await scene.show(stream, interactive=interactive)
    assert len(scene.pauses_s) == 3


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("interactive", [False, True])
async def test_a_terminal_that_takes_nothing_more_holds_up_neither_the_run_nor_its_end(interactive: bool) -> None:
    reading, writing = os.pipe()
    stream = os.fdopen(writing, "w", encoding="utf-8")
    filled = threading.Event()

    def fill() -> None:
        os.set_blocking(writing, False)
        with suppress(BlockingIOError):
            while True:
                os.write(writing, b"x" * 4096)
        os.set_blocking(writing, True)
        filled.set()

    scene = Scene(n_pauses=1000, on_pause=fill)
    try:
        with anyio.fail_after(LAST_PICTURE_S + 5):
            async with anyio.create_task_group() as beside:

                async def display() -> None:
                    await show_progress(scene.progress, stream=stream, interactive=interactive, sleep=scene.sleep)

                beside.start_soon(display)
                while not filled.is_set():
                    await anyio.sleep(0.01)
                for _ in range(10):  # the loop goes on while the display hangs in its write
                    await anyio.sleep(0.01)
                beside.cancel_scope.cancel()
        assert len(scene.pauses_s) == 1
    finally:
        os.close(reading)  # lets the hanging writes go
        while isinstance(sys.stderr, FileProxy):
            await anyio.sleep(0.01)
        with suppress(OSError):
            stream.close()


# --- the log files ---------------------------------------------------------------------------------------------------


async def test_performance_log_gets_a_line_every_ten_seconds_and_one_at_the_end(tmp_path: Path) -> None:
    scene = Scene(n_pauses=3, on_pause=lambda: scene.progress.record_saved([success()]))
    with open_experiment_logs(tmp_path, level="info"):
        async with anyio.create_task_group() as beside:
            beside.start_soon(lambda: log_progress(scene.progress, sleep=scene.sleep))
            await scene.over.wait()
            beside.cancel_scope.cancel()
    lines = (tmp_path / "performance.log").read_text().splitlines()
    assert [re.search(r"INFO (\d+)/100", line)[1] for line in lines] == ["1", "2", "3", "3"]  # type: ignore[index]


def test_errors_log_gets_failed_calls_and_error_rows_and_no_text(tmp_path: Path) -> None:
    lost = call(ErrorCategory.CONNECTION_LOST)
    with open_experiment_logs(tmp_path, level="info"):
        log_failures([success(), error(ErrorCategory.EMPTY), lost, call(ErrorCategory.UNREACHABLE), call()])
    text = (tmp_path / "errors.log").read_text()
    assert [line.split(" ", 1)[1] for line in text.splitlines()] == [
        "ERROR narrative 7: error row, empty: unusable",
        "WARNING narrative 7: call failed, connection_lost: gone",
        "WARNING narrative 7: call failed, unreachable: gone (not charged)",
    ]
    assert "synthetic" not in text
