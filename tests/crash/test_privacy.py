"""Privacy as a person meets it: scrub, purge, backups, modes of files, ids that mean mischief."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from conftest import StartEndpoint
from harness import NARRUN, Workplace, wait_until

pytestmark = pytest.mark.crash

#: words that every made-up narrative of the harness ends with
TEXT_PART = b"ends here"


#: the whole program again and again in one process, from its arguments to its exit code
_RUN_ALL = """
import contextlib, io, json, sys
from narrun_async.cli.program import main
told = []
for arguments in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["narrun", *arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
    told.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(told))
"""


def run_all(workplace: Workplace, *commands: list[str]) -> list[tuple[int, str, str]]:
    """Exit code, output and error output of each command; where none of them is to be killed."""
    arguments = workplace.directory / "out-arguments.json"
    arguments.write_text(json.dumps(commands))
    with arguments.open("rb") as stdin, workplace.start_command(NARRUN[0], "-c", _RUN_ALL, stdin=stdin) as process:
        return [tuple(one) for one in json.loads(process.wait().expect(0).out)]


def write_run(workplace: Workplace, **changes: Any) -> Path:
    narratives = workplace.write_narratives(20)
    faults = {"malformed": 0.3}
    return workplace.write_config(
        url=None, narratives=narratives, simulation__latency_ms=1, simulation__fault_rates=faults, **changes
    )


def change(database: Path, statement: str) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(statement)


_OF_READING = ("-wal", "-shm", ".lock", ".lock.json")


def digests(directory: Path) -> dict[str, str]:
    """Every file by its bytes; not the outputs of processes, nor what reading makes: SQLite's side files, the lock."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.name.startswith(("out-", "err-")) and not path.name.endswith(_OF_READING)
    }


def test_after_a_scrub_everything_can_be_read_and_nothing_can_be_sent(workplace: Workplace) -> None:
    config = write_run(workplace)
    workplace.run("run", config).expect(1)
    change(workplace.database, "DELETE FROM narrative_results WHERE row_num = 20")
    next(workplace.directory.rglob("journal")).unlink()  # it knows of twenty

    asked = workplace.run("scrub").expect(2)
    assert "--yes" in asked.err
    assert TEXT_PART in workplace.database.read_bytes()
    told = workplace.run("scrub", "--yes").expect(0)

    assert "20 narratives, 19 results" in told.out
    for path in workplace.database.parent.iterdir():
        assert TEXT_PART not in path.read_bytes(), path
    experiment_id = workplace.experiment_id()
    change(workplace.database, "UPDATE experiments SET status = 'interrupted'")
    after = run_all(
        workplace,
        ["export", experiment_id],
        ["resume", experiment_id],
        ["resume", experiment_id, "--dry-run"],
        ["resume", experiment_id, "--retry-errors-only"],
        ["run", str(config)],
        ["estimate", str(config), "-k", "2"],
    )
    assert [code for code, _, _ in after] == [0, 65, 65, 65, 65, 65]
    for _, _, err in after[1:]:
        (sentence,) = [line for line in err.splitlines() if line.startswith("narrun: ")]
        assert "were scrubbed on" in sentence
    assert len(workplace.ask("SELECT 1 FROM experiments")) == 1


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_a_purge_that_is_killed_anywhere_is_finished_by_the_next(workplace: Workplace, is_long: bool) -> None:
    workplace.run("run", write_run(workplace)).expect(1)
    (log_dir,) = [Path(row["log_dir"]) for row in workplace.ask("SELECT log_dir FROM experiments")]
    kept = workplace.directory / "kept"
    shutil.copytree(workplace.database.parent, kept / "data")
    shutil.copytree(log_dir, kept / "logs")
    n_killed = 0
    kinds = (("unlink", range(1, 9)), ("fsync", range(1, 22)), ("rename", (1, 2, 3)), ("rmdir", (1,)))
    moments = [(call, number) for call, numbers in kinds for number in numbers]
    for call, number in moments if is_long else [("unlink", 2), ("fsync", 12)]:
        shutil.rmtree(workplace.database.parent, ignore_errors=True)
        shutil.rmtree(log_dir, ignore_errors=True)
        shutil.copytree(kept / "data", workplace.database.parent)
        shutil.copytree(kept / "logs", log_dir)
        killer = ("strace", "-f", "-o", "/dev/null", "-e", f"trace={call}")
        inject = ("-e", f"inject={call}:signal=SIGKILL:when={number}")
        with workplace.start_command(*killer, *inject, *NARRUN, "purge", "--yes") as purge:
            n_killed += purge.wait().code not in (0, 2)
        if any(one.name.endswith((".db", ".db.purging")) for one in workplace.database.parent.iterdir()):
            workplace.run("purge", "--yes").expect(0)
        left = [path.name for path in workplace.database.parent.iterdir()]
        # the lock and its note may stay where the kill fell after everything else was gone; they hold no narrative
        assert not [name for name in left if ".purged-" not in name and ".lock" not in name], (call, number)
        assert not log_dir.exists(), (call, number)
    assert n_killed >= 2, "nothing was killed"
    print(f"{n_killed} kills")


