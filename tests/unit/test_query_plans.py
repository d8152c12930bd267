"""The planner's queries find their rows by key: a page costs what it holds, whatever lies before and behind it."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from narrun_async.stores import open_sqlite_writer
from narrun_async.stores.sqlite import statements

#: statement → the indexes that it goes through, in order
PLANS = {
    "PAGE_MISSING": ["source_narratives_checksum", "narrative_results_key"],
    "PAGE_MISSING_AND_ERRORS": ["source_narratives_checksum", "narrative_results_key"],
    "PAGE_SKIPS": ["source_narratives_flagged", "narrative_results_key"],
    "PAGE_COPIES": ["source_narratives_repeats", "narrative_results_key", "narrative_results_key"],
    "COUNT_COPIED_ERRORS": ["narrative_results_errors", "narrative_results_key"],
    "COUNT_RESULTS": [
        "narrative_results_key",
        "narrative_results_errors",
        "narrative_results_skipped",
        "narrative_results_copied",
    ],
}
NAMES = (
    *("experiment_id", "data_checksum", "last_narrative_id", "after", "limit", "run_id"),
    *("takes_missing", "skips_placeholders", "asks_identical_once"),
)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    path = tmp_path_factory.mktemp("plans") / "experiments.db"
    asyncio.run(_create(path))
    with closing(sqlite3.connect(path)) as connection:
        yield connection


async def _create(path: Path) -> None:
    await (await open_sqlite_writer(path)).aclose()


@pytest.mark.parametrize("name", PLANS)
def test_rows_are_found_by_key_and_come_in_order_without_being_sorted(database: sqlite3.Connection, name: str) -> None:
    plan = database.execute(f"EXPLAIN QUERY PLAN {getattr(statements, name)}", dict.fromkeys(NAMES, 1))
    steps = [detail for *_, detail in plan]
    assert [found[1] for step in steps if (found := re.search(r"INDEX (\w+)", step))] == PLANS[name]
    assert not [step for step in steps if "TEMP B-TREE" in step or re.match(r"SCAN (?!CONSTANT)", step)]
