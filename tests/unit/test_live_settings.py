"""Promises of the control file: the process it names obeys it once, nobody else does, and nonsense changes nothing."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narrun_async.config.sections import MAX_CONCURRENCY
from narrun_async.control import LiveSettings, follow_live_settings, read_live_settings, write_live_settings
from narrun_async.control.live_settings import LOOK_EVERY_S

ME = os.getpid()


class Looks:
    """Lets the follower look when the test says so, and notes what it obeyed."""

    def __init__(self) -> None:
        self.obeyed = list[LiveSettings]()
        self.asked_s = list[float]()
        self._next = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.asked_s.append(seconds)
        self._next.clear()
        await self._next.wait()

    async def look(self) -> list[LiveSettings]:
        """:returns: what was obeyed since the last look"""
        self.obeyed.clear()
        for _ in range(3):
            await asyncio.sleep(0)
        self._next.set()
        for _ in range(3):
            await asyncio.sleep(0)
        return list(self.obeyed)


@asynccontextmanager
async def following(path: Path) -> AsyncIterator[Looks]:
    looks = Looks()
    follower = asyncio.create_task(follow_live_settings(path, looks.obeyed.append, sleep=looks.sleep))
    await asyncio.sleep(0)
    try:
        yield looks
    finally:
        follower.cancel()
        await asyncio.gather(follower, return_exceptions=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.json"


@pytest.mark.parametrize(
    "settings",
    [
        LiveSettings(pid=1),
        LiveSettings(pid=1, concurrency=1),
        LiveSettings(pid=1, concurrency=MAX_CONCURRENCY, is_paused=True),
        LiveSettings(pid=1, concurrency="auto"),
    ],
)
def test_what_is_written_is_read_again(path: Path, settings: LiveSettings) -> None:
    write_live_settings(path, settings)
    assert read_live_settings(path) == settings


def test_the_file_is_its_owners_and_nothing_lies_beside_it(path: Path) -> None:
    before = os.umask(0)
    try:
        write_live_settings(path, LiveSettings(pid=1))
        write_live_settings(path, LiveSettings(pid=2))
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["control.json"]


@pytest.mark.parametrize(
    "document",
    [
        "",
        "{",
        "[]",
        "null",
        "7",
        '{"pid": 1',
        "{}",
        '{"pid": "1"}',
        '{"pid": true}',
        '{"pid": 1, "concurrency": 0}',
        '{"pid": 1, "concurrency": -4}',
        '{"pid": 1, "concurrency": 2.5}',
        '{"pid": 1, "concurrency": true}',
        '{"pid": 1, "concurrency": "8"}',
        '{"pid": 1, "concurrency": "AUTO"}',
        '{"pid": 1, "concurrency": 4097}',
        '{"pid": 1, "concurrency": 1000000000000}',
        '{"pid": 1, "concurrency": [8]}',
        '{"pid": 1, "is_paused": 1}',
        '{"pid": 1, "is_paused": null}',
        '{"pid": 1, "drop_tables": true}',
        '{"pid": 1, "concurrency": 8}' + " " * 5000 + "x",
        "[" * 4000,
    ],
)
def test_nonsense_is_nothing_at_all(path: Path, document: str) -> None:
    path.write_text(document, encoding="utf-8")
    found = read_live_settings(path)
    assert found is None or document.startswith('{"pid": 1, "concurrency": 8} ')


@given(st.binary(max_size=200))
def test_no_bytes_make_it_raise(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any-control.json"
    path.write_bytes(content)
    read_live_settings(path)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), st.lists, max_leaves=4
)


@given(st.fixed_dictionaries({}, optional={"pid": _JSON, "concurrency": _JSON, "is_paused": _JSON}))
def test_whatever_is_read_can_be_obeyed(tmp_path_factory: pytest.TempPathFactory, document: dict[str, Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "some-control.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    settings = read_live_settings(path)
    if settings is not None:
        assert type(settings.pid) is int
        assert type(settings.is_paused) is bool
        concurrency = settings.concurrency
        assert concurrency in (None, "auto") or (type(concurrency) is int and 1 <= concurrency <= MAX_CONCURRENCY)


async def test_a_change_is_obeyed_once_and_the_next_one_too(path: Path) -> None:
    async with following(path) as looks:
        assert await looks.look() == []
        for settings in (
            LiveSettings(pid=ME, concurrency=8),
            LiveSettings(pid=ME, concurrency="auto"),
            LiveSettings(pid=ME, concurrency="auto", is_paused=True),
            LiveSettings(pid=ME, concurrency="auto"),
        ):
            write_live_settings(path, settings)
            assert await looks.look() == [settings]
            assert await looks.look() == []
    assert set(looks.asked_s) == {LOOK_EVERY_S}


async def test_a_file_for_another_process_is_not_obeyed(path: Path) -> None:
    async with following(path) as looks:
        write_live_settings(path, LiveSettings(pid=ME + 1, is_paused=True))
        assert await looks.look() == []
        write_live_settings(path, LiveSettings(pid=ME, is_paused=True))
        assert await looks.look() == [LiveSettings(pid=ME, is_paused=True)]


async def test_what_lies_there_from_an_earlier_life_is_removed_and_not_obeyed_even_with_the_same_id(path: Path) -> None:
    write_live_settings(path, LiveSettings(pid=ME, is_paused=True))
    async with following(path) as looks:
        assert not path.exists()
        assert await looks.look() == []


async def test_nonsense_and_a_missing_directory_are_lived_with(path: Path) -> None:
    async with following(path.parent / "missing" / "control.json") as looks:
        assert await looks.look() == []
    async with following(path) as looks:
        path.write_text("{", encoding="utf-8")
        assert await looks.look() == []
        path.unlink()
        path.mkdir()
        assert await looks.look() == []
        path.rmdir()
        write_live_settings(path, LiveSettings(pid=ME, concurrency=3))
        assert await looks.look() == [LiveSettings(pid=ME, concurrency=3)]


async def test_at_the_end_the_file_is_gone(path: Path) -> None:
    async with following(path) as looks:
        write_live_settings(path, LiveSettings(pid=ME, is_paused=True))
        await looks.look()
    assert list(path.parent.iterdir()) == []
