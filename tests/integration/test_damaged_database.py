"""Promises about database files with damage in them: refused, or harmless, and never written to."""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, closing
from pathlib import Path
from typing import Any

import pytest
from reliability import Measured

from narrun_async.errors import StorageError
from narrun_async.logs import open_experiment_logs
from narrun_async.stores import open_sqlite_writer

OpenRig = Callable[..., AbstractAsyncContextManager[Any]]
SEED = 20240617


async def make_database(open_rig: OpenRig) -> bytes:
    async with open_rig(120) as rig:
        await rig.run()
        path = rig.path
    return bytes(path.read_bytes())


async def what_becomes_of(content: bytes, path: Path) -> str:
    """`refused`, or what a complete look finds in a file that was opened."""
    path.write_bytes(content)
    for side_file in path.parent.glob(f"{path.name}-*"):
        side_file.unlink()
    try:
        store = await open_sqlite_writer(path)
    except StorageError:
        assert path.read_bytes() == content, "a refused file was written to"
        return "refused"
    await store.aclose()
    with closing(sqlite3.connect(path)) as db:
        try:
            (found,) = db.execute("PRAGMA integrity_check(1)").fetchone()
        except sqlite3.DatabaseError as error:
            found = str(error)
    return "opened and sound" if found == "ok" else f"opened although: {found}"


@pytest.mark.fault("D11")
async def test_damaged_pages_are_refused_and_never_written_to(
    open_rig: OpenRig, tmp_path: Path, measured: Measured, is_long: bool
) -> None:
    whole = await make_database(open_rig)
    rng = random.Random(SEED)
    path = tmp_path / "damaged.db"
    n_places = 200 if is_long else 40
    found: Counter[str] = Counter()
    for at in (rng.randrange(len(whole)) for _ in range(n_places)):
        content = bytearray(whole)
        width = rng.choice([1, 16, 512])
        content[at : at + width] = rng.randbytes(len(content[at : at + width]))
        found[await what_becomes_of(bytes(content), path)] += 1
    print(f"seed {SEED}: {dict(found)}")
    assert {*found} <= {"refused", "opened and sound"}
    assert found["refused"]
    measured(
        f"{n_places} places overwritten: {found['refused']} refused byte for byte, "
        "the others sound (in a text, or unused)"
    )


@pytest.mark.fault("D11")
async def test_a_file_cut_short_anywhere_is_refused(
    open_rig: OpenRig, tmp_path: Path, measured: Measured, is_long: bool
) -> None:
    whole = await make_database(open_rig)
    rng = random.Random(SEED)
    path = tmp_path / "damaged.db"
    sizes = [0, 1, 99, 100, 511, 512, 4096, len(whole) - 4096]
    # A page short of the whole: a tail shorter than that is damage within one page.
    sizes += [rng.randrange(len(whole) - 4096) for _ in range(60 if is_long else 10)]
    for size in sizes:
        assert await what_becomes_of(whole[:size], path) == "refused", f"{size} of {len(whole)} bytes"
    measured(f"{len(sizes)} files cut short: all refused, byte for byte as they were")


@pytest.mark.fault("D08")
async def test_a_reader_of_an_old_state_is_warned_about_and_holds_nobody_up(
    open_rig: OpenRig, tmp_path: Path, measured: Measured
) -> None:
    n_narratives = 400
    async with open_rig(n_narratives, latency_ms=2) as rig:
        rig.store.next_wal_warning_bytes = 1 << 18
        with closing(sqlite3.connect(f"file:{rig.path}?mode=ro", uri=True, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT COUNT(*) FROM narrative_results").fetchone()
            with open_experiment_logs(tmp_path / "logs", level="info"):
                result = await rig.run()
            wal_bytes = rig.path.with_name(f"{rig.path.name}-wal").stat().st_size
            assert reader.execute("SELECT COUNT(*) FROM narrative_results").fetchone() == (0,)
        assert result.verdict.exit_code == 0
        assert rig.endpoint.stats().calls == n_narratives
        warnings = [line for line in (tmp_path / "logs/run.log").read_text().splitlines() if "-wal file" in line]
        assert wal_bytes > 1 << 18
        assert 1 <= len(warnings) <= 1 + (wal_bytes >> 18).bit_length()  # again only when it has doubled
        await rig.assert_invariants()
    measured(f"the -wal file grew to {wal_bytes >> 10} KiB beside the reader: {len(warnings)} warnings, no stall")
