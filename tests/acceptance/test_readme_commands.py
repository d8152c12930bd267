"""The commands of the README, as a new user types them."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

pytestmark = pytest.mark.crash

REPOSITORY = Path(__file__).resolve().parents[2]
MODULE = (sys.executable, "-m", "narrun_async")
SCRIPT = (os.fspath(Path(sys.executable).with_name("narrun")),)
COMMANDS = (
    *("run", "resume", "ingest", "migrate", "synth", "list", "show", "status", "export", "simulate"),
    *("verify", "doctor", "browse", "metrics", "compare", "report", "sweep", "review", "batch", "screen", "estimate"),
    *("migrate-config", "pause", "unpause", "set", "scrub", "purge"),
)

#: of the surrounding environment, whatever would change what the commands do
_MEANINGFUL = ("NARRUN_", "LLM_", "OPENAI_", "RESUME", "EXPERIMENT", "RETRY_ERRORS_ONLY", "MAKE", "MFLAGS", "GIT_")


def call(command: Sequence[str], *, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command; the directory it runs in never provides the program's own code."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_MEANINGFUL)}
    return subprocess.run(
        command,
        cwd=cwd,
        env=inherited | {"PYTHONSAFEPATH": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def ask(database: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute(statement).fetchall()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A fresh directory with what the repository gives a user."""
    shutil.copytree(REPOSITORY / "configs", tmp_path / "configs")
    (tmp_path / "data").mkdir()
    shutil.copy(REPOSITORY / "data" / "synthetic_narratives.xlsx", tmp_path / "data")
    return tmp_path


@pytest.mark.slow
def test_run_without_anything_takes_200_narratives_to_200_rows_and_prints_metrics(directory: Path) -> None:
    finished = call((*MODULE, "run"), cwd=directory)

    assert finished.returncode == 0, finished.stderr
    for measure in ("accuracy", "precision", "recall", "F1"):
        assert measure in finished.stdout
    assert "SIMULATED" in finished.stdout
    assert "smoke" in finished.stderr  # it says which configuration it took
    database = directory / "data" / "experiments.db"
    assert ask(database, "SELECT COUNT(*), SUM(error_occurred) FROM narrative_results") == [(200, 0)]
    ((status, accuracy, f1, total),) = ask(
        database, "SELECT status, accuracy, f1_ipv, n_narratives_total FROM experiments"
    )
    assert (status, total) == ("completed", 200)
    assert isinstance(accuracy, float) and isinstance(f1, float)
    assert f"{accuracy:.3f}" in finished.stdout

    # and what a user does next
    listed = call((*MODULE, "list"), cwd=directory)
    assert "completed" in listed.stdout
    shown = json.loads(call((*MODULE, "show", "latest", "--json"), cwd=directory).stdout)
    assert shown["status"] == "completed"
    assert "nothing to do" in call((*MODULE, "resume", shown["experiment_id"]), cwd=directory).stderr


@pytest.mark.slow
def test_a_run_an_export_and_a_backup_leave_git_status_clean(tmp_path: Path) -> None:
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout")
    clone = tmp_path / "clone"
    cloned = call(("git", "clone", "--quiet", os.fspath(REPOSITORY), os.fspath(clone)), cwd=tmp_path)
    assert cloned.returncode == 0, cloned.stderr

    for command in (("run", "--concurrency", "64"), ("export", "latest"), ("export", "latest", "--with-text")):
        finished = call((*MODULE, *command), cwd=clone)
        assert finished.returncode == 0, finished.stderr
    database = clone / "data" / "experiments.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA user_version = 0")  # as if an earlier version had written it
    assert ".bak" in call((*MODULE, "migrate"), cwd=clone).stdout
    with closing(sqlite3.connect(database)) as reader:  # with a reader, the files beside the database stay
        reader.execute("SELECT COUNT(*) FROM narrative_results").fetchone()
        assert call(("git", "status", "--porcelain"), cwd=clone).stdout == ""
    left = {path.name for path in clone.rglob("*") if ".git" not in path.parts}
    assert {"experiments.db", "experiments.db.lock", "run.log"} <= left
    assert any(name.endswith(".bak") for name in left)
    assert any(name.endswith(".csv") for name in left)


@pytest.mark.parametrize("program", [MODULE, SCRIPT], ids=["module", "console script"])
def test_both_names_of_the_program_explain_themselves(program: Sequence[str], tmp_path: Path) -> None:
    finished = call((*program, "--help"), cwd=tmp_path)

    assert finished.returncode == 0
    for command in COMMANDS:
        assert command in finished.stdout
    assert call((*program, "--version"), cwd=tmp_path).stdout.startswith("narrun_async ")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, tmp_path: Path) -> None:
    finished = call((*SCRIPT, command, "--help"), cwd=tmp_path)

    assert finished.returncode == 0
    assert finished.stdout.startswith(f"Usage: narrun {command}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("--no-such-flag",),
        ("nosuchcommand",),
        ("run", "--no-such-flag"),
        ("run", "--concurrency", "0"),
        ("run", "--concurrency", "many"),
        ("run", "--max-narratives", "-1"),
        ("export",),
        ("synth",),
        ("simulate", "--fault", "http_500"),
        ("run", "configs/exp_101_smoke.yaml", "--retry-errors-only"),
        ("run", "configs/exp_101_smoke.yaml", "--resume"),
    ],
    ids=" ".join,
)
def test_a_command_that_makes_no_sense_exits_2_and_leaves_no_file(arguments: Sequence[str], directory: Path) -> None:
    before = sorted(directory.rglob("*"))

    finished = call((*MODULE, *arguments), cwd=directory)

    assert finished.returncode == 2, finished.stderr
    assert "Traceback" not in finished.stderr
    assert finished.stderr.strip()
    assert sorted(directory.rglob("*")) == before


def test_a_dry_run_shows_the_plan_and_leaves_no_file(directory: Path) -> None:
    before = sorted(directory.rglob("*"))

    finished = call((*MODULE, "run", "--dry-run"), cwd=directory)

    assert finished.returncode == 0
    assert "200 narratives" in finished.stderr
    assert sorted(directory.rglob("*")) == before


def test_make_lists_its_targets() -> None:
    listed = call(("make", "-C", os.fspath(REPOSITORY)), cwd=REPOSITORY)

    assert listed.returncode == 0
    for target in ("make run", "make resume", "make test", "make check"):
        assert target in listed.stdout
