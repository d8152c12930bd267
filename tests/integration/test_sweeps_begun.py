"""What goes on with a sweep that was begun: the file that describes it, whichever version of the program began it."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from batch_rig import BatchRig, open_batch_rig

from narrun_async.errors import ExitCode, StorageError, UsageError

TWO: Mapping[str, Mapping[str, Sequence[object]]] = {"run": {"seed": [1, 2]}}


def as_an_earlier_version_wrote_it(rig: BatchRig) -> None:
    """Without keys that it did not know, and with the hashes of that."""
    with closing(sqlite3.connect(rig.database)) as db:
        db.execute(
            "UPDATE experiments SET config_json ="
            " json_remove(config_json, '$.run.ask_identical_once', '$.run.skip_placeholders', '$.model.top_p')"
        )
        db.execute("UPDATE sweeps SET definition_sha256 = 'of an earlier version'")
        db.commit()


async def test_a_sweep_that_an_earlier_version_began_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with open_batch_rig(tmp_path) as rig:
        assert await rig.sweep(rig.write_config(run__max_tokens_total=1), **TWO) is ExitCode.TEMPORARY
        as_an_earlier_version_wrote_it(rig)
        with pytest.raises(UsageError):
            await rig.sweep(rig.write_config(model__top_p=0.9), **TWO)
        assert await rig.sweep(rig.write_config(), **TWO) is ExitCode.COMPLETED
        assert rig.ask_one("SELECT COUNT(*) FROM experiments") == 2
        modes = [row["mode"] for row in rig.ask("SELECT mode FROM runs ORDER BY run_id")]
        assert modes == ["new", "resume", "new"]


async def test_refusals_that_are_not_in_a_row_do_not_stop_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with open_batch_rig(tmp_path, known_models=("m1", "m2")) as rig:
        models = ["no1", "no2", "m1", "no3", "m2"]
        assert await rig.sweep(rig.write_config(n_narratives=3), model={"name": models}) is ExitCode.CONFIGURATION
        statuses = [row["status"] for row in rig.ask("SELECT status FROM experiments ORDER BY sweep_position")]
        assert statuses == ["failed", "failed", "completed", "failed", "completed"]


async def test_a_sweep_over_a_database_that_was_put_back_goes_on_where_a_person_means_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with open_batch_rig(tmp_path) as rig:
        config = rig.write_config()
        assert await rig.sweep(config, **TWO) is ExitCode.COMPLETED
        n_results = rig.ask_one("SELECT COUNT(*) FROM narrative_results")
        with closing(sqlite3.connect(rig.database)) as db:
            db.execute("DELETE FROM narrative_results WHERE result_id = 1")
            db.execute("UPDATE experiments SET status = 'interrupted' WHERE sweep_position = 1")
            db.commit()
        with pytest.raises(StorageError, match="--accept-restored"):
            await rig.sweep(config, **TWO)
        assert rig.ask_one("SELECT COUNT(*) FROM narrative_results") == n_results - 1
        assert await rig.sweep(config, accept_restored=True, **TWO) is ExitCode.COMPLETED
        assert rig.ask_one("SELECT COUNT(*) FROM narrative_results") == n_results
