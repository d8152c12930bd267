"""What the scripts of all peers share: arguments, narratives, rows; and that they talk to this machine only.

To be imported before the library that is measured. Standard library and `bench.floor` only: the environments of the
peers do not hold this project.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.floor import Answer, Row, Rows, iter_items, open_database
from bench.workload import PROMPTS

_LOOPBACK = {"127.0.0.1", "::1", "localhost"}
_QUIET = {
    "OPENAI_API_KEY": "none",
    "LANGCHAIN_TRACING_V2": "false",
    "LANGSMITH_TRACING": "false",
    "TELEMETRY_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_TELEMETRY": "False",
    "CURATOR_DISABLE_CACHE": "1",
    "CURATOR_DISABLE_RICH_DISPLAY": "1",
    "TQDM_DISABLE": "1",
}


class NotLoopbackError(OSError):
    """A library tried to reach another machine."""


def _refuse_others(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect" and isinstance(arguments[1], tuple) and arguments[1][0] not in _LOOPBACK:
        raise NotLoopbackError(f"refused: {arguments[1][0]}")
    if event == "socket.getaddrinfo" and arguments[0] not in _LOOPBACK | {None, ""}:
        raise NotLoopbackError(f"refused: {arguments[0]}")


@dataclass(slots=True, kw_only=True)
class Task:
    """What a peer is asked to do."""

    #: of the API, without `/chat/completions`
    base_url: str
    concurrency: int
    #: rank in the cohort and columns, `narrative_text` among them
    items: list[tuple[int, Row]]
    #: for what the peer writes by itself
    directory: Path
    database: sqlite3.Connection
    rows: Rows
    system_prompt: str
    user_template: str

    def user_prompt(self, item: Row) -> str:
        text: str = item[3]
        return self.user_template.replace("<<TEXT>>", text)

    def add(self, row_num: int, item: Row, answer: Answer, *, started: float) -> None:
        """Store a row, in a group with others. `started`: monotonic seconds."""
        self.rows.add_answer(item, row_num, answer, datetime.now(UTC), time.monotonic() - started)

    def close(self) -> None:
        self.rows.flush()
        self.database.close()


def open_task() -> Task:
    """From the command line; from here on nothing but this machine can be reached."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--db", type=Path, required=True)
    arguments.add_argument("--url", required=True)
    arguments.add_argument("--concurrency", type=int, required=True)
    arguments.add_argument("--limit", type=int, required=True)
    given = arguments.parse_args()
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]
    os.environ.update(_QUIET)
    sys.addaudithook(_refuse_others)
    database = open_database(given.db)
    return Task(
        base_url=given.url.removesuffix("/chat/completions"),
        concurrency=given.concurrency,
        items=list(iter_items(database, given.limit)),
        directory=given.db.parent,
        database=database,
        rows=Rows(database, with_attempts=False),
        system_prompt=(PROMPTS / "ipv_system.txt").read_text(),
        user_template=(PROMPTS / "ipv_user.txt").read_text(),
    )
