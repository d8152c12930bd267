"""The floors: programs that do a run's work over the same database and nothing else, to be compared with.

`aiohttp`: N workers, one aiohttp session, sqlite3 in the same thread, grouped commits, the row of the result.
`transport`: the same over httpx requests and our transport, with a deadline and the row of the attempt.
`client`: like `transport`, but through `httpx.AsyncClient`, as most programs would write it.

No retry, no resume, no checks, no progress, no log: none of them survives the first thing that goes wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from bench.workload import MODEL, PROMPTS, TEMPERATURE

EXPERIMENT_ID = "00000000-0000-0000-0000-000000000000"
HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "Content-Type": "application/json",
    "User-Agent": "floor",
}
#: as the worker's: rows of a commit, and how long it waits for them
BATCH_ROWS, LINGER_S = 64, 0.020
PAGE = 500
DEADLINE_S = 120.0

COLUMNS = (
    *("experiment_id", "incident_id", "narrative_type", "row_num", "narrative_text", "manual_flag_ind", "manual_flag"),
    *("detected", "confidence", "indicators", "rationale", "reasoning_steps", "raw_response", "response_sec"),
    *("processed_at", "error_occurred", "error_message", "prompt_tokens", "completion_tokens", "tokens_used"),
    *("is_true_positive", "is_true_negative", "is_false_positive", "is_false_negative", "error_category"),
    *("attempt_count", "first_error_message", "last_attempt_at", "finish_reason", "response_model"),
    *("system_fingerprint", "parse_method", "cached_tokens", "reasoning_tokens", "run_id"),
)
INSERT_RESULT = f"INSERT INTO narrative_results ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
INSERT_ATTEMPT = (
    "INSERT INTO attempts (experiment_id, run_id, narrative_id, started_at, duration_s, error_category, error_message,"
    " http_status, charged, prompt_tokens, completion_tokens) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)

Row = tuple[Any, ...]
#: sends one request, returns the body of its answer
Send = Callable[[bytes], Awaitable[bytes]]


class Answer(NamedTuple):
    """What a row needs of a completion."""

    content: str
    raw: str
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    finish_reason: str
    model: str
    system_fingerprint: str | None

    @classmethod
    def from_completion(cls, completion: dict[str, Any], raw: str | None = None) -> Answer:
        choice, usage = completion["choices"][0], completion["usage"]
        content = choice["message"]["content"]
        return cls(
            content,
            content if raw is None else raw,
            usage["prompt_tokens"],
            usage["completion_tokens"],
            usage["total_tokens"],
            choice["finish_reason"],
            completion["model"],
            completion["system_fingerprint"],
        )


def make_body_encoder() -> Callable[[str], bytes]:
    """Requests byte for byte equal to the worker's (`bench.run` checks that they are)."""
    template = (PROMPTS / "ipv_user.txt").read_text()
    messages = [
        {"role": "system", "content": (PROMPTS / "ipv_system.txt").read_text()},
        {"role": "user", "content": template},
    ]
    request = {"model": MODEL, "messages": messages, "temperature": TEMPERATURE, "stream": False}
    head, tail = json.dumps(request, separators=(",", ":")).split("<<TEXT>>")
    return lambda text: f"{head}{json.dumps(text)[1:-1]}{tail}".encode("ascii")


class Rows:
    """Rows on their way to the disk."""

    def __init__(self, database: sqlite3.Connection, *, with_attempts: bool) -> None:
        self._database = database
        self._with_attempts = with_attempts
        self._results: list[Row] = []
        self._attempts: list[Row] = []
        self._flush_at: asyncio.TimerHandle | None = None

    def add(self, item: Row, row_num: int, raw: bytes, started_at: datetime, duration_s: float) -> None:
        answer = Answer.from_completion(json.loads(raw), raw.decode())
        self.add_answer(item, row_num, answer, started_at, duration_s)

    def add_answer(self, item: Row, row_num: int, answer: Answer, started_at: datetime, duration_s: float) -> None:
        verdict = json.loads(answer.content)
        detected, manual = verdict["detected"], item[4]
        judged: Row = (None, None, None, None)
        if manual is not None:
            judged = (detected and manual, not (detected or manual), detected and not manual, not detected and manual)
        self._results.append(
            (
                *(EXPERIMENT_ID, item[1], item[2], row_num, item[3], manual, item[5]),
                *(detected, verdict["confidence"], json.dumps(verdict["indicators"]), verdict["rationale"], None),
                *(answer.raw, duration_s, f"{datetime.now():%Y-%m-%d %H:%M:%S}", 0, None),
                *(answer.prompt_tokens, answer.completion_tokens, answer.total_tokens, *judged, None, 1, None),
                *(datetime.now(UTC).isoformat(timespec="milliseconds"), answer.finish_reason, answer.model),
                *(answer.system_fingerprint, "json", None, None, 1),
            )
        )
        if self._with_attempts:
            self._attempts.append(
                (
                    *(EXPERIMENT_ID, 1, item[0], started_at.isoformat(timespec="milliseconds"), duration_s, None, None),
                    *(200, 1, answer.prompt_tokens, answer.completion_tokens),
                )
            )
        if len(self._results) >= BATCH_ROWS:
            self.flush()
        elif self._flush_at is None:
            self._flush_at = asyncio.get_running_loop().call_later(LINGER_S, self.flush)

    def flush(self) -> None:
        if self._flush_at is not None:
            self._flush_at.cancel()
            self._flush_at = None
        self._database.execute("BEGIN IMMEDIATE")
        self._database.executemany(INSERT_RESULT, self._results)
        self._database.executemany(INSERT_ATTEMPT, self._attempts)
        self._database.execute("COMMIT")
        self._results.clear()
        self._attempts.clear()


