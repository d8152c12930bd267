"""`narrun scrub` and `narrun purge`: what they would do, and doing it."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from narrun_async.app.databases import reading, require_database, writing
from narrun_async.batching.states import OPEN
from narrun_async.errors import LockHeldError, StorageError, UsageError
from narrun_async.models import Batch, FoundFiles
from narrun_async.operations.purging import Certificate, beyond_reach, purge
from narrun_async.operations.scrubbing import scrub
from narrun_async.reporting.privacy_lines import purge_plan_lines, scrub_done_lines, scrub_plan_lines
from narrun_async.stores import DatabaseLock, SqliteStore, database_is_locked, find_holder
from narrun_async.stores.removal import BATCH_NAMES, BATCHES_DIRECTORY, DOOMED_SUFFIX, find_files
from narrun_async.stores.sqlite.footprint import Footprint, read_footprint

#: one line for a person
Tell = Callable[[str], None]
#: asks a person whether to go on; raises where the answer is no
Confirm = Callable[[Path], None]

_NOTHING_KNOWN = Footprint(
    n_narratives=0, n_results=0, experiment_ids=(), log_dirs=(), exports=(), sources=(), endpoints=()
)


async def scrub_database(database: Path, *, dry_run: bool, confirm: Confirm, tell: Tell) -> None:
    """Show what goes, ask, and drop every narrative and quotation; the numbers stay.

    :param confirm: raises where the answer is no; nothing was changed then
    :raises NarrunError: the database is in use, or refuses
    """
    require_database(database)
    if dry_run:
        async with reading(database) as store:
            _tell_all(scrub_plan_lines(database, await store.survey_texts(), await _open_batches(store)), tell)
        tell("dry run: nothing was changed")
        return
    async with writing(database, purpose="scrub", tell=tell) as (store, _):
        _tell_all(scrub_plan_lines(database, await store.survey_texts(), await _open_batches(store)), tell)
        confirm(database)
        record = await scrub(store, host=socket.gethostname())
        batch_files = await _batch_files(store)
    workbooks = [Path(one) for one in (await read_footprint(database)).workbooks]
    _tell_all(scrub_done_lines(record, _backups(database), batch_files, workbooks), tell)


async def purge_database(
    database: Path, *, certificate: Path | None, dry_run: bool, confirm: Confirm, tell: Tell
) -> None:
    """Show what goes, ask, destroy the database and the files around it, and certify it.

    :raises NarrunError: it is in use, or none of ours; nothing was touched then
    """
    if database.is_symlink():
        raise UsageError(
            f"{database} is a link, and links are not followed here",
            advice=f"name the file itself: {database.resolve()}",
        )
    path = database.parent.resolve() / database.name
    doomed = path.with_name(path.name + DOOMED_SUFFIX)
    if not path.is_file() and not doomed.is_file():
        raise StorageError("there is no database here", path=database, advice="name one with --db")
    if dry_run:
        if database_is_locked(path):
            raise LockHeldError(path, holder=str(find_holder(path) or "another process"))
        footprint, found = await _survey(path)
        _tell_all(purge_plan_lines(found, _beyond(path, footprint, found)), tell)
        tell("dry run: nothing was touched")
        return
    with DatabaseLock(path, purpose="purge"):
        footprint, found = await _survey(path)
        beyond = _beyond(path, footprint, found)
        _tell_all(purge_plan_lines(found, beyond), tell)
        confirm(path)
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        record = Certificate(
            path=certificate or path.with_name(f"{path.name}.purged-{stamp}.json"),
            database=str(path),
            host=socket.gethostname(),
            user=f"{_user_name()} (uid {os.getuid()})",
            experiment_ids=footprint.experiment_ids,
            n_narratives=footprint.n_narratives,
            n_results=footprint.n_results,
            beyond=beyond,
        )
        removed = purge(path, found, record)
    tell(f"purged     {len(removed)} files, {sum(one.size_bytes for one in removed):,} bytes")
    tell(f"certificate {record.path}")


async def _open_batches(store: SqliteStore) -> Sequence[Batch]:
    return [one for one in await store.list_batches() if one.state in OPEN]


async def _batch_files(store: SqliteStore) -> Sequence[Path]:
    """Files of batches that are still there, beside the logs or wherever they were put."""
    directories = [Path(one.log_dir) / BATCHES_DIRECTORY for one in await store.list_experiments() if one.log_dir]
    beside = [path for one in directories if one.is_dir() for path in one.iterdir() if BATCH_NAMES.fullmatch(path.name)]
    elsewhere = [one.input_path for one in await store.list_batches() if one.input_path.exists()]
    return sorted({*beside, *elsewhere})


async def _survey(path: Path) -> tuple[Footprint, FoundFiles]:
    """A purge that was cut short has left files whose names say that they were recognised then."""
    footprint = await read_footprint(path) if path.exists() else _NOTHING_KNOWN
    return footprint, find_files(path, footprint.log_dirs)


def _beyond(path: Path, footprint: Footprint, found: FoundFiles) -> list[str]:
    ours = {str(one) for one in found.files}
    return beyond_reach(
        backups=[str(one) for one in _backups(path)],
        exports=footprint.exports,
        batch_files=[one for one in footprint.batch_files if one not in ours and Path(one).exists()],
        workbooks=footprint.workbooks,
        remote_files=footprint.remote_files,
        sources=footprint.sources,
        endpoints=footprint.endpoints,
    )


def _backups(database: Path) -> Sequence[Path]:
    """Copies that this program made beside a database."""
    directory, name = database.resolve().parent, database.resolve().name
    return sorted(path for path in directory.iterdir() if path.name.startswith(f"{name}.") and path.suffix == ".bak")


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


def _tell_all(lines: Sequence[str], tell: Tell) -> None:
    for line in lines:
        tell(line)
