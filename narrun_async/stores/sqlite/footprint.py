"""What a database knows of the files around it, read without changing it, whatever version of the schema it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import aiosqlite

from narrun_async.errors import StorageError
from narrun_async.models import BatchState
from narrun_async.stores.sqlite.connection import connect_reader, wrap_sqlite_errors
from narrun_async.stores.sqlite.migrations import refuse_foreign

_REQUIRED = frozenset({"source_narratives", "experiments", "narrative_results"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """The traces of one database."""

    n_narratives: int
    #: those that were set aside, too
    n_results: int
    experiment_ids: Sequence[str]
    #: experiment id, directory as recorded
    log_dirs: Sequence[tuple[str, str]]
    #: files that were exported on behalf of a run
    exports: Sequence[str]
    #: workbooks and tables that were read
    sources: Sequence[str]
    #: endpoints that were sent narratives
    endpoints: Sequence[str]
    #: files of requests, wherever they were put
    batch_files: Sequence[str] = ()
    #: what readers of a review were given, where it was put at first
    workbooks: Sequence[str] = ()
    #: what providers were given or made of batches, and batches that they may still work on, by their ids
    remote_files: Sequence[str] = ()


async def read_footprint(path: Path) -> Footprint:
    """:raises StorageError: it is no database of this program, or cannot be read"""
    reader = await connect_reader(path)
    try:
        with wrap_sqlite_errors(path):
            await refuse_foreign(reader, path)
            names = set(await _column(reader, "SELECT name FROM sqlite_schema WHERE type = 'table'"))
            if not names >= _REQUIRED:
                raise StorageError("this is no database of this program", path=path, advice="nothing was touched")
            rows = list(await reader.execute_fetchall("SELECT * FROM experiments"))
            experiments = [dict(row) for row in rows]
            (counts,) = await reader.execute_fetchall(
                "SELECT (SELECT COUNT(*) FROM source_narratives), (SELECT COUNT(*) FROM narrative_results)"
            )
            n_set_aside = 0
            if "legacy_results" in names:
                ((n_set_aside,),) = await reader.execute_fetchall("SELECT COUNT(*) FROM legacy_results")
            endpoints = [one["api_url"] for one in experiments]
            if "runs" in names:
                endpoints += await _column(reader, "SELECT DISTINCT api_url FROM runs")
            batches: list[dict[str, object]] = []
            if "batches" in names:
                batches = [dict(row) for row in await reader.execute_fetchall("SELECT * FROM batches")]
            endpoints += [one["api_url"] for one in batches]
            workbooks: list[object] = []
            if "review_workbooks" in names:
                workbooks = await _column(reader, "SELECT path FROM review_workbooks")
            sources = await _column(reader, "SELECT DISTINCT data_source FROM source_narratives")
    finally:
        await reader.close()
    ids = [str(one["experiment_id"]) for one in experiments]
    return Footprint(
        n_narratives=counts[0],
        n_results=counts[1] + n_set_aside,
        experiment_ids=ids,
        log_dirs=[(one, str(log)) for one, row in zip(ids, experiments, strict=True) if (log := row.get("log_dir"))],
        exports=_texts([row.get(column) for row in experiments for column in ("csv_file", "json_file")]),
        sources=_texts(sources),
        endpoints=_texts(endpoints),
        batch_files=_texts([one["input_path"] for one in batches]),
        workbooks=_texts(workbooks),
        remote_files=_texts(
            [one[column] for one in batches for column in ("remote_file_id", "output_file_id", "error_file_id")]
            + [one["remote_batch_id"] for one in batches if one["state"] != BatchState.CLOSED.value]
        ),
    )


async def _column(reader: aiosqlite.Connection, statement: str) -> list[object]:
    return [row[0] for row in await reader.execute_fetchall(statement)]


def _texts(values: Sequence[object]) -> list[str]:
    return sorted({value for value in values if isinstance(value, str) and value})