def test_purge_asks_a_person_and_takes_no_other_answer(workplace: Workplace) -> None:
    workplace.run("run", write_run(workplace)).expect(1)
    before = digests(workplace.directory)

    refused = workplace.run("purge").expect(2)
    shown = workplace.run("purge", "--dry-run").expect(0)

    assert "--yes" in refused.err
    assert str(workplace.database) in shown.out
    assert digests(workplace.directory) == before


def test_a_resume_with_backup_copies_the_database_as_it_was_before(
    workplace: Workplace, start_endpoint: StartEndpoint
) -> None:
    endpoint = start_endpoint("--latency-ms", "30")
    config = workplace.write_config(url=endpoint.url, narratives=workplace.write_narratives(60))
    assert "--backup" in workplace.run("run", config, "--backup").expect(2).err
    assert not workplace.database.exists()
    with workplace.start("run", config, "--concurrency", "4") as run:
        workplace.wait_for_rows(10, run)
        run.kill()
    rows = workplace.rows()

    resumed = workplace.run("resume", "latest", "--backup").expect(0)

    (backup,) = workplace.database.parent.glob("*.bak")
    assert f"backup     {backup.relative_to(workplace.directory)}" in resumed.err
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    kept = Workplace(directory=workplace.directory / "restored")
    kept.database.parent.mkdir(parents=True)
    backup.rename(kept.database)
    assert kept.rows() == rows
    kept.run("resume", "latest", "--accept-restored").expect(0)
    assert len(kept.rows()) == 60
    # nothing to do is nothing to back up
    workplace.run("resume", workplace.experiment_id(), "--backup").expect(0)
    assert list(workplace.database.parent.glob("*.bak")) == []


# --- modes of files --------------------------------------------------------------------------------------------------


def modes_below(directory: Path) -> Iterator[tuple[Path, int]]:
    for path in directory.rglob("*"):
        try:
            yield path, stat.S_IMODE(path.lstat().st_mode)
        except FileNotFoundError:
            continue  # live.json is replaced every second


@pytest.mark.fault("S03")
def test_nothing_of_ours_may_be_read_by_others_under_an_open_umask(
    workplace: Workplace, start_endpoint: StartEndpoint, measured: Any
) -> None:
    endpoint = start_endpoint("--latency-ms", "400")
    home = workplace.directory / "home"
    home.mkdir()
    narratives = workplace.write_narratives(120)
    config = workplace.write_config(url=endpoint.url, narratives=narratives, run__save_csv_json=True)
    looked_at: dict[str, int] = {}

    def look() -> None:
        looked_at.update({str(path.relative_to(home)): mode for path, mode in modes_below(home)})

    inside = Workplace(directory=home)

    def run(*arguments: str | Path, code: int = 0) -> None:
        with inside.start(*arguments, **options) as process:
            process.wait().expect(code)
        for path in home.glob("???-*.txt"):
            path.unlink()  # made by the harness
        look()

    options = {"preexec_fn": lambda: os.umask(0)}
    run("ingest", narratives)
    with inside.start("run", config, "--concurrency", "4", **options) as running:
        inside.wait_for_rows(8, running)
        wait_until(lambda: bool(list(home.rglob("live.json"))), what="a live view")
        run("pause")
        running.kill()
    endpoint.change(latency_ms=1)
    run("resume", "latest", "--backup")
    run("export", "latest", "--with-text", "--format", "csv", "--format", "json", "--format", "xlsx")
    change(inside.database, "DROP TABLE scrubs")
    change(inside.database, "PRAGMA user_version = 2")
    run("migrate")
    run("scrub", "--yes")
    run("purge", "--yes")

    wrong = {
        path: oct(mode)
        for path, mode in looked_at.items()
        if mode != (0o700 if (home / path).is_dir() or mode & 0o100 else 0o600)
    }
    assert not wrong
    names = " ".join(looked_at)
    for part in (
        "-wal",
        "-shm",
        ".lock",
        ".lock.json",
        "live.json",
        "run.log",
        ".csv",
        ".json",
        ".xlsx",
        ".bak",
        "purged",
    ):
        assert part in names, f"{part} was not looked at"
    measured(f"0 violations in {len(looked_at)} files and directories")


# --- ids -------------------------------------------------------------------------------------------------------------

MISCHIEF = [
    "../../etc/passwd",
    "/etc/passwd",
    "x" * 10_000,
    "'; DROP TABLE experiments; --",
    "00000000' OR '1'='1",
    "%",
    "*",
    "latest\nlatest",
    "\u202e\x1b[2J00000000",
]


@pytest.mark.fault("S08")
def test_an_id_that_is_none_is_refused_and_no_file_is_touched(workplace: Workplace, measured: Any) -> None:
    workplace.run("run", write_run(workplace)).expect(1)
    before = digests(workplace.directory)
    heads = (["resume"], ["show"], ["status"], ["export"], ["verify"], ["run", "--resume", "--experiment-id"])
    commands = [[*head, wanted] for head in heads for wanted in MISCHIEF]
    told = run_all(workplace, *commands)

    assert len(told) == len(commands)
    for command, (code, out, err) in zip(commands, told, strict=True):
        assert code == 2, (command[0], command[-1][:30], code, err[:300])
        assert out == ""
        assert len(err) < 400
        assert "\x1b" not in err
    assert digests(workplace.directory) == before
    measured(f"{len(commands)} commands, each exit 2 with less than 400 characters; 0 files touched")
