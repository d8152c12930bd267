"""The real stages in virtual time: dead at every single step, in every order of events, asleep, and for a month."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from virtual.databases import MemoryDatabase, SqliteDatabase
from virtual.endpoint import VirtualEndpoint
from virtual.loop import VirtualLoop
from virtual.world import Habits, Life, Watch, World

from narrun_async.models import ExperimentStatus
from narrun_async.simulation.behaviour import Behaviour

#: what goes wrong now and then, and goes away on retry
TRANSIENT = {"http_500": 0.10, "http_429": 0.06, "http_503": 0.03, "reset": 0.06, "timeout": 0.03}
#: what is wrong with some texts for good, so that results hold error rows as well
LASTING = {"malformed": 0.12, "truncated": 0.06, "refusal": 0.06}
#: the same where bad answers are asked for once more, half of them with success
ASKED_TWICE = {"malformed": 0.6, "truncated": 0.06, "refusal": 0.06}
MENDED = 0.5
#: as fast as the disk, so that crashes fall while answers wait to be stored
ANSWER_S = 0.02
#: every narrative is known in the end: 20 lives are far more than any schedule needs
MOST_LIVES = 20


@pytest.fixture(autouse=True)
def no_logs() -> Iterator[None]:
    """Thousands of runs would log more than anybody reads, at half the cost of the runs."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def lasting(second_try: bool) -> dict[str, float]:
    return ASKED_TWICE if second_try else LASTING


def make_world(
    build: Any, seed: int, *, n_narratives: int, faults: dict[str, float] | None = None, **options: Any
) -> World:
    rates = TRANSIENT if faults is None else faults
    second_try = options.get("second_try", False)
    behaviour = Behaviour(seed=3, fault_rates=lasting(second_try) | rates, mend_rate=MENDED)
    world = World(
        seed=seed,
        database=options.pop("database", None) or MemoryDatabase(),
        endpoint=VirtualEndpoint(
            behaviour=behaviour, mean_s=options.pop("mean_s", ANSWER_S), is_asked_twice=second_try
        ),
        build=build,
        habits=Habits(**options),
    )
    world.create(n_narratives)
    return world


def undisturbed(build: Any, n_narratives: int, *, second_try: bool = False) -> dict[tuple[str, str], dict[str, Any]]:
    """I19: the results of a run with which nothing goes wrong but the answers themselves."""
    world = make_world(build, 0, n_narratives=n_narratives, faults={}, second_try=second_try)
    assert world.live(0).result is not None
    oracle = world.oracle()
    assert len(oracle) == n_narratives
    assert {row["error_occurred"] for row in oracle.values()} == {0, 1}, "the oracle must hold both kinds of rows"
    n_mended = sum("+second_try" in (row["parse_method"] or "") for row in oracle.values())
    assert (n_mended > 0) == second_try
    return oracle


def finish(world: World, seed: int) -> Life:
    """Resume until the experiment is complete."""
    for number in range(MOST_LIVES):
        life = world.live(seed + number)
        if life.result is not None and life.result.verdict.status is ExperimentStatus.COMPLETED:
            return life
    raise AssertionError(f"not complete after {MOST_LIVES} resumes")


