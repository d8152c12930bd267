"""Promises of the live view: what a run writes is read again, it goes when the run goes, and nonsense is not shown."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narrun_async.progress import Progress
from narrun_async.progress.live_view import (
    CHANGES_SHOWN,
    WRITE_EVERY_S,
    LimitView,
    LiveView,
    live_lines,
    read_live_view,
    write_live_views,
)

LIMITS = LimitView(limit=16, is_auto=True, pace_per_s=None, is_paused=False)
VIEW = LiveView(
    pid=4711,
    experiment_id="3b9bd5c1-1612-4539-9725-267519d376d9",
    written_at="2026-01-02 03:04:05",
    n_done=1234,
    n_total=42_000,
    n_saved=34,
    in_flight=12,
    rate_per_s=36.0,
    tokens_per_s=1500.0,
    eta_s=3700.0,
    runtime_s=61.0,
    downtime_s=0.0,
    latency_p50_s=0.25,
    latency_p95_s=1.5,
    waiting_for=None,
    limits=LIMITS,
)
NOTHING_KNOWN = replace(
    VIEW, rate_per_s=None, tokens_per_s=None, eta_s=None, latency_p50_s=None, latency_p95_s=None, n_done=0, n_total=0
)


def write(path: Path, view: LiveView, **changes: Any) -> Path:
    path.write_text(json.dumps(asdict(view) | changes), encoding="utf-8")
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "live.json"


@pytest.mark.parametrize("view", [VIEW, NOTHING_KNOWN, replace(VIEW, errors={"bad_json": 3}, waiting_for="paused")])
def test_what_is_written_is_read_again(path: Path, view: LiveView) -> None:
    assert read_live_view(write(path, view)) == view


def test_the_history_is_read_again(path: Path) -> None:
    history = (("2026-01-02 03:04:05", "8 in flight", "climb"),)
    limits = replace(LIMITS, history=history)
    found = read_live_view(write(path, replace(VIEW, limits=limits)))
    assert found is not None
    assert found.limits.history == history


@pytest.mark.parametrize(
    "document",
    ["", "{", "[]", "null", "{}", '{"limits": null}', '{"limits": {"history": []}}', "[" * 100_000],
)
def test_nonsense_is_no_view(path: Path, document: str) -> None:
    path.write_text(document, encoding="utf-8")
    assert read_live_view(path) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"pid": "4711"},
        {"pid": None},
        {"n_done": "many"},
        {"n_total": None},
        {"rate_per_s": "fast"},
        {"eta_s": float("nan")},
        {"eta_s": float("inf")},
        {"in_flight": [1]},
        {"errors": 7},
        {"downtime_s": None},
        {"unknown": 1},
    ],
    ids=lambda changes: f"{next(iter(changes))}-{next(iter(changes.values()))}",
)
def test_a_view_that_could_not_be_shown_is_no_view(path: Path, changes: dict[str, Any]) -> None:
    found = read_live_view(write(path, VIEW, **changes))
    assert found is None or live_lines(found)


def test_a_missing_file_is_no_view(path: Path) -> None:
    assert read_live_view(path) is None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


@given(key=st.sampled_from([*asdict(VIEW)]), value=_JSON)
def test_whatever_is_read_can_be_shown(tmp_path_factory: pytest.TempPathFactory, key: str, value: Any) -> None:
    found = read_live_view(write(tmp_path_factory.getbasetemp() / "any-live.json", VIEW, **{key: value}))
    if found is not None:
        assert all(isinstance(line, str) for line in live_lines(found))


def test_the_lines_tell_progress_pace_latency_errors_and_how_the_limit_came_about() -> None:
    history = tuple((f"2026-01-02 03:04:{second:02}", f"{second} in flight", "climb") for second in range(20))
    limits = replace(LIMITS, pace_per_s=9.5, history=history)
    view = replace(VIEW, limits=limits, errors={"bad_json": 3}, waiting_for="the endpoint is overloaded", downtime_s=7)
    text = "\n".join(live_lines(view))
    for part in (
        "1,234 of 42,000", "36", "1,500 completion tokens/s", "12 of 16, auto", "bad_json 3", "9.5 calls a second",
        "the endpoint is overloaded", "03:04:19  19 in flight (climb)",
    ):  # fmt: skip
        assert part in text
    assert f"{19 - CHANGES_SHOWN} in flight" not in text


def test_what_is_unknown_is_said_to_be() -> None:
    lines = live_lines(NOTHING_KNOWN)
    assert sum("unknown" in line for line in lines) >= 3


class Writing:
    """A run that writes its view; each look at the clock is one second later."""

    def __init__(self, path: Path) -> None:
        self.progress = Progress(n_done_before=5, n_remaining=10, clock=lambda: 0.0)
        self.slept_s = list[float]()
        self._written = asyncio.Event()
        self.task = asyncio.create_task(
            write_live_views(self.progress, path, "an-experiment", lambda: LIMITS, sleep=self._sleep)
        )

    async def _sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self._written.set()
        await asyncio.sleep(0.001)

    async def once(self) -> None:
        self._written.clear()
        await asyncio.wait_for(self._written.wait(), 5)

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def test_a_run_shows_itself_and_takes_the_view_away_at_its_end(path: Path) -> None:
    writing = Writing(path)
    await writing.once()
    view = read_live_view(path)
    assert view is not None
    assert (view.pid, view.experiment_id, view.n_done, view.n_total) == (os.getpid(), "an-experiment", 5, 15)
    assert (view.latency_p50_s, view.latency_p95_s, view.limits) == (None, None, LIMITS)
    writing.progress.in_flight = 3
    writing.progress.recent_latencies_s.extend(float(number) for number in range(1, 101))
    await writing.once()
    await writing.once()
    view = read_live_view(path)
    assert view is not None
    assert (view.in_flight, view.latency_p50_s, view.latency_p95_s) == (3, 50.0, 95.0)
    assert path.stat().st_mode & 0o777 == 0o600
    await writing.end()
    assert list(path.parent.iterdir()) == []
    assert set(writing.slept_s) == {WRITE_EVERY_S}


async def test_a_reader_never_sees_half_a_view(path: Path) -> None:
    writing = Writing(path)
    await writing.once()
    for _ in range(200):
        assert read_live_view(path) is not None
        await asyncio.sleep(0)
    await writing.end()


async def test_a_directory_that_is_missing_or_refuses_does_not_end_the_run(path: Path) -> None:
    for nowhere in (path.parent / "missing" / "live.json", path):
        if nowhere == path:
            path.mkdir()
            (path / "something").touch()
        writing = Writing(nowhere)
        await writing.once()
        await writing.once()
        assert not writing.task.done()
        await writing.end()
    assert [one.name for one in path.parent.iterdir()] == ["live.json"]
