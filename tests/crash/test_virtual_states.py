"""Any sequence of starts, kills, resumes, retries, ingests and troubles, with the invariants after every step.

A Hypothesis state machine over the real stages in virtual time, once on the store in memory and once on SQLite's.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from virtual.databases import MemoryDatabase, SqliteDatabase, VirtualDatabase
from virtual.endpoint import VirtualEndpoint
from virtual.loop import VirtualLoop
from virtual.world import Habits, Life, Watch, World, oracle_of, successes

from narrun_async.errors import BadInputError, StorageError
from narrun_async.models import Experiment, ExperimentId, ExperimentStatus, Selection
from narrun_async.simulation.behaviour import Behaviour
from narrun_async.sources.screening_rules import load_rules

N_NARRATIVES = 10
N_OTHERS = 6
#: number of a narrative of the first source → the text that it has instead of its own
REPEATED = {6: 0, 8: 4}
PLACEHOLDER = 9
FRUGAL = {"skip_placeholders": True, "ask_identical_once": True}
RULES = load_rules()
#: an endpoint that gets well is believed again after so many runs, at most
MOST_LIVES = 20
#: of one narrative of the first source only
CULPRIT = "case-00004"
WELL = Behaviour(seed=3)
MODES: dict[str, Behaviour] = {
    "ok": WELL,
    "down": WELL,
    "429": Behaviour(seed=3, fault_rates={"http_429": 1.0}),
    "500 for one": Behaviour(seed=3, always={CULPRIT: "http_500"}),
    "10 % malformed": Behaviour(seed=3, fault_rates={"malformed": 0.10}),
    "all malformed": Behaviour(seed=3, fault_rates={"malformed": 1.0}),
    "flaky": Behaviour(seed=3, fault_rates={"http_500": 0.2, "reset": 0.1, "timeout": 0.05, "http_503": 0.05}),
}
SEEDS = st.integers(0, 10_000)
STEPS = st.integers(1, 700)
SELECTIONS = st.sampled_from(Selection)

OpenDatabase = Callable[[], VirtualDatabase]


@pytest.fixture(autouse=True)
def no_logs() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class Lives(RuleBasedStateMachine):
    """One database through all that may happen to it. Subclasses say which kind."""

    build: Any
    open_database: OpenDatabase

    def __init__(self) -> None:
        super().__init__()
        self.world = World(
            seed=0,
            database=type(self).open_database(),
            endpoint=VirtualEndpoint(behaviour=WELL, mean_s=0.05),
            build=type(self).build,
            habits=Habits(concurrency=3, batch_rows=2, page_size=4, max_wait_s=300, attempt_deadline_s=20),
        )
        self.experiments: list[Experiment] = []
        self.other_is_loaded = False
        self.before: dict[tuple[str, str, str], Any] = {}
        self.start()

    # --- what may happen ---

    @precondition(lambda self: len(self.experiments) < 3)
    @rule(max_narratives=st.sampled_from([None, 1, 7]), is_frugal=st.booleans())
    def start(self, max_narratives: int | None = None, is_frugal: bool = False) -> None:
        """A new experiment over the first source, which is loaded with the first of them."""
        if self.world.database.is_full and self.experiments:
            return
        options: dict[str, Any] = {"number": len(self.experiments) + 1, "max_narratives": max_narratives}
        options |= FRUGAL if is_frugal else {}
        self.experiments.append(self.world.create(narratives_of(type(self).build), rules=RULES, **options))

    @rule(seed=SEEDS, which=st.integers(0, 2), selection=SELECTIONS)
    def resume(self, seed: int, which: int, selection: Selection) -> None:
        self.check_end(self.live(seed, which, selection), selection)

    @rule(seed=SEEDS, which=st.integers(0, 2), selection=SELECTIONS, step=STEPS)
    def kill(self, seed: int, which: int, selection: Selection, step: int) -> None:
        life = self.live(seed, which, selection, crash_at=step)
        if not life.crashed:
            self.check_end(life, selection)

    @rule(seed=SEEDS, which=st.integers(0, 2), after_s=st.floats(0, 2), twice=st.booleans())
    def interrupt(self, seed: int, which: int, after_s: float, twice: bool) -> None:
        life = self.live(seed, which, Selection.MISSING, watch=interrupting(after_s, twice=twice))
        self.check_end(life, Selection.MISSING)

    @rule(mode=st.sampled_from(sorted(MODES)))
    def endpoint_becomes(self, mode: str) -> None:
        self.world.endpoint.behaviour = MODES[mode]
        self.world.endpoint.is_down = mode == "down"

    @rule(is_full=st.booleans())
    def disk_becomes(self, is_full: bool) -> None:
        self.world.database.is_full = is_full

    @rule()
    def ingest_the_same_again(self) -> None:
        report = self.ingest(type(self).build.source(narratives_of(type(self).build), path="a_copy.xlsx"))
        assert not report.loaded
        assert report.source.n_narratives == N_NARRATIVES

    @rule()
    def ingest_another(self) -> None:
        build = type(self).build
        others = [build.narrative(number, prefix="other") for number in range(N_OTHERS)]
        assert self.ingest(build.source(others, path="others.xlsx")).loaded is not self.other_is_loaded
        self.other_is_loaded = True

    @rule(change=st.sampled_from(["a part", "more", "another text"]))
    def ingest_what_contradicts(self, change: str) -> None:
        build = type(self).build
        known = narratives_of(build)
        sources = {
            "a part": known[:3],
            "more": [*known, build.narrative(90)],
            "another text": [build.narrative(0, text="A changed account."), *known[1:]],
        }
        with pytest.raises(BadInputError):
            self.ingest(build.source(sources[change], path="changed.xlsx"))

    # --- what must hold after each ---

    @invariant()
    def nothing_is_broken(self) -> None:
        """I1 to I7, I10 to I14; and I9: a success stays as it is, to the last column."""
        assert self.world.violations() == []
        rows = self.world.results()
        assert successes(self.before).items() <= successes(rows).items(), "a success was changed or lost"
        assert self.before.keys() <= rows.keys(), "a row was lost"
        self.before = rows

    def teardown(self) -> None:
        """I19: once all is well, every experiment comes to what it would have come to undisturbed."""
        self.endpoint_becomes("ok")
        self.disk_becomes(False)
        # What stands in error rows now is tried again; a run that was cut short leaves errors to the next one.
        for number, experiment in enumerate(self.experiments):
            for _ in range(MOST_LIVES):
                life = self.live(number, number, Selection.MISSING_AND_ERRORS)
                assert life.result is not None
                if life.result.verdict.exit_code == 0:
                    break
            assert self.world.ask(lambda store, one=experiment: store.load_experiment(one.experiment_id)).status == (
                ExperimentStatus.COMPLETED
            )
        self.nothing_is_broken()
        for experiment in self.experiments:
            rows = oracle_of(self.world.results(experiment.experiment_id))
            assert len(rows) == experiment.cohort.n_narratives
            oracle = self.undisturbed(is_frugal=experiment.skips_placeholders)
            assert rows.items() <= oracle.items(), "the results differ from those of an undisturbed run"

    # --- how ---

    def undisturbed(self, *, is_frugal: bool) -> dict[tuple[str, str], dict[str, Any]]:
        world = World(
            seed=0,
            database=MemoryDatabase(),
            endpoint=VirtualEndpoint(behaviour=WELL, mean_s=0),
            build=type(self).build,
        )
        world.create(narratives_of(type(self).build), rules=RULES, **(FRUGAL if is_frugal else {}))
        assert world.live(0).result is not None
        return world.oracle()

    def live(self, seed: int, which: int, selection: Selection, **options: Any) -> Life:
        experiment = self.experiments[which % len(self.experiments)]
        self.world.experiment = experiment
        calls = self.world.endpoint.calls.copy()
        life = self.world.live(seed, selection=selection, **options)
        if selection is Selection.ERRORS:
            self.only_errors_were_called(experiment.experiment_id, self.world.endpoint.calls - calls)
        return life

    def only_errors_were_called(self, experiment_id: ExperimentId, calls: Any) -> None:
        errors = {
            f"Read this account: {row['narrative_text']}"
            for key, row in self.before.items()
            if key[0] == experiment_id and row["error_occurred"]
        }
        assert calls.keys() <= errors, "a run over error rows called for something else"

    def check_end(self, life: Life, selection: Selection) -> None:
        """How a process that was not killed may end, and that the record says so."""
        assert not life.crashed
        if life.problem is not None:
            assert isinstance(life.problem, StorageError)
            assert self.world.database.is_full
            return
        assert life.result is not None
        verdict = life.result.verdict
        stored = self.world.ask(lambda store: store.load_experiment(self.world.experiment.experiment_id))
        assert stored.status is verdict.status
        left = self.world.ask(lambda store: store.count_remaining(stored, Selection.MISSING))
        assert (left == 0) >= (verdict.status is ExperimentStatus.COMPLETED)
        if self.world.endpoint.behaviour is WELL and not self.world.endpoint.is_down and life.result.problem is None:
            assert selection is Selection.ERRORS or left == 0 or verdict.exit_code in (130, 143)

    def ingest(self, source: Any) -> Any:
        return self.world.ask(lambda store: store.add_source(source, on_conflict="error"))


def narratives_of(build: Any) -> list[Any]:
    """The first source: one of them is a placeholder, two have the texts of earlier ones."""
    texts = {number: build.narrative(original).narrative_text for number, original in REPEATED.items()}
    texts[PLACEHOLDER] = "No report available."
    return [build.narrative(number, text=texts.get(number)) for number in range(N_NARRATIVES)]


def interrupting(after_s: float, *, twice: bool) -> Callable[[VirtualLoop], Watch]:
    def watch(loop: VirtualLoop) -> Watch:
        async def signalling(progress: Any, control: Any) -> None:
            await asyncio.sleep(after_s)
            loop.deliver(signal.SIGTERM)
            if twice:
                await asyncio.sleep(0.01)
                loop.deliver(signal.SIGINT)

        return signalling

    return watch


def run_machine(build: Any, opener: OpenDatabase, *, examples: int, steps: int) -> None:
    class Machine(Lives):
        pass

    Machine.build = build
    Machine.open_database = staticmethod(opener)  # type: ignore[assignment]
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            derandomize=True,
            print_blob=True,
            suppress_health_check=[*HealthCheck],
        ),
    )


def test_no_sequence_of_events_breaks_an_invariant(build: Any, is_long: bool) -> None:
    run_machine(build, MemoryDatabase, examples=300 if is_long else 25, steps=30 if is_long else 12)


def test_nor_does_one_over_sqlite(build: Any, is_long: bool, tmp_path: Path) -> None:
    empty = SqliteDatabase(tmp_path / "empty.db")
    opener = lambda: empty.copied(tmp_path / "one.db")  # noqa: E731
    run_machine(build, opener, examples=60 if is_long else 5, steps=30 if is_long else 12)
