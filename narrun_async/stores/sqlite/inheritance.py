"""Makes room in a file of the predecessor for what it never had: one row a narrative, and sources with an identity.

What cannot stay goes to `legacy_results`, whole; `legacy_reports` counts it, and `legacy_changes` holds every value of
the predecessor's that was overwritten. Everything here works inside the transaction of whoever calls.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import aiosqlite

from narrun_async import __version__
from narrun_async.clock import utc_now, utc_text
from narrun_async.models import ROWS_IDENTITY, ExperimentId, SetAside, SetAsideReason
from narrun_async.stores.sqlite import legacy_statements as statements
from narrun_async.stores.sqlite.schema import LEGACY_CHANGES, LEGACY_REPORTS, OF_LEGACY_RESULTS


async def create_legacy_tables(connection: aiosqlite.Connection) -> None:
    """Make what is missing of them. Safe to repeat."""
    for table, columns in {"legacy_reports": LEGACY_REPORTS, "legacy_changes": LEGACY_CHANGES}.items():
        body = ", ".join(f"{name} {declaration}" for name, declaration in columns.items())
        await connection.execute(f"CREATE TABLE IF NOT EXISTS {table} ({body})")
    await _mirror_results(connection)


async def _mirror_results(connection: aiosqlite.Connection) -> Sequence[str]:
    """Give `legacy_results` every column that `narrative_results` has, and none of its keys and references.

    :returns: those columns
    """
    columns = await _columns(connection, "narrative_results")
    present = await _columns(connection, "legacy_results")
    if not present:
        own = [f"{name} {declaration}" for name, declaration in OF_LEGACY_RESULTS.items()]
        await connection.execute(f"CREATE TABLE legacy_results ({', '.join([*map(_declared, columns.items()), *own])})")
    for column in columns.items() if present else ():
        if column[0] not in present:
            await connection.execute(f"ALTER TABLE legacy_results ADD COLUMN {_declared(column)}")
    return list(columns)


def _declared(column: tuple[str, str]) -> str:
    """A column with the type that it has in `narrative_results`, and nothing else of it."""
    name, kind = column
    return f'"{name}" "{kind}"' if kind else f'"{name}"'


async def _columns(connection: aiosqlite.Connection, table: str) -> Mapping[str, str]:
    """Column → declared type."""
    async with connection.execute(f"PRAGMA table_info({table})") as cursor:
        return {row["name"]: row["type"] async for row in cursor}


async def find_duplicates(connection: aiosqlite.Connection) -> tuple[int, Sequence[SetAside]]:
    """Of how many narratives an experiment has several results, and what setting them aside would do. Only reads."""
    async with connection.execute(statements.COUNT_DUPLICATES) as cursor:
        rows = [row async for row in cursor]
    return sum(row["n_narratives"] for row in rows), [_set_aside(row, SetAsideReason.DUPLICATE) for row in rows]


async def set_duplicates_aside(connection: aiosqlite.Connection) -> None:
    """Keep of each narrative's results the newest success, else the newest error."""
    await connection.execute(statements.CHOOSE_DUPLICATES)
    await _move_chosen(connection, SetAsideReason.DUPLICATE)


async def set_outside_aside(
    connection: aiosqlite.Connection, experiment_id: ExperimentId, *, data_checksum: str, last_narrative_id: int
) -> None:
    """Take out of an experiment the results that are of no narrative of its cohort."""
    cohort = {"data_checksum": data_checksum, "last_narrative_id": last_narrative_id}
    await connection.execute(statements.CHOOSE_OUTSIDE, {"experiment_id": experiment_id, **cohort})
    await _move_chosen(connection, SetAsideReason.OUTSIDE)


async def _move_chosen(connection: aiosqlite.Connection, reason: SetAsideReason) -> None:
    columns = await _mirror_results(connection)
    move = statements.MOVE_CHOSEN.format(
        names=", ".join(f'"{name}"' for name in columns), values=", ".join(f'r."{name}"' for name in columns)
    )
    async with connection.execute(statements.COUNT_CHOSEN) as cursor:
        counted = [dict(row) async for row in cursor]
    stamp = {"set_aside_at": utc_text(utc_now()), "narrun_version": __version__, "reason": reason.value}
    for counts in counted:
        report = await connection.execute(statements.INSERT_REPORT, counts | stamp)
        await connection.execute(move, counts | stamp | {"report_id": report.lastrowid})
    await connection.execute(statements.DELETE_CHOSEN)
    await connection.execute(statements.DROP_CHOSEN)


async def list_reports(
    connection: aiosqlite.Connection, experiment_id: ExperimentId | None = None
) -> Sequence[SetAside]:
    """What was set aside, oldest first.

    :param experiment_id: None: of all experiments
    """
    async with connection.execute(statements.LIST_REPORTS, {"experiment_id": experiment_id}) as cursor:
        return [_set_aside(row, SetAsideReason(row["reason"]), row["set_aside_at"]) async for row in cursor]


def _set_aside(row: aiosqlite.Row, reason: SetAsideReason, set_aside_at: str | None = None) -> SetAside:
    return SetAside(
        experiment_id=row["experiment_id"],
        reason=reason,
        n_before=row["n_before"],
        n_moved=row["n_moved"],
        set_aside_at=set_aside_at,
    )


async def identify_sources(connection: aiosqlite.Connection) -> None:
    """Give narratives whose file has no checksum one that is drawn from themselves, one for each path."""
    digests: dict[str | None, hashlib._Hash] = {}
    async with connection.execute(statements.ITER_UNIDENTIFIED) as cursor:
        async for path, *parts in cursor:
            digests.setdefault(path, hashlib.sha256()).update(repr(parts).encode("utf-8", "backslashreplace"))
    for path, digest in digests.items():
        identity = f"{ROWS_IDENTITY}{digest.hexdigest()[:32]}"
        await connection.execute(statements.IDENTIFY_SOURCE, {"identity": identity, "path": path})
