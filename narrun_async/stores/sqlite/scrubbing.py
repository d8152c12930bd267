"""Takes narratives, and what may quote them, out of a SQLite file: out of its rows, its free pages and its WAL.

What stays: ids, hashes, labels, verdicts, numbers, categories, settings and prompts.
"""

from __future__ import annotations

from collections.abc import Mapping

from narrun_async.clock import utc_now, utc_text
from narrun_async.errors import ExitCode, LockHeldError
from narrun_async.models import Cohort, NarrativeId, ScrubRecord, TextHoldings
from narrun_async.stores.sqlite.connection import transaction
from narrun_async.stores.sqlite.database import Database
from narrun_async.stores.sqlite.schema import OUR_TABLES

_OF_RESULTS = (
    "narrative_text",
    "indicators",
    "rationale",
    "reasoning_steps",
    "raw_response",
    "error_message",
    "first_error_message",
)
#: table → columns that hold a narrative or words that other people's programs said about one
TEXT_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "source_narratives": ("narrative_text",),
    "narrative_results": _OF_RESULTS,
    "legacy_results": _OF_RESULTS,
    "attempts": ("error_message",),
    "canary_answers": ("error_message",),
    "review_labels": ("comment",),
}
#: a run that the endpoint's refusal ended may repeat the endpoint's words; every other reason is a sentence of ours
REFUSED = int(ExitCode.CONFIGURATION)
_REASON_SCRUBBED = "the configuration was refused; the sentence was scrubbed"

_COUNT_REASONS = f"""
SELECT COUNT(*) FROM runs WHERE exit_code = {REFUSED} AND ended_why IS NOT NULL AND ended_why <> '{_REASON_SCRUBBED}'
"""
_SCRUB_REASONS = f"UPDATE runs SET ended_why = '{_REASON_SCRUBBED}' WHERE exit_code = {REFUSED}"

_ALL_TABLES = """
SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name
"""

_RECORD = """
INSERT INTO scrubs (scrubbed_at, narrun_version, host, last_narrative_id, n_narratives, n_results, n_calls)
VALUES (:scrubbed_at, :narrun_version, :host,
        (SELECT COALESCE(MAX(narrative_id), 0) FROM source_narratives), :n_narratives, :n_results, :n_calls)
"""
_LATEST = """
SELECT scrubbed_at, narrun_version, host, last_narrative_id, n_narratives, n_results, n_calls
FROM scrubs ORDER BY scrub_id DESC LIMIT 1
"""

_COUNT_TEXTLESS = """
SELECT COUNT(*) FROM source_narratives
WHERE data_checksum = :data_checksum AND narrative_id <= :last_narrative_id AND narrative_text IS NULL
"""

#: without the hash a text that is gone could not be told from one that never was
_KEEP_HASHES = """
UPDATE source_narratives SET text_sha256 = text_sha256(narrative_text)
WHERE text_sha256 IS NULL AND narrative_text IS NOT NULL
"""


class ScrubbingPart(Database):
    """`ports.ScrubStore`."""

    async def survey_texts(self) -> TextHoldings:
        counts: dict[str, int] = {}
        for table, columns in TEXT_COLUMNS.items():
            asked = ", ".join(f"COUNT({column})" for column in columns)
            row = await self.fetch_exactly_one(f"SELECT {asked} FROM {table}", {})
            counts |= {f"{table}.{column}": row[place] for place, column in enumerate(columns)}
        counts["runs.ended_why"] = (await self.fetch_exactly_one(_COUNT_REASONS, {}))[0]
        names = [row["name"] for row in await self.fetch_all(_ALL_TABLES, {})]
        foreign = tuple(name for name in names if name not in OUR_TABLES)
        return TextHoldings(counts=counts, foreign_tables=foreign)

    async def count_textless(self, cohort: Cohort) -> int:
        parameters = {"data_checksum": cohort.data_checksum, "last_narrative_id": cohort.last_narrative_id}
        return int((await self.fetch_exactly_one(_COUNT_TEXTLESS, parameters))[0])

    async def load_latest_scrub(self) -> ScrubRecord | None:
        row = await self.fetch_one(_LATEST, {})
        if row is None:
            return None
        columns = dict(row)
        return ScrubRecord(**columns | {"last_narrative_id": NarrativeId(columns["last_narrative_id"])})

    async def scrub_texts(self, *, narrun_version: str, host: str) -> ScrubRecord | None:
        with self.wrap_errors():
            await self.writer.execute("PRAGMA secure_delete=ON")
            async with transaction(self.writer):
                await self._remove_texts(narrun_version=narrun_version, host=host)
                self.require_in_place()
            # First the zeros that secure_delete left go into the file, over the texts; only then is the file shortened.
            await self._empty_wal()
            await self.writer.execute("VACUUM")
            await self._empty_wal()
        return await self.load_latest_scrub()

    async def _remove_texts(self, *, narrun_version: str, host: str) -> None:
        await self.writer.execute(_KEEP_HASHES)
        changed: dict[str, int] = {}
        for table, columns in TEXT_COLUMNS.items():
            emptied = ", ".join(f"{column} = NULL" for column in columns)
            held = " OR ".join(f"{column} IS NOT NULL" for column in columns)
            changed[table] = (await self.writer.execute(f"UPDATE {table} SET {emptied} WHERE {held}")).rowcount
        await self.writer.execute(_SCRUB_REASONS)
        if not any(changed.values()):
            return  # repeated after a disk error, say: the rows were done, the file was not
        await self.writer.execute(
            _RECORD,
            {
                "scrubbed_at": utc_text(utc_now()),
                "narrun_version": narrun_version,
                "host": host,
                "n_narratives": changed["source_narratives"],
                "n_results": changed["narrative_results"] + changed["legacy_results"],
                "n_calls": changed["attempts"],
            },
        )

    async def _empty_wal(self) -> None:
        """:raises LockHeldError: a reader holds an older state, so the WAL with the texts in it has to stay"""
        async with self.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)") as cursor:
            row = await cursor.fetchone()
        if row is not None and row[0]:
            reader = (
                "a program that reads an older state of it, so its -wal file still holds texts; the rows are scrubbed"
            )
            raise LockHeldError(self.path, holder=reader)
