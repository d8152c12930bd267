"""Skips and copies in virtual time: dead at every single step, cut short, and with errors that are tried again."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from virtual.databases import MemoryDatabase, SqliteDatabase, VirtualDatabase
from virtual.endpoint import VirtualEndpoint
from virtual.loop import VirtualLoop
from virtual.world import Habits, Life, Watch, World

from narrun_async.models import ExperimentStatus, Selection
from narrun_async.screening import ScreeningRules
from narrun_async.simulation.behaviour import Behaviour
from narrun_async.sources.screening_rules import load_rules

#: by number: 1 and 5 are placeholders; 3 and 7 repeat 0, 6 repeats 2, which the endpoint answers with nonsense
ACCOUNTS = ("A made-up account of somebody who fell.", "CULPRIT, a made-up account.", "A third made-up account.")
TEXTS = (
    *(ACCOUNTS[0], "No report available.", ACCOUNTS[1], ACCOUNTS[0]),
    *(ACCOUNTS[2], "N/A", ACCOUNTS[1], ACCOUNTS[0]),
)
N_ASKED, N_SKIPPED, N_COPIED = 3, 2, 3
WELL = Behaviour(seed=3)
SICK = Behaviour(seed=3, always={"CULPRIT": "malformed"})
MOST_LIVES = 5

OpenDatabase = Callable[[], VirtualDatabase]


@pytest.fixture(autouse=True)
def no_logs() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def rules() -> ScreeningRules:
    return load_rules()


@pytest.fixture(params=["memory", "sqlite"])
def open_database(request: pytest.FixtureRequest, tmp_path: Path) -> OpenDatabase:
    if request.param == "memory":
        return MemoryDatabase
    empty = SqliteDatabase(tmp_path / "empty.db")
    return lambda: empty.copied(tmp_path / "one.db")


def make_world(build: Any, rules: ScreeningRules, database: VirtualDatabase, *, behaviour: Behaviour = SICK) -> World:
    world = World(
        seed=0,
        database=database,
        endpoint=VirtualEndpoint(behaviour=behaviour, mean_s=0.02),
        build=build,
        habits=Habits(concurrency=2, batch_rows=2, page_size=2),
    )
    narratives = [build.narrative(number, text=text) for number, text in enumerate(TEXTS)]
    world.create(narratives, rules=rules, skip_placeholders=True, ask_identical_once=True)
    return world


def finish(world: World, selection: Selection = Selection.MISSING) -> Life:
    for number in range(MOST_LIVES):
        life = world.live(1000 + number, selection=selection)
        if life.result is not None and life.result.verdict.status is ExperimentStatus.COMPLETED:
            return life
    raise AssertionError(f"not complete after {MOST_LIVES} resumes")


def stride_over(database: VirtualDatabase, *, is_long: bool) -> int:
    """Every step in the long tier, some of them otherwise."""
    return 1 if is_long else 5 if isinstance(database, MemoryDatabase) else 13


def test_a_whole_run_asks_each_text_once_and_placeholders_never(
    build: Any, rules: ScreeningRules, open_database: OpenDatabase
) -> None:
    world = make_world(build, rules, open_database())

    life = world.live(1)

    assert life.result is not None
    assert world.violations() == []
    assert world.endpoint.calls == {f"Read this account: {text}": 1 for text in ACCOUNTS}
    counts, progress = life.result.summary.counts, life.result.progress
    assert (counts.n_success, counts.n_errors, counts.n_skipped, counts.n_copied) == (4, 2, 2, 3)
    assert (progress.n_saved, progress.n_skipped, progress.n_copied, progress.n_done) == (8, 2, 3, 8)
    assert progress.errors == {"bad_json": 2}
    assert progress.eta_s == 0.0
    assert (life.result.verdict.status, life.result.verdict.exit_code) == (ExperimentStatus.COMPLETED, 1)


@pytest.mark.fault("P03")
def test_after_a_crash_at_any_step_a_resume_leaves_what_an_undisturbed_run_leaves(
    build: Any, rules: ScreeningRules, open_database: OpenDatabase, is_long: bool, measured: Any
) -> None:
    oracle_world = make_world(build, rules, open_database())
    whole = oracle_world.live(1)
    oracle = oracle_world.oracle()
    assert len(oracle) == len(TEXTS)
    steps = range(1, whole.steps + 1, stride_over(oracle_world.database, is_long=is_long))
    for step in steps:
        world = make_world(build, rules, open_database())
        assert world.live(1, crash_at=step).crashed
        try:
            assert world.violations() == []
            before = world.results()
            finish(world)
            assert world.violations() == []
            assert world.oracle() == oracle
            after = world.results()
            assert {key: after[key] for key in before} == before, "a saved row was changed"
        except BaseException:
            print(f"crash at step {step} of {whole.steps}")
            raise
    measured(f"{len(steps)} crashes of a run with skips and copies, all equal in the end")


def test_a_crash_while_errors_are_tried_again_leaves_copies_that_the_next_run_brings_up(
    build: Any, rules: ScreeningRules, open_database: OpenDatabase, is_long: bool
) -> None:
    def failed_once() -> World:
        world = make_world(build, rules, open_database())
        assert world.live(1).result is not None
        world.endpoint.behaviour = WELL
        return world

    world = failed_once()
    whole = world.live(2, selection=Selection.ERRORS)
    oracle = world.oracle()
    assert {row["error_occurred"] for row in oracle.values()} == {0}
    assert world.endpoint.calls.total() == N_ASKED + 1
    was_behind = 0
    for step in range(1, whole.steps + 1, stride_over(world.database, is_long=is_long)):
        world = failed_once()
        assert world.live(2, selection=Selection.ERRORS, crash_at=step).crashed
        try:
            assert world.violations() == []
            errors = [key for key, row in world.results().items() if row["error_occurred"]]
            was_behind += len(errors) == 1
            if len(errors) == 1:
                # a plain resume calls for nothing, and yet has something to do
                calls = world.endpoint.calls.total()
                finish(world)
                assert world.endpoint.calls.total() == calls
            else:
                finish(world, Selection.MISSING_AND_ERRORS)
            assert world.violations() == []
            assert world.oracle() == oracle
        except BaseException:
            print(f"crash at step {step} of {whole.steps}")
            raise
    assert was_behind, "no crash fell between the original and its copy"


def test_a_run_that_is_asked_to_stop_still_copies_what_was_answered(
    build: Any, rules: ScreeningRules, open_database: OpenDatabase
) -> None:
    world = make_world(build, rules, open_database(), behaviour=WELL)
    world.habits.concurrency = 1
    world.endpoint.mean_s, world.endpoint.is_even = 10.0, True

    life = world.live(1, watch=_stopping(after_s=12.5))

    assert life.result is not None
    assert life.result.verdict.exit_code == 143
    assert world.violations() == []
    rows = {row["row_num"]: row for row in world.results().values()}
    assert {rank for rank, row in rows.items() if row["skip_reason"]} == {2, 6}
    copied = {rank for rank, row in rows.items() if row["copied_from"]}
    assert {4, 8} <= copied
    assert 5 not in rows
    finish(world)
    assert world.violations() == []
    assert world.endpoint.calls == {f"Read this account: {text}": 1 for text in ACCOUNTS}


def test_a_run_that_leaves_at_once_copies_nothing_and_the_next_one_does(
    build: Any, rules: ScreeningRules, open_database: OpenDatabase
) -> None:
    world = make_world(build, rules, open_database(), behaviour=WELL)
    world.habits.concurrency = 1
    world.endpoint.mean_s, world.endpoint.is_even = 10.0, True

    assert world.live(1, watch=_stopping(after_s=12.5, twice=True)).result is not None

    assert world.violations() == []
    assert not any(row["copied_from"] for row in world.results().values())
    finish(world)
    assert sum(row["copied_from"] is not None for row in world.results().values()) == N_COPIED
    assert world.violations() == []


def test_a_disk_that_is_full_stops_skips_and_loses_nothing(
    build: Any, rules: ScreeningRules, open_database: OpenDatabase
) -> None:
    world = make_world(build, rules, open_database(), behaviour=WELL)

    def filling(loop: VirtualLoop) -> Watch:
        async def fill(progress: Any, control: Any) -> None:
            world.database.is_full = True
            await asyncio.sleep(40)
            world.database.is_full = False

        return fill

    life = world.live(1, watch=filling)

    assert life.result is not None
    assert life.result.verdict.status is ExperimentStatus.COMPLETED
    assert world.violations() == []
    assert sum(row["skip_reason"] is not None for row in world.results().values()) == N_SKIPPED


def _stopping(*, after_s: float, twice: bool = False) -> Callable[[VirtualLoop], Watch]:
    def watch(loop: VirtualLoop) -> Watch:
        async def stop(progress: Any, control: Any) -> None:
            await asyncio.sleep(after_s)
            loop.deliver(signal.SIGTERM)
            if twice:
                loop.deliver(signal.SIGTERM)

        return stop

    return watch
