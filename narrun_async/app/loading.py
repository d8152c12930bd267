"""`narrun ingest`, `screen` and `migrate`: what goes into a database, and what brings an older one up to date."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from narrun_async.app.databases import source_file, writing
from narrun_async.config import DataSection
from narrun_async.operations.ingesting import ingest
from narrun_async.operations.repairing import find_repairs, plan_repairs
from narrun_async.operations.screening import screen
from narrun_async.reporting.ingest_lines import ingest_lines, screening_lines
from narrun_async.reporting.legacy_lines import id_lines, set_aside_lines
from narrun_async.reporting.wording import printable
from narrun_async.sources.screening_rules import load_rules
from narrun_async.stores import foresee_migration


async def ingest_file(database: Path, data: DataSection, *, dedupe: bool) -> Sequence[str]:
    """Load a file, unless the database holds it."""
    lines: list[str] = []
    purpose = f"ingest {data.file}"
    async with writing(database, purpose=purpose, tell=lines.append, dedupe=dedupe, creates=True) as (store, _):
        return [*lines, *ingest_lines(await ingest(store, source_file(data)))]


async def screen_database(database: Path, rules_file: Path | None) -> Sequence[str]:
    """Look at the texts of every data source again, or for the first time.

    :raises ConfigurationError: the rule file is wrong; nothing was changed
    """
    rules = load_rules(rules_file)
    lines: list[str] = []
    async with writing(database, purpose="screen", tell=lines.append) as (store, _):
        screened = await screen(store, rules)
    return lines + [line for one in screened for line in screening_lines(one.source, one.screening)]


async def migrate_database(database: Path, *, dedupe: bool, fix_ids: bool) -> Sequence[str]:
    """Bring a database up to date, which opening it for writing does, and repair its ids if that is asked for.

    :raises NarrunError: it is in use, or cannot be used; it is left as it was
    """
    lines: list[str] = []
    async with writing(database, purpose="migrate", tell=lines.append, dedupe=dedupe) as (store, _):
        plan = await find_repairs(store)
        backup = None
        if fix_ids and plan.repairs:
            # What the migration has just saved is the file as it was; a second copy would hold the same rows.
            backup = store.migrated.backup or await store.back_up()
            await store.repair_ids(plan.repairs)
    if backup is not None and backup != store.migrated.backup:
        lines.append(f"the file as it was: {printable(str(backup))}")
    lines += id_lines(plan, repairing=fix_ids)
    if fix_ids and not plan.repairs:
        lines.append("no id can be repaired")
    return [*lines, f"{printable(str(database))}: up to date" + ("" if lines else ", nothing to change")]


async def preview_migration(database: Path, *, dedupe: bool, fix_ids: bool) -> Sequence[str]:
    """What `migrate_database` would do. Only reads.

    :raises NarrunError: it would be refused
    """
    foreseen = await foresee_migration(database, dedupe=dedupe)
    is_older = foreseen.schema_version < foreseen.known_schema_version
    plan = plan_repairs(foreseen.rows_of_odd_ids)
    lines = []
    if is_older:
        lines.append(f"schema     {foreseen.schema_version} would become {foreseen.known_schema_version}")
    lines += set_aside_lines(foreseen.set_aside)
    lines += id_lines(plan, repairing=fix_ids)
    if is_older or (fix_ids and plan.repairs):
        lines.append("backup     a copy of the file would be made beside it first")
    return [*lines, "dry run: nothing was changed"]
