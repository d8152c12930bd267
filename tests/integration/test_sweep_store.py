"""Promises of sweeps and prompts in SQLite: made whole or not at all, found by name, each prompt kept once."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from narrun_async.errors import StorageError
from narrun_async.models import NewExperiment, Sweep, SweepId, SweepPlace, text_sha256
from narrun_async.stores import SqliteStore, open_sqlite_writer
from narrun_async.stores.sqlite.migrations import MIGRATIONS, _add_prompts_and_sweeps

SWEEP = Sweep(
    sweep_id=SweepId("5eeb0000-0000-4000-8000-000000000000"),
    sweep_name="made up",
    definition_sha256="0" * 64,
    sweep_file="/made/up.yaml",
    notes=None,
    created_at="2026-01-02 03:04:05",
)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await open_sqlite_writer(tmp_path / "experiments.db")
    yield opened
    await opened.aclose()


def members(build: Any, *numbers: int) -> list[NewExperiment]:
    return [
        replace(
            build.new_experiment(number),
            sweep=SweepPlace(sweep_id=SWEEP.sweep_id, position=number, settings={"run.seed": str(number)}),
        )
        for number in numbers
    ]


async def test_a_sweep_is_found_by_its_name_and_its_experiments_in_their_order(store: SqliteStore, build: Any) -> None:
    await store.create_sweep(SWEEP, members(build, 2, 1, 3))
    assert await store.find_sweep("made up") == SWEEP
    assert await store.find_sweep("another") is None
    listed = await store.list_sweep(SWEEP.sweep_id)
    assert [one.columns["sweep_position"] for one in listed] == [1, 2, 3]
    assert listed[0].columns["sweep_settings"] == '{"run.seed": "1"}'


async def test_a_sweep_that_cannot_be_made_whole_leaves_nothing(store: SqliteStore, build: Any) -> None:
    with pytest.raises(StorageError):
        await store.create_sweep(SWEEP, members(build, 1, 2, 2))
    assert await store.find_sweep("made up") is None
    assert await store.list_experiments() == []
    await store.create_sweep(SWEEP, members(build, 1, 2))
    with pytest.raises(StorageError):  # one sweep a name
        await store.create_sweep(replace(SWEEP, sweep_id=SweepId("another")), [])
    assert len(await store.list_experiments()) == 2


async def test_a_prompt_is_kept_once_whoever_has_it(store: SqliteStore, build: Any) -> None:
    await store.create_sweep(SWEEP, members(build, 1, 2))
    await store.create_experiment(build.new_experiment(3, system_prompt=None))
    rows = await store.fetch_all("SELECT sha256, prompt_text FROM prompts ORDER BY prompt_text", {})
    expected = ["Read: <<TEXT>>", "You read accounts."]
    assert [tuple(row) for row in rows] == [(text_sha256(text), text) for text in expected]
    third = await store.load_experiment(build.new_experiment(3).experiment_id)
    assert third.columns["system_prompt_sha256"] is None
    assert third.columns["user_template_sha256"] == text_sha256("Read: <<TEXT>>")


async def test_prompts_of_older_experiments_are_gathered_by_the_migration(tmp_path: Path, build: Any) -> None:
    path = tmp_path / "older.db"
    store = await open_sqlite_writer(path)
    await store.create_experiment(build.new_experiment(1))
    await store.create_experiment(build.new_experiment(2, system_prompt="Another prompt of tests."))
    await store.aclose()
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE prompts")
        db.execute("UPDATE experiments SET system_prompt_sha256 = NULL, user_template_sha256 = NULL")
        db.execute(f"PRAGMA user_version = {MIGRATIONS.index(_add_prompts_and_sweeps)}")
        db.commit()

    store = await open_sqlite_writer(path)
    try:
        rows = await store.fetch_all(
            "SELECT e.system_prompt, p.prompt_text FROM experiments AS e"
            " JOIN prompts AS p ON p.sha256 = e.system_prompt_sha256",
            {},
        )
        assert len(list(rows)) == 2
        assert all(row[0] == row[1] for row in rows)
        assert (await store.fetch_exactly_one("SELECT COUNT(*) FROM prompts", {}))[0] == 3
    finally:
        await store.aclose()
