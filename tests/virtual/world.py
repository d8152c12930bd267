"""Owns the rig of tests in virtual time: a database and an endpoint that last, and lives of the real runner between.

The stages are those of production, put together as `app.running` does; only store, endpoint, clock and loop are of
here. Everything that is drawn comes from one seed.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from narrun_async.caller import CallSpec
from narrun_async.control import RunControl
from narrun_async.errors import NarrunError
from narrun_async.limits import LimitSettings
from narrun_async.models import Copy, Experiment, ExperimentId, Outcome, Selection, Skip
from narrun_async.ports import Store
from narrun_async.progress import Progress
from narrun_async.prompting import RequestFields, RequestTemplate
from narrun_async.retrying import RetryPolicy
from narrun_async.runner import OUTCOME_QUEUE_ITEMS, Runner, RunResult, RunSettings
from narrun_async.screening import ScreeningRules
from narrun_async.stores.sqlite.invariants import INVARIANTS
from narrun_async.writer import BatchPolicy
from virtual.databases import VirtualDatabase
from virtual.endpoint import VirtualEndpoint, VirtualProvider
from virtual.loop import MOST_S, Crash, VirtualLoop

Watch = Callable[[Progress, RunControl], Awaitable[None]]
FIELDS = RequestFields(model="model-of-tests", user_template="Read this account: <<TEXT>>", temperature=0.2)
CONFIG_JSON = "{}"
CONFIG_SHA256 = hashlib.sha256(CONFIG_JSON.encode()).hexdigest()

#: what a row says, apart from when it was made, by which run, in which order and after how many calls
ORACLE_COLUMNS = (
    *("incident_id", "narrative_type", "row_num", "narrative_text", "manual_flag_ind", "manual_flag"),
    *("detected", "confidence", "indicators", "rationale", "reasoning_steps", "raw_response"),
    *("error_occurred", "error_category", "error_message", "prompt_tokens", "completion_tokens", "tokens_used"),
    *("is_true_positive", "is_true_negative", "is_false_positive", "is_false_negative"),
    *("finish_reason", "response_model", "system_fingerprint", "parse_method", "cached_tokens", "reasoning_tokens"),
    *("skip_reason", "copied_from"),
)


@dataclass(kw_only=True)
class Habits:
    """How the runs of a world are set up; see `RunSettings`, `LimitSettings`, `BatchPolicy`."""

    concurrency: int | None = 3
    batch_rows: int = 4
    page_size: int = 5
    max_passes: int = 3
    max_wait_s: float = 3600.0
    max_consecutive_errors: int = 50
    attempt_deadline_s: float = 20.0
    second_try: bool = False
    limits: dict[str, Any] = field(default_factory=dict)

    @property
    def repeated_at_most(self) -> int:
        """Answers that a crash can lose, however it falls: in flight, on their way to the writer, in its hands."""
        assert self.concurrency is not None
        return self.concurrency + OUTCOME_QUEUE_ITEMS + self.batch_rows


@dataclass(kw_only=True)
class Life:
    """What came of one process."""

    steps: int
    ended_at_s: float
    crashed: bool = False
    #: None after a crash, and when the end could not be recorded
    result: RunResult | None = None
    problem: NarrunError | None = None
    provider: VirtualProvider | None = field(default=None, repr=False)
    runner: Runner | None = field(default=None, repr=False)
    #: what the process told its watcher; None where it had not begun to
    progress: Progress | None = field(default=None, repr=False)


@dataclass(kw_only=True)
class World:
    """One database, one endpoint, one experiment at a time, and who works on it."""

    seed: int
    database: VirtualDatabase
    endpoint: VirtualEndpoint
    #: the builders of tests/conftest.py
    build: Any
    habits: Habits = field(default_factory=Habits)
    experiment: Experiment = field(init=False)
    #: the process that works, or the last one that did
    life: Life = field(init=False, repr=False)
    #: keys of rows that a run was told are saved: `write_batch` had returned
    acknowledged: set[tuple[str, str, str]] = field(default_factory=set)
    #: narrative → its key, of the sources of all experiments
    keys: dict[int, tuple[str, str]] = field(default_factory=dict)
    _untrue: list[str] = field(default_factory=list)

    # --- outside of runs ---

    def ask(self, question: Callable[[Store], Awaitable[Any]]) -> Any:
        """Open the database for one thing, without a crash."""

        async def asking() -> Any:
            async with self.database.open(random.Random(0), quick=True) as store:
                return await question(store)

        return VirtualLoop(0).run(asking())

    def create(
        self,
        narratives: Any = 12,
        *,
        number: int = 1,
        max_narratives: int | None = None,
        rules: ScreeningRules | None = None,
        **columns: Any,
    ) -> Experiment:
        """Load a source, if it is new, and freeze an experiment over it.

        :param rules: screen the source by these
        :param columns: of the experiment's row
        """
        source = self.build.source(narratives)

        async def creating(store: Store) -> Experiment:
            if await store.find_source(checksums=[source.checksum]) is None:
                await store.add_source(source, on_conflict="error", rules=rules)
            cohort = await store.load_cohort(source.checksum, max_narratives=max_narratives)
            new = self.build.new_experiment(
                number,
                data_checksum=source.checksum,
                cohort_last_narrative_id=cohort.last_narrative_id,
                n_narratives_total=cohort.n_narratives,
                config_json=CONFIG_JSON,
                config_sha256=CONFIG_SHA256,
                **columns,
            )
            await store.create_experiment(new)
            return await store.load_experiment(new.experiment_id)

        self.experiment = self.ask(creating)
        with self.database.reading() as db:
            for narrative_id, *key in db.execute(
                "SELECT narrative_id, incident_id, narrative_type FROM source_narratives"
            ):
                self.keys[narrative_id] = (key[0], key[1])
        return self.experiment

    # --- runs ---

    def live(
        self,
        seed: int,
        *,
        selection: Selection = Selection.MISSING,
        crash_at: int | None = None,
        start_s: float = 0.0,
        most_s: float = MOST_S,
        watch: Callable[[VirtualLoop], Watch] | None = None,
        experiment: Experiment | None = None,
    ) -> Life:
        """One process works on the experiment until it ends, or dies at a step.

        :param watch: makes what runs beside it
        """
        loop = VirtualLoop(seed, start_s=start_s, most_s=most_s, crash_at=crash_at)
        # No log directory: its files belong to the real disk.
        worked_on = replace(experiment or self.experiment, log_dir=None)
        rng = random.Random(seed)
        provider = self.endpoint.connect(random.Random(seed + 1))
        life = self.life = Life(steps=0, ended_at_s=start_s, provider=provider)

        async def living() -> RunResult:
            async with self.database.open(random.Random(seed + 2)) as store:
                reporting = _Reporting(store, self.acknowledged, self.keys)
                life.runner = self._runner(reporting, provider, worked_on, loop, rng)
                start = self.build.run_start(worked_on, selection)
                beside = watch(loop) if watch else _nothing

                async def watching(progress: Progress, control: RunControl) -> None:
                    life.progress = progress
                    await beside(progress, control)

                return await life.runner.run(start, watching)

        try:
            life.result = loop.run(living())
        except Crash:
            life.crashed = True
        except NarrunError as error:
            life.problem = error
        life.steps, life.ended_at_s = loop.steps, loop.time()
        if life.progress is not None:
            self._compare_with_what_it_said(life.progress.snapshot().n_saved, worked_on, crashed=life.crashed)
        return life

    def _compare_with_what_it_said(self, n_said: int, experiment: Experiment, *, crashed: bool) -> None:
        """A run says that a row is saved only when it is, and, unless it dies, of all that are."""
        with self.database.reading() as db:
            (run_id,) = db.execute(
                "SELECT MAX(run_id) FROM runs WHERE experiment_id = ?", (experiment.experiment_id,)
            ).fetchone()
        n_saved = sum(row["run_id"] == run_id for row in self.database.results())
        if n_said > n_saved or (n_said < n_saved and not crashed):
            self._untrue.append(f"I12: run {run_id} said {n_said} rows were saved, {n_saved} are")

    def _runner(
        self, store: Store, provider: VirtualProvider, experiment: Experiment, loop: VirtualLoop, rng: random.Random
    ) -> Runner:
        habits = self.habits
        limits = LimitSettings(concurrency=habits.concurrency, max_wait_s=habits.max_wait_s, **habits.limits)
        return Runner(
            store,
            provider,
            experiment,
            spec=CallSpec(
                template=RequestTemplate.build(FIELDS),
                retry=RetryPolicy(attempts=5),
                attempt_deadline_s=habits.attempt_deadline_s,
                second_try=habits.second_try,
            ),
            settings=RunSettings(
                limits=limits,
                max_passes=habits.max_passes,
                max_consecutive_errors=habits.max_consecutive_errors,
                page_size=habits.page_size,
            ),
            batches=BatchPolicy(max_rows=habits.batch_rows),
            rng=rng,
            clock=loop.time,
        )

    # --- what must hold ---

    def results(self, experiment_id: ExperimentId | None = None) -> dict[tuple[str, str, str], dict[str, Any]]:
        """Committed rows by key, as another process would read them."""
        return {
            (row["experiment_id"], row["incident_id"], row["narrative_type"]): row
            for row in self.database.results()
            if experiment_id in (None, row["experiment_id"])
        }

    def oracle(self) -> dict[tuple[str, str], dict[str, Any]]:
        """What I19 compares, of the experiment."""
        return oracle_of(self.results(self.experiment.experiment_id))

    def violations(self) -> list[str]:
        """Of the invariants that rows show (I1 to I8, I10, I11, I13, I14), and of I12."""
        found = [*self._untrue]
        with self.database.reading() as db:
            for invariant in INVARIANTS:
                for place, _ in db.execute(invariant.statement, {"experiment_id": None}):
                    found.append(f"{invariant.invariant_id}: {place}")
        lost = self.acknowledged - self.results().keys()
        found += [f"I12: {key} was reported as saved" for key in sorted(lost)]
        return found


def oracle_of(rows: Mapping[tuple[str, str, str], Mapping[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {key[1:]: {name: row[name] for name in ORACLE_COLUMNS} for key, row in rows.items()}


def successes(rows: Mapping[tuple[str, str, str], Mapping[str, Any]]) -> dict[tuple[str, str, str], Mapping[str, Any]]:
    """For I9: the success rows, every column of them."""
    return {key: row for key, row in rows.items() if not row["error_occurred"]}


async def _nothing(progress: Progress, control: RunControl) -> None:
    return None


class _Reporting:
    """A store that notes what its `write_batch` has said is on disk."""

    def __init__(
        self, store: Store, acknowledged: set[tuple[str, str, str]], keys: Mapping[int, tuple[str, str]]
    ) -> None:
        self._store = store
        self._acknowledged = acknowledged
        self._keys = keys

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def write_batch(self, experiment_id: ExperimentId, run_id: Any, messages: Any, mark: Any) -> None:
        await self._store.write_batch(experiment_id, run_id, messages, mark)
        self._acknowledged.update(
            (experiment_id, one.item.incident_id, one.item.narrative_type)
            for one in messages
            if isinstance(one, Outcome)
        )
        self._acknowledged.update(
            (experiment_id, *self._keys[one.narrative_id]) for one in messages if isinstance(one, Skip | Copy)
        )
