"""One run, killed again and again: nothing once seen is lost, nothing is there twice, little is paid twice."""

from __future__ import annotations

import random
import shutil
import signal
import sqlite3
import statistics
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from conftest import StartEndpoint
from harness import Endpoint, Key, Process, Row, Workplace, digest_of_results, running_endpoint, wait_until
from reliability import Measured

pytestmark = [pytest.mark.crash, pytest.mark.slow]

#: the writer's queue and its batch
QUEUE, BATCH = 16, 64
SEED = 20240607
#: now and then a refusal, or prose instead of JSON, which half of the second tries mend
ANSWERS = ("--seed", "5", "--fault", "refusal=0.01", "--fault", "malformed=0.02", "--mend-rate", "0.5")
#: answers after 20 to 120 ms
SLOW = ("--latency-ms", "70", "--latency-spread", "0.71")
FAST = ("--latency-ms", "15", "--latency-spread", "0.5")
# no 429: a few of them at the start slow 64 calls down to ten a second (docs/benchmark.md), and kills need calls
SICK = ("--fault", "http_500=0.05", "--fault", "http_503=0.01", "--fault", "reset=0.02", "--fault", "malformed=0.1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to run."""

    #: as given on the command line
    concurrency: str
    #: calls in flight at most
    calls: int
    endpoint: tuple[str, ...]
    #: of the long tier
    narratives: int = 5000
    retries_errors: bool = False

    @property
    def repeated_at_most(self) -> int:
        """2C open items, the outcome queue, one batch of the writer."""
        return 2 * self.calls + QUEUE + BATCH

    @property
    def repeated_on_average_at_most(self) -> float:
        """What is in flight, and half a batch."""
        return self.calls + BATCH / 2


WAYS = {
    "C=16": Way(concurrency="16", calls=16, endpoint=(*SLOW, *ANSWERS, "--fault", "http_500=0.01")),
    "C=1": Way(concurrency="1", calls=1, endpoint=(*FAST, *ANSWERS), narratives=1500),
    "C=128": Way(concurrency="128", calls=128, endpoint=(*SLOW, *ANSWERS)),
    "a sick endpoint": Way(concurrency="16", calls=16, endpoint=(*SLOW, *ANSWERS, *SICK), narratives=3000),
    "auto, errors retried": Way(
        concurrency="auto", calls=64, endpoint=(*SLOW, *ANSWERS), narratives=4000, retries_errors=True
    ),
}


@dataclass(slots=True)
class Campaign:
    """What was measured over all kills."""

    kills: int = 0
    kills_before_any_row: int = 0
    kills_at_the_end: int = 0
    repeated: list[int] = field(default_factory=list)
    lock_free_after_s: list[float] = field(default_factory=list)

    def report(self, name: str, way: Way, rows: int) -> str:
        return (
            f"{name}: {self.kills} kills ({self.kills_before_any_row} before the first row, "
            f"{self.kills_at_the_end} with every row in) over {rows} narratives, 0 rows lost, doubled or changed; "
            f"calls repeated a kill: mean {statistics.mean(self.repeated):.1f}, most {max(self.repeated)}, "
            f"allowed {way.repeated_on_average_at_most:.0f} and {way.repeated_at_most}; "
            f"lock free after {1000 * max(self.lock_free_after_s):.0f} ms at most"
        )


class Moment:
    """When a life is to end."""

    def reached(self, workplace: Workplace, endpoint: Endpoint, process: Process) -> None:
        """Return when it has come, or the process has ended by itself."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class AfterSeconds(Moment):
    seconds: float

    def reached(self, workplace: Workplace, endpoint: Endpoint, process: Process) -> None:
        time.sleep(self.seconds)


@dataclass(frozen=True, slots=True)
class AfterCalls(Moment):
    """When the endpoint has been asked for as many as would have taken the run to so many rows; no commit is near."""

    rows: int

    def reached(self, workplace: Workplace, endpoint: Endpoint, process: Process) -> None:
        wanted = endpoint.calls() + self.rows - workplace.count_rows()
        wait_until(lambda: endpoint.calls() >= wanted or not process.is_running, what=f"{wanted} calls")


@dataclass(frozen=True, slots=True)
class AfterRows(Moment):
    rows: int
    #: a little later, so that kills do not follow commits only
    later_s: float

    def reached(self, workplace: Workplace, endpoint: Endpoint, process: Process) -> None:
        workplace.wait_for_rows(self.rows, process)
        time.sleep(self.later_s)


@pytest.mark.fault("P01")
@pytest.mark.parametrize("name", WAYS)
def test_kills_at_any_moment_lose_nothing_double_nothing_and_lead_to_the_same_results(
    workplace: Workplace, start_endpoint: StartEndpoint, name: str, is_long: bool, measured: Measured
) -> None:
    if not is_long and name != "C=16":
        pytest.skip("two hundred kills in each of five ways take half an hour; `make test-crash` runs them")
    kills, narratives = (200, WAYS[name].narratives) if is_long else (7, 300)
    measured(carry_out(name, workplace, start_endpoint, kills=kills, narratives=narratives, seed=SEED))


def test_a_soak_of_campaigns_never_finds_anything(tmp_path: Path, soak_minutes: float) -> None:
    """Small campaigns, one after the other, each way and seed drawn anew, until the time is over."""
    first_seed, began, rounds = random.randrange(2**32), time.monotonic(), 0
    while time.monotonic() - began < 60 * soak_minutes:
        seed = first_seed + rounds
        name = random.Random(seed).choice(list(WAYS))
        workplace = Workplace(directory=tmp_path / f"round-{rounds}")
        workplace.directory.mkdir()
        with ExitStack() as until_its_end:
            start = partial(_start_in, until_its_end, workplace.directory / "endpoint")
            print(carry_out(name, workplace, start, kills=20, narratives=600, seed=seed))
        shutil.rmtree(workplace.directory)
        rounds += 1
    print(f"{rounds} campaigns in {soak_minutes:g} minutes")


def _start_in(until_its_end: ExitStack, directory: Path, *flags: str) -> Endpoint:
    return until_its_end.enter_context(running_endpoint(directory, *flags))


def carry_out(
    name: str, workplace: Workplace, start_endpoint: StartEndpoint, *, kills: int, narratives: int, seed: int
) -> str:
    """Kill one experiment so many times, let it end, compare. Returns what was measured."""
    way, rng = WAYS[name], random.Random(seed)
    print(f"{name}, seed {seed}")
    endpoint = start_endpoint(*way.endpoint)
    endpoint.change(retry_after_s=0.1)
    table = workplace.write_narratives(narratives)
    config = workplace.write_config(
        url=endpoint.url, narratives=table, run__concurrency=_number_or_word(way.concurrency), run__max_passes=20
    )
    campaign, seen = Campaign(), {}
    for moment in moments(rng, kills=kills, narratives=narratives):
        seen = live_until(moment, workplace, endpoint, config, seen, campaign, way)
    assert campaign.kills >= 0.8 * kills, "too many lives ended before they were killed"
    assert statistics.mean(campaign.repeated) <= way.repeated_on_average_at_most

    if workplace.experiment()["status"] != "completed":
        # refusals and prose are error rows
        workplace.run(*command(workplace, config, way)).expect(1)

    rows = workplace.rows()
    assert len(rows) == narratives
    assert_untouched(seen, rows, way)
    assert workplace.experiment()["status"] == "completed"
    workplace.run("verify").expect(0)
    assert digest_of(rows, way) == uninterrupted_digest(workplace, endpoint, table, way)
    return campaign.report(name, way, narratives)


def _number_or_word(concurrency: str) -> int | str:
    return int(concurrency) if concurrency.isdecimal() else concurrency


def digest_of(rows: Mapping[Key, Row], way: Way) -> str:
    """An error row that was tried again differs from one that was not."""
    return digest_of_results(
        {key: row for key, row in rows.items() if not (way.retries_errors and row["error_occurred"])}
    )


def moments(rng: random.Random, *, kills: int, narratives: int) -> list[Moment]:
    """A third while starting, the others spread over the whole run, some of them at its very end."""
    starting: list[Moment] = [AfterSeconds(rng.uniform(0.15, 0.75)) for _ in range(kills // 3)]
    at_the_end: list[Moment] = [AfterRows(narratives, rng.uniform(0, 0.02)) for _ in range(min(4, 1 + kills // 20))]
    targets = sorted(rng.sample(range(1, narratives - 100), kills - len(starting) - len(at_the_end)))
    working: list[Moment] = [AfterCalls(target) for target in targets] + at_the_end
    # the first two lives end while the database is made and the table is read
    chosen, starting = starting[:2], starting[2:]
    while working:
        chosen.append(working.pop(0))
        if starting and rng.random() < 0.6:
            chosen.append(starting.pop())
    return chosen + starting


def live_until(
    moment: Moment,
    workplace: Workplace,
    endpoint: Endpoint,
    config: Path,
    seen: Mapping[Key, Row],
    campaign: Campaign,
    way: Way,
) -> Mapping[Key, Row]:
    """One life: start, kill, look. Returns every row that is there now."""
    calls_before, attempts_before = endpoint.settled_calls(), count_attempts(workplace)
    with workplace.start(*command(workplace, config, way)) as process:
        moment.reached(workplace, endpoint, process)
        newest, count = newest_row(workplace)
        was_killed = process.is_running
        process.send(signal.SIGKILL)
        lock_free_after_s = wait_until(workplace.lock_is_free, what="the lock is free", at_most_s=1)
        process.wait()
    if not was_killed:
        return workplace.rows()
    campaign.lock_free_after_s.append(lock_free_after_s)
    campaign.repeated.append(endpoint.settled_calls() - calls_before - (count_attempts(workplace) - attempts_before))
    campaign.kills += 1
    if not database_is_there(workplace):
        campaign.kills_before_any_row += 1
        return seen
    workplace.require_sound()
    rows = workplace.rows()
    campaign.kills_before_any_row += not rows
    campaign.kills_at_the_end += len(rows) == workplace.ask_one("SELECT COUNT(*) FROM source_narratives")
    assert_untouched(seen, rows, way)
    assert count <= sum(row["result_id"] <= newest for row in rows.values()), "a row seen while it ran is gone"
    assert 0 <= campaign.repeated[-1] <= way.repeated_at_most
    assert_called_once(workplace, rows, way)
    return rows


def command(workplace: Workplace, config: Path, way: Way) -> tuple[str, ...]:
    """Begin, or go on once there is something to go on with."""
    if database_is_there(workplace) and workplace.ask("SELECT 1 FROM experiments"):
        errors_too = ("--retry-errors",) if way.retries_errors else ()
        return ("resume", workplace.experiment_id(), "--config", str(config), *errors_too)
    return ("run", str(config))


def database_is_there(workplace: Workplace) -> bool:
    return workplace.database.exists()


def count_attempts(workplace: Workplace) -> int:
    return workplace.ask_one("SELECT COUNT(*) FROM attempts") if database_is_there(workplace) else 0


def assert_called_once(workplace: Workplace, rows: Mapping[Key, Row], way: Way) -> None:
    """The ledger holds one deciding call a narrative; the others met a failure in passing and were repeated."""
    n_successes = sum(not row["error_occurred"] for row in rows.values())
    n_fruitful = workplace.ask_one("SELECT COUNT(*) FROM attempts WHERE error_category IS NULL")
    assert n_fruitful == n_successes, "a narrative that had its row was called for again"
    n_called_again = workplace.ask_one(
        """
        SELECT COUNT(*) FROM narrative_results AS r
        JOIN source_narratives AS s ON s.incident_id = r.incident_id AND s.narrative_type = r.narrative_type
        WHERE r.attempt_count <> (SELECT COUNT(*) FROM attempts AS a WHERE a.narrative_id = s.narrative_id)
        """
    )
    assert way.retries_errors or not n_called_again, "a row was called for again"


def newest_row(workplace: Workplace) -> tuple[int, int]:
    """The last row there is and how many there are, while the run goes on."""
    if not database_is_there(workplace):
        return 0, 0
    with closing(sqlite3.connect(f"file:{workplace.database}?mode=ro", uri=True)) as connection:
        return connection.execute("SELECT COALESCE(MAX(result_id), 0), COUNT(*) FROM narrative_results").fetchone()


def assert_untouched(before: Mapping[Key, Row], after: Mapping[Key, Row], way: Way) -> None:
    """No row that was there is gone or has changed; an error row may, where errors are tried again."""
    missing = [key for key in before if key not in after]
    assert not missing, f"{len(missing)} saved rows are gone"
    changed = [
        key
        for key in before
        if before[key] != after[key] and not (way.retries_errors and before[key]["error_occurred"])
    ]
    assert not changed, f"{len(changed)} saved rows have changed"


def uninterrupted_digest(workplace: Workplace, endpoint: Endpoint, table: Path, way: Way) -> str:
    """The same configuration in another database, left in peace."""
    undisturbed = Workplace(directory=workplace.directory / "undisturbed")
    undisturbed.directory.mkdir()
    config = undisturbed.write_config(url=endpoint.url, narratives=table, run__concurrency=64, run__max_passes=20)
    undisturbed.run("run", config).expect(1)
    return digest_of(undisturbed.rows(), way)