def open_database(path: Path) -> sqlite3.Connection:
    """As durable as the program's own writer."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    return database


def iter_items(database: sqlite3.Connection, limit: int) -> Iterator[tuple[int, Row]]:
    """Rank and columns of every narrative, by pages, so that no read stays open beside the writes."""
    last_id, row_num = 0, 0
    while row_num < limit:
        page = database.execute(
            "SELECT narrative_id, incident_id, narrative_type, narrative_text, manual_flag_ind, manual_flag"
            " FROM source_narratives WHERE narrative_id > ? ORDER BY narrative_id LIMIT ?",
            (last_id, min(PAGE, limit - row_num)),
        ).fetchall()
        if not page:
            return
        for item in page:
            row_num += 1
            yield row_num, item
        last_id = page[-1][0]


@asynccontextmanager
async def _open_aiohttp(url: str) -> AsyncIterator[Send]:
    import aiohttp

    async def send(body: bytes) -> bytes:
        async with session.post(url, data=body, headers=HEADERS) as answer:
            return await answer.read()

    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None)
    ) as session:
        yield send


@asynccontextmanager
async def _open_transport(url: str) -> AsyncIterator[Send]:
    import httpx

    from narrun_async.providers.aiohttp_transport import AiohttpTransport

    target, headers = httpx.URL(url), httpx.Headers(HEADERS)

    async def send(body: bytes) -> bytes:
        request = httpx.Request("POST", target, headers=headers, stream=httpx.ByteStream(body))
        async with asyncio.timeout(DEADLINE_S):
            answer = await transport.handle_async_request(request)
            return await answer.aread()

    transport = AiohttpTransport()
    try:
        yield send
    finally:
        await transport.aclose()


@asynccontextmanager
async def _open_client(url: str) -> AsyncIterator[Send]:
    import httpx

    from narrun_async.providers.aiohttp_transport import AiohttpTransport

    async def send(body: bytes) -> bytes:
        request = client.build_request("POST", target, content=body, headers=HEADERS)
        async with asyncio.timeout(DEADLINE_S):
            answer = await client.send(request)
        return answer.content

    target = httpx.URL(url)
    async with httpx.AsyncClient(transport=AiohttpTransport(), timeout=None, trust_env=False) as client:
        yield send


FLOORS = {"aiohttp": _open_aiohttp, "transport": _open_transport, "client": _open_client}


async def _work(database: sqlite3.Connection, *, kind: str, url: str, concurrency: int, limit: int) -> None:
    body_for, items = make_body_encoder(), iter_items(database, limit)
    rows = Rows(database, with_attempts=kind != "aiohttp")
    async with FLOORS[kind](url) as send:

        async def worker() -> None:
            for row_num, item in items:
                started_at, started = datetime.now(UTC), time.monotonic()
                raw = await send(body_for(item[3]))
                rows.add(item, row_num, raw, started_at, time.monotonic() - started)

        async with asyncio.TaskGroup() as workers:
            for _ in range(concurrency):
                workers.create_task(worker())
    rows.flush()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("kind", choices=FLOORS)
    arguments.add_argument("--db", type=Path, required=True)
    arguments.add_argument("--url", required=True)
    arguments.add_argument("--concurrency", type=int, required=True)
    arguments.add_argument("--limit", type=int, required=True)
    given = arguments.parse_args()
    database = open_database(given.db)
    asyncio.run(_work(database, kind=given.kind, url=given.url, concurrency=given.concurrency, limit=given.limit))
    database.close()


if __name__ == "__main__":
    main()
