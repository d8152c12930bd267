"""One run, killed again and again: nothing once seen is lost, nothing is there twice, little is paid twice."""

from __future__ import annotations

import random
import signal
import sqlite3
import statistics
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import StartEndpoint
from harness import Endpoint, Key, Process, Row, Workplace, digest_of_results, wait_until

pytestmark = [pytest.mark.crash, pytest.mark.slow]

CONCURRENCY = 16
#: 2C open items, the outcome queue, one batch of the writer
REPEATED_AT_MOST = 2 * CONCURRENCY + 16 + 64
#: what is in flight, and half a batch
REPEATED_ON_AVERAGE_AT_MOST = CONCURRENCY + 64 / 2
#: answers after 20 to 120 ms; now and then a 500, a refusal, prose instead of JSON
ENDPOINT = (
    *("--latency-ms", "70", "--latency-spread", "0.71", "--seed", "5"),
    *("--fault", "http_500=0.01", "--fault", "refusal=0.01", "--fault", "malformed=0.01"),
)
SEED = 20240607


@dataclass(slots=True)
class Campaign:
    """What was measured over all kills."""

    kills: int = 0
    kills_before_any_row: int = 0
    kills_at_the_end: int = 0
    repeated: list[int] = field(default_factory=list)
    lock_free_after_s: list[float] = field(default_factory=list)

    def report(self, seed: int, rows: int) -> str:
        return (
            f"\nseed {seed}: {self.kills} kills ({self.kills_before_any_row} before the first row, "
            f"{self.kills_at_the_end} with every row in) over {rows} narratives at C={CONCURRENCY}\n"
            f"calls repeated per kill: mean {statistics.mean(self.repeated):.1f}, most {max(self.repeated)}, "
            f"allowed {REPEATED_ON_AVERAGE_AT_MOST:.0f} and {REPEATED_AT_MOST}\n"
            f"lock free after a kill: mean {1000 * statistics.mean(self.lock_free_after_s):.1f} ms, "
            f"most {1000 * max(self.lock_free_after_s):.1f} ms"
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


@pytest.fixture
def narratives(workplace: Workplace, is_long: bool) -> int:
    return 5000 if is_long else 2000


def test_fifty_kills_at_any_moment_lose_nothing_double_nothing_and_lead_to_the_same_results(
    workplace: Workplace, start_endpoint: StartEndpoint, narratives: int, is_long: bool
) -> None:
    rng = random.Random(SEED)
    endpoint = start_endpoint(*ENDPOINT)
    table = workplace.write_narratives(narratives)
    config = workplace.write_config(url=endpoint.url, narratives=table, run__concurrency=CONCURRENCY)
    campaign, seen = Campaign(), {}
    for moment in moments(rng, kills=200 if is_long else 54, narratives=narratives):
        seen = live_until(moment, workplace, endpoint, config, seen, campaign)
    print(campaign.report(SEED, narratives))
    assert campaign.kills >= (190 if is_long else 50), "too many lives ended before they were killed"
    assert statistics.mean(campaign.repeated) <= REPEATED_ON_AVERAGE_AT_MOST

    if workplace.experiment()["status"] != "completed":
        workplace.run(*command(workplace, config)).expect(1)  # refusals and prose are error rows

    rows = workplace.rows()
    assert len(rows) == narratives
    assert_untouched(seen, rows)
    assert workplace.experiment()["status"] == "completed"
    assert digest_of_results(rows) == uninterrupted_digest(workplace, endpoint, table, narratives)


def moments(rng: random.Random, *, kills: int, narratives: int) -> list[Moment]:
    """A third while starting, the others spread over the whole run, some of them at its very end."""
    starting: list[Moment] = [AfterSeconds(rng.uniform(0.15, 0.75)) for _ in range(kills // 3)]
    at_the_end: list[Moment] = [AfterRows(narratives, rng.uniform(0, 0.02)) for _ in range(4)]
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
) -> Mapping[Key, Row]:
    """One life: start, kill, look. Returns every row that is there now."""
    calls_before, attempts_before = endpoint.settled_calls(), count_attempts(workplace)
    with workplace.start(*command(workplace, config)) as process:
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
    assert_untouched(seen, rows)
    assert count <= sum(row["result_id"] <= newest for row in rows.values()), "a row seen while it ran is gone"
    assert 0 <= campaign.repeated[-1] <= REPEATED_AT_MOST
    assert count_deciding_attempts(workplace) == len(rows), "a narrative that had its row was called for again"
    return rows


def command(workplace: Workplace, config: Path) -> tuple[str, ...]:
    """Begin, or go on once there is something to go on with."""
    if database_is_there(workplace) and workplace.ask("SELECT 1 FROM experiments"):
        return ("resume", workplace.experiment_id(), "--config", str(config))
    return ("run", str(config))


def database_is_there(workplace: Workplace) -> bool:
    return workplace.database.exists()


def count_attempts(workplace: Workplace) -> int:
    return workplace.ask_one("SELECT COUNT(*) FROM attempts") if database_is_there(workplace) else 0


def count_deciding_attempts(workplace: Workplace) -> int:
    """Calls in the ledger that decided their narrative; the others met a 500 and were repeated."""
    return int(workplace.ask_one("SELECT COUNT(*) FROM attempts WHERE error_category IS NOT 'server_error'"))


def newest_row(workplace: Workplace) -> tuple[int, int]:
    """The last row there is and how many there are, while the run goes on."""
    if not database_is_there(workplace):
        return 0, 0
    with closing(sqlite3.connect(f"file:{workplace.database}?mode=ro", uri=True)) as connection:
        return connection.execute("SELECT COALESCE(MAX(result_id), 0), COUNT(*) FROM narrative_results").fetchone()


def assert_untouched(before: Mapping[Key, Row], after: Mapping[Key, Row]) -> None:
    missing = [key for key in before if key not in after]
    assert not missing, f"{len(missing)} saved rows are gone"
    changed = [key for key in before if before[key] != after[key]]
    assert not changed, f"{len(changed)} saved rows have changed"


def uninterrupted_digest(workplace: Workplace, endpoint: Endpoint, table: Path, narratives: int) -> str:
    """The same configuration in another database, left in peace."""
    undisturbed = Workplace(directory=workplace.directory / "undisturbed")
    undisturbed.directory.mkdir()
    config = undisturbed.write_config(url=endpoint.url, narratives=table, run__concurrency=64)
    undisturbed.run("run", config).expect(1)
    rows = undisturbed.rows()
    assert len(rows) == narratives
    return digest_of_results(rows)
