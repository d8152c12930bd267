"""What a report reads of a SQLite file beside the results: the ledger of calls, indicators, who answered."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

from narrun_async.models import AnswerIndicators, CallRecord, ExperimentId, IngestRecord, Serving, ServingUse
from narrun_async.stores.sqlite import statements
from narrun_async.stores.sqlite.connection import wrap_sqlite_errors
from narrun_async.stores.sqlite.database import Database

_CHUNK_ROWS = 5000


class ReportPart(Database):
    """`ports.ReportStore`."""

    async def load_ingest(self, checksum: str) -> IngestRecord | None:
        row = await self.fetch_one(statements.LOAD_INGEST, {"checksum": checksum})
        return IngestRecord(**dict(row)) if row else None

    async def iter_calls(self, experiment_id: ExperimentId) -> AsyncIterator[CallRecord]:
        with wrap_sqlite_errors(self.path):
            async with self._reader.execute(statements.ITER_CALLS, {"experiment_id": experiment_id}) as cursor:
                while chunk := await cursor.fetchmany(_CHUNK_ROWS):
                    for row in chunk:
                        yield CallRecord(
                            run_id=row["run_id"],
                            started_at=_moment(row["started_at"]),
                            duration_s=row["duration_s"],
                            error_category=row["error_category"],
                        )

    async def iter_indicators(self, experiment_id: ExperimentId) -> AsyncIterator[AnswerIndicators]:
        with wrap_sqlite_errors(self.path):
            async with self._reader.execute(statements.ITER_INDICATORS, {"experiment_id": experiment_id}) as cursor:
                while chunk := await cursor.fetchmany(_CHUNK_ROWS):
                    for row in chunk:
                        yield AnswerIndicators(is_yes=row["detected"] == 1, indicators=_texts(row["indicators"]))

    async def list_serving_uses(self, experiment_id: ExperimentId) -> Sequence[ServingUse]:
        rows = await self.fetch_all(statements.LIST_SERVING_USES, {"experiment_id": experiment_id})
        return [
            ServingUse(
                serving=Serving(
                    model=row["model"] or None,
                    system_fingerprint=row["system_fingerprint"] or None,
                    server=row["server"] or None,
                ),
                run_id=row["run_id"],
                first_seen_at=row["first_seen_at"],
                n_results=row["n_results"],
            )
            for row in rows
        ]


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _texts(stored: str | None) -> tuple[str, ...]:
    """The predecessor stored other things, too: a list of texts, or one text with commas in it."""
    if stored is None:
        return ()
    try:
        found = json.loads(stored)
    except (ValueError, RecursionError):
        found = stored
    if isinstance(found, str):
        found = found.split(",")
    return tuple(one for one in found if isinstance(one, str)) if isinstance(found, list) else ()