class Crash:
    """What a crash left, and what a resume must make of it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rows = world.results()
        self.calls = world.endpoint.calls.copy()
        self.decided = world.endpoint.decided.copy()
        self.saved_texts = {f"Read this account: {row['narrative_text']}" for row in self.rows.values()}
        self.n_lost = len(self.decided.keys() - self.saved_texts)

    def assert_nothing_of_it_is_lost(self, oracle: dict[tuple[str, str], dict[str, Any]]) -> None:
        """I1 to I14, I9, I12, I19, and the bound on repeated calls; after the resume."""
        world = self.world
        assert world.violations() == []
        assert world.oracle() == oracle
        after = world.results()
        assert {key: after[key] for key in self.rows} == self.rows, "a saved row was changed"
        endpoint = world.endpoint
        called_again = [text for text in self.saved_texts if endpoint.calls[text] != self.calls[text]]
        assert not called_again, f"{len(called_again)} saved narratives were called again"
        assert self.n_lost <= world.habits.repeated_at_most
        n_repeated = endpoint.decided.total() - len(oracle)
        assert n_repeated == self.n_lost, "more answers were bought twice than the crash had lost"


# --- P03 -------------------------------------------------------------------------------------------------------------


@pytest.mark.fault("P03")
@pytest.mark.parametrize("second_try", [False, True], ids=["asked once", "asked twice"])
def test_after_a_crash_at_any_step_a_resume_leaves_what_an_undisturbed_run_leaves(
    build: Any, is_long: bool, second_try: bool, measured: Any
) -> None:
    n_narratives, seeds = (12, range(50)) if is_long else (7, range(1))
    stride = 3 if second_try and not is_long else 1
    oracle = undisturbed(build, n_narratives, second_try=second_try)
    n_crashes = most_lost = 0
    for seed in seeds:
        habits = {"n_narratives": n_narratives, "batch_rows": 2, "concurrency": 3, "second_try": second_try}
        whole = make_world(build, seed, **habits).live(seed)
        for step in range(1, whole.steps + 1, stride):
            world = make_world(build, seed, **habits)
            assert world.live(seed, crash_at=step).crashed
            try:
                assert world.violations() == []
                crash = Crash(world)
                finish(world, seed + 1000)
                crash.assert_nothing_of_it_is_lost(oracle)
            except BaseException:
                print(f"seed {seed}, crash at step {step} of {whole.steps}")
                raise
            n_crashes, most_lost = n_crashes + 1, max(most_lost, crash.n_lost)
    measured(
        f"{'bad answers asked for twice: ' if second_try else ''}{n_crashes} crashes, one at each step of "
        f"{len(seeds)} seeds: all equal to the undisturbed run; "
        f"at most {most_lost} answers bought again"
    )


@pytest.mark.fault("P03")
def test_the_same_holds_of_the_sqlite_store_stepped_by_the_loop(
    build: Any, is_long: bool, measured: Any, tmp_path: Path
) -> None:
    """Its statements and its transaction, stopped before and after each statement."""
    n_narratives, seeds, stride = (12, range(3), 1) if is_long else (5, range(1), 7)
    oracle = undisturbed(build, n_narratives)
    empty = SqliteDatabase(tmp_path / "empty.db")
    n_crashes = 0
    for seed in seeds:
        habits = {"n_narratives": n_narratives, "batch_rows": 2, "concurrency": 3}
        whole = make_world(build, seed, database=empty.copied(tmp_path / f"{seed}-whole.db"), **habits).live(seed)
        for step in range(1 + seed, whole.steps + 1, stride):
            world = make_world(build, seed, database=empty.copied(tmp_path / "one.db"), **habits)
            assert world.live(seed, crash_at=step).crashed
            try:
                assert world.violations() == []
                crash = Crash(world)
                finish(world, seed + 1000)
                crash.assert_nothing_of_it_is_lost(oracle)
            except BaseException:
                print(f"seed {seed}, crash at step {step} of {whole.steps}")
                raise
            n_crashes += 1
    measured(f"{n_crashes} crashes between the statements of the SQLite store: all equal to the undisturbed run")


# --- P04 -------------------------------------------------------------------------------------------------------------


class Schedule:
    """All that a seed decides about one campaign: how the runs are set up, and what befalls them when."""

    def __init__(self, seed: int, n_narratives: int) -> None:
        self.seed = seed
        rng = self.rng = random.Random(f"schedule {seed}")
        self.n_narratives = n_narratives
        self.options: dict[str, Any] = {
            "concurrency": rng.choice([1, 2, 3, 5, 8, 16, None]),
            "batch_rows": rng.choice([1, 2, 3, 8, 64]),
            "page_size": rng.choice([1, 2, 5, 100]),
            "attempt_deadline_s": rng.choice([5.0, 120.0]),
            "mean_s": rng.choice([0.0, 0.005, 0.05, 1.0]),
            "faults": {name: rate * rng.choice([0, 1, 2]) for name, rate in TRANSIENT.items()},
            "second_try": seed % 4 == 3,
        }

    def disturb(self, world: World) -> Callable[[VirtualLoop], Watch]:
        """A watch under which one thing happens at some time of a run, and mostly passes."""

        def watch(loop: VirtualLoop) -> Watch:
            async def happening(progress: Any, control: Any) -> None:
                rng = self.rng
                await asyncio.sleep(rng.expovariate(1.0))
                lasts_s = rng.choice([0.1, 5.0, 55.0, 600.0])
                what = rng.choice(["nothing", "down", "overloaded", "full", "asleep", "stop", "stop twice"])
                if what.startswith("stop"):
                    loop.deliver(rng.choice([signal.SIGINT, signal.SIGTERM]))
                    await asyncio.sleep(rng.uniform(0, 0.1))
                    if what == "stop twice":
                        loop.deliver(signal.SIGINT)
                elif what == "asleep":
                    loop.jump(lasts_s)
                elif what == "down":
                    with changed(world.endpoint, is_down=True):
                        await asyncio.sleep(lasts_s)
                elif what == "full":
                    with changed(world.database, is_full=True):
                        await asyncio.sleep(lasts_s)
                elif what == "overloaded":
                    rates = {"http_429": 1.0}
                    with changed(world.endpoint, behaviour=world.endpoint.behaviour.changed({"fault_rates": rates})):
                        await asyncio.sleep(lasts_s)

            return happening

        return watch


@contextmanager
def changed(one: Any, **values: Any) -> Iterator[None]:
    """Until the end of the block, which a crash may be."""
    before = {name: getattr(one, name) for name in values}
    for name, value in values.items():
        setattr(one, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(one, name, value)


@pytest.mark.fault("P04")
def test_every_schedule_ends_with_the_results_of_an_undisturbed_run(
    build: Any, is_long: bool, measured: Any, request: pytest.FixtureRequest
) -> None:
    n_schedules = request.config.getoption("--schedules") or (500 if is_long else 40)
    first = request.config.getoption("--first-seed")
    n_narratives = 30
    oracles = {second_try: undisturbed(build, n_narratives, second_try=second_try) for second_try in (False, True)}
    n_lives = n_crashes = n_steps = 0
    for seed in range(first, first + n_schedules):
        schedule = Schedule(seed, n_narratives)
        try:
            lives = run_schedule(build, schedule, oracles[schedule.options["second_try"]])
        except BaseException:
            print(f"schedule seed {seed}: pytest {request.node.nodeid} --first-seed {seed} --schedules 1")
            raise
        n_lives, n_crashes = n_lives + len(lives), n_crashes + sum(life.crashed for life in lives)
        n_steps += sum(life.steps for life in lives)
    measured(
        f"{n_schedules} schedules from seed {first}: {n_lives} lives, {n_crashes} of them ended by a crash, "
        f"{n_steps} steps; 0 differ from the undisturbed run"
    )


def run_schedule(build: Any, schedule: Schedule, oracle: dict[tuple[str, str], dict[str, Any]]) -> list[Life]:
    rng, seed = schedule.rng, schedule.seed
    world = make_world(build, seed, n_narratives=schedule.n_narratives, **schedule.options)
    lives: list[Life] = []
    for number in range(rng.choice([1, 2, 3])):
        before = world.results()
        crash_at = rng.choice([None, rng.randrange(1, 200), rng.randrange(1, 1500)])
        lives.append(world.live(seed * 100 + number, crash_at=crash_at, watch=schedule.disturb(world)))
        assert world.violations() == []
        assert before.items() <= world.results().items(), "a saved row was changed"
    world.endpoint.is_down = world.database.is_full = False
    rates = lasting(schedule.options["second_try"]) | schedule.options["faults"]
    world.endpoint.behaviour = world.endpoint.behaviour.changed({"fault_rates": rates})
    lives.append(finish(world, seed * 100 + 50))
    assert world.violations() == []
    assert world.oracle() == oracle
    return lives


# --- asleep ----------------------------------------------------------------------------------------------------------


#: calls that the endpoint serves at a time
SLOTS = 16


def test_a_process_that_stood_still_for_ten_minutes_takes_its_timeouts_for_one_episode(
    build: Any, is_long: bool
) -> None:
    """As under SIGSTOP, or in a machine that sleeps: every deadline has passed when it wakes up."""
    for seed in range(20 if is_long else 1):
        world = World(
            seed=seed,
            database=MemoryDatabase(),
            endpoint=VirtualEndpoint(behaviour=Behaviour(), mean_s=1.0, is_even=True, slots=SLOTS),
            build=build,
            habits=Habits(concurrency=None, batch_rows=64, page_size=500, attempt_deadline_s=120.0),
        )
        world.create(1500)
        limits_before, recovered = [0], [False]
        life = world.live(seed, watch=fall_asleep(world, limits_before, recovered))
        assert life.result is not None
        assert life.result.verdict.exit_code == 0, life.result.verdict
        assert limits_before[0] >= 8, "the controller had found no limit yet that could be lost"
        assert life.result.progress.n_failed_calls <= limits_before[0]
        assert recovered[0]
        assert world.violations() == []


def fall_asleep(world: World, limits_before: list[int], recovered: list[bool]) -> Callable[[VirtualLoop], Watch]:
    def watch(loop: VirtualLoop) -> Watch:
        async def falling_asleep(progress: Any, control: Any) -> None:
            await asyncio.sleep(40)
            limits = world.life.runner.limits  # type: ignore[union-attr]
            limits_before[0] = limits.auto.limit
            loop.jump(600)
            await asyncio.sleep(0.001)
            n_saved = progress.snapshot().n_saved
            # More calls than the endpoint serves at a time only wait in its line.
            while limits.auto.limit < 0.9 * min(limits_before[0], SLOTS):
                await asyncio.sleep(1)
                # 20 epochs, each of two rounds of the calls in flight at least
                assert progress.snapshot().n_saved - n_saved < 20 * 2 * limits_before[0]
            recovered[0] = True

        return falling_asleep

    return watch


# --- T02 -------------------------------------------------------------------------------------------------------------

DAY_S = 86_400.0
#: beyond the numbers of 32 bits: the first reading of the clock, the first number of every table
FAR = 2**32
#: every call reports more tokens than 32 bits hold
TOKEN_FACTOR = 10**8


@pytest.mark.fault("T02")
def test_a_run_of_a_month_keeps_its_counts_and_its_size(build: Any, is_long: bool, measured: Any) -> None:
    n_days, per_day = (30, 300) if is_long else (2, 200)
    n_narratives = n_days * per_day
    world = World(
        seed=1,
        database=MemoryDatabase(first_number=FAR),
        endpoint=VirtualEndpoint(
            behaviour=Behaviour(fault_rates=LASTING | TRANSIENT), mean_s=2 * DAY_S / per_day, token_factor=TOKEN_FACTOR
        ),
        build=build,
        habits=Habits(
            concurrency=2, batch_rows=64, page_size=500, attempt_deadline_s=20 * DAY_S / per_day, max_wait_s=DAY_S
        ),
    )
    world.create(n_narratives)
    sizes: list[tuple[int, int, int]] = []

    def watch(loop: VirtualLoop) -> Watch:
        async def days(progress: Any, control: Any) -> None:
            while True:
                await asyncio.sleep(DAY_S / 4)
                with changed(world.endpoint, is_down=True):
                    await asyncio.sleep(20 * 60)
                await asyncio.sleep(DAY_S / 4)
                overloaded = world.endpoint.behaviour.changed({"fault_rates": {"http_429": 1.0}})
                with changed(world.endpoint, behaviour=overloaded):
                    await asyncio.sleep(5 * 60)
                loop.jump(600)
                gc.collect()
                sizes.append((len(gc.get_objects()), loop.n_timers, len(loop.unfinished)))

        return days

    began = time.process_time()
    life = world.live(1, start_s=float(FAR), most_s=3 * n_days * DAY_S, watch=watch)
    took_s = time.process_time() - began
    assert life.result is not None
    assert life.result.verdict.status is ExperimentStatus.COMPLETED
    elapsed_s = life.ended_at_s - FAR
    assert elapsed_s > 0.9 * n_days * DAY_S
    assert_counts_of_a_month(world, life, n_narratives, elapsed_s)
    third = sizes[: max(1, len(sizes) // 3)]
    for first, last, allowed in zip(map(max, zip(*third, strict=True)), sizes[-1], (2_000, 50, 10), strict=True):
        assert last <= first + allowed, sizes
    measured(
        f"{elapsed_s / DAY_S:.1f} days and {n_narratives} narratives from 2³² on in {took_s:.0f} s of processor time; "
        f"runtime off by {abs(life.result.progress.runtime_s - elapsed_s):.3f} s; objects in memory {sizes[0][0]} → "
        f"{sizes[-1][0]}, timers at most {max(one[1] for one in sizes)}"
    )


def assert_counts_of_a_month(world: World, life: Life, n_narratives: int, elapsed_s: float) -> None:
    assert world.violations() == []
    assert life.result is not None
    progress = life.result.progress
    rows = world.results().values()
    assert progress.n_saved == len(rows) == n_narratives
    assert min(row["result_id"] for row in rows) == FAR
    assert max(row["result_id"] for row in rows) == FAR + n_narratives - 1
    summary = life.result.summary
    assert summary.prompt_tokens == sum(row["prompt_tokens"] for row in rows) > FAR * n_narratives / 100
    assert progress.prompt_tokens == summary.prompt_tokens
    # Opening and closing the database lie outside of the run.
    assert abs(progress.runtime_s - elapsed_s) < 1.0
    (run,) = world.ask(lambda store: store.list_runs(world.experiment.experiment_id))
    assert run.run_id == FAR
    assert run.n_saved == n_narratives
    assert abs(run.runtime_s - elapsed_s) < 1.0
    with world.database.reading() as db:
        (in_calls_s,) = db.execute("SELECT SUM(duration_s) FROM attempts").fetchone()
    assert in_calls_s <= 2 * elapsed_s
