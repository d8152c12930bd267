"""Starts the program and the simulated endpoint as processes of their own, ends them, and looks on from outside.

Everything here is real: processes, signals, sockets, files. Nothing of the program is imported, so nothing of it can be
bent to the test.
"""

from __future__ import annotations

import csv
import fcntl
import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
NARRUN = (sys.executable, "-m", "narrun_async")

#: nothing in these tests may take longer; a hang becomes a failure
PATIENCE_S = 120.0
POLL_EVERY_S = 0.005

#: of the surrounding environment, whatever would change what a run does
_MEANINGFUL = ("RESUME", "EXPERIMENT_ID", "RETRY_ERRORS_ONLY", "EXPERIMENTS_DB", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")
_MEANINGFUL_PREFIXES = ("NARRUN_", "LLM_", "OPENAI_")

#: columns that tell when, how long and in which life something happened; the rest is the result
ACCIDENTAL_COLUMNS = frozenset(
    {
        "result_id",
        "experiment_id",
        "response_sec",
        "processed_at",
        "last_attempt_at",
        "run_id",
        "attempt_count",
        "raw_response",
    }
)

Row = Mapping[str, Any]
Key = tuple[str, str]


def clean_environment(**extra: str) -> dict[str, str]:
    """The environment without any variable that the program reads."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in _MEANINGFUL and not name.startswith(_MEANINGFUL_PREFIXES)
    }
    return kept | extra


def wait_until(condition: Callable[[], bool], *, what: str, at_most_s: float = PATIENCE_S) -> float:
    """:returns: seconds until the condition held"""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > at_most_s:
            raise AssertionError(f"after {at_most_s:.0f} s still not so: {what}")
        time.sleep(POLL_EVERY_S)
    return time.monotonic() - began


# --- the program -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A process that has ended."""

    code: int
    out: str = field(repr=False)
    err: str = field(repr=False)

    def expect(self, code: int) -> Self:
        assert self.code == code, f"exit code {self.code}, not {code}:\n{self.out}\n{self.err}"
        return self


class Process:
    """A process that runs; leaving its context kills it if it still does."""

    def __init__(self, command: Sequence[str], *, cwd: Path, environment: Mapping[str, str], **options: Any) -> None:
        self._out = (cwd / f"out-{time.monotonic_ns()}.txt").open("w+b")
        self._err = (cwd / f"err-{time.monotonic_ns()}.txt").open("w+b")
        options = {"stdin": subprocess.DEVNULL, "stdout": self._out, "stderr": self._err} | options
        self._popen: subprocess.Popen[bytes] = subprocess.Popen(command, cwd=cwd, env=dict(environment), **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._popen.poll() is None:
            self._popen.kill()
        self._popen.wait()
        for stream in (self._popen.stdin, self._popen.stdout, self._popen.stderr, self._out, self._err):
            if stream is not None:
                stream.close()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def is_running(self) -> bool:
        return self._popen.poll() is None

    @property
    def stdout(self) -> Any:
        return self._popen.stdout

    def read_err(self) -> str:
        return Path(self._err.name).read_text(encoding="utf-8")

    def send(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait until the process is gone."""
        self._popen.kill()
        self._popen.wait()

    def wait(self, *, at_most_s: float = PATIENCE_S) -> Finished:
        try:
            code = self._popen.wait(at_most_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {at_most_s:.0f} s:\n{self.read_err()}") from None
        return Finished(code=code, out=Path(self._out.name).read_text(encoding="utf-8"), err=self.read_err())


@dataclass(frozen=True, slots=True, kw_only=True)
class Workplace:
    """A directory with a database, from which the program is started."""

    directory: Path

    @property
    def database(self) -> Path:
        return self.directory / "data" / "experiments.db"

    @property
    def python(self) -> Path:
        return Path(sys.executable)

    def start_command(self, *command: str, environment: Mapping[str, str] | None = None, **options: Any) -> Process:
        return Process(command, cwd=self.directory, environment=clean_environment(**(environment or {})), **options)

    def start(self, *arguments: str | Path, environment: Mapping[str, str] | None = None, **options: Any) -> Process:
        return self.start_command(*NARRUN, *map(str, arguments), environment=environment, **options)

    def run(self, *arguments: str | Path, environment: Mapping[str, str] | None = None) -> Finished:
        with self.start(*arguments, environment=environment) as process:
            return process.wait()

    # --- files ---

    def write_narratives(self, count: int, *, name: str = "narratives.csv") -> Path:
        """A long table of made-up narratives; number N holds the words `case N ends here`, and no other does."""
        path = self.directory / name
        with path.open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["incident_id", "narrative_type", "narrative_text", "manual_flag_ind"])
            for number in range(1, count + 1):
                rows.writerow(
                    [f"{100000 + number}", "cme" if number % 2 else "le", _narrative(number), int(number % 4 == 0)]
                )
        return path

    def write_config(self, *, url: str | None, narratives: Path, name: str = "crash", **changes: Any) -> Path:
        """A configuration; `section__key=value` sets a key of it."""
        sections: dict[str, dict[str, Any]] = {
            "experiment": {"name": name},
            "model": {"name": "test-model", "provider": "openai-compatible", "api_url": url, "temperature": 0.2},
            "prompt": {"version": "test-1", "system_prompt": "Answer in JSON.", "user_template": "Text: <<TEXT>>"},
            "data": {"file": str(narratives)},
            "run": {"seed": 1},
        }
        if url is None:
            sections["model"] |= {"provider": "simulated"}
            del sections["model"]["api_url"]
        for key, value in changes.items():
            section, _, entry = key.partition("__")
            sections.setdefault(section, {})[entry] = value
        path = self.directory / f"{name}.yaml"
        path.write_text(yaml.safe_dump(sections, sort_keys=False), encoding="utf-8")
        return path

    def read_all_files(self) -> Iterator[str]:
        """What every file below the directory holds, databases included."""
        for path in sorted(self.directory.rglob("*")):
            if path.is_file():
                yield path.read_bytes().decode("utf-8", "replace")

    # --- the database, seen from outside ---

    def ask(self, statement: str, *values: object) -> list[Row]:
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=30)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(statement, values)]

    def ask_one(self, statement: str, *values: object) -> Any:
        (row,) = self.ask(statement, *values)
        (value,) = row.values()
        return value

    def count_rows(self) -> int:
        """Rows that are committed; 0 while there is no database yet."""
        return 0 if not self.database.exists() else int(self.ask_one("SELECT COUNT(*) FROM narrative_results"))

    def count_errors(self) -> int:
        return int(self.ask_one("SELECT COUNT(*) FROM narrative_results WHERE error_occurred = 1"))

    def rows(self) -> dict[Key, Row]:
        """Every result row by its key, each column of it.

        :raises AssertionError: a key has two rows
        """
        found = self.ask("SELECT * FROM narrative_results ORDER BY result_id")
        by_key = {(row["incident_id"], row["narrative_type"]): row for row in found}
        assert len(by_key) == len(found), "a narrative has two rows"
        return by_key

    def experiment(self) -> Row:
        """The only experiment."""
        (row,) = self.ask("SELECT * FROM experiments")
        return row

    def experiment_id(self) -> str:
        return str(self.experiment()["experiment_id"])

    def require_sound(self) -> None:
        """I1, I2: the file is sound and no narrative has two rows."""
        assert self.ask_one("PRAGMA integrity_check") == "ok"
        assert self.ask("PRAGMA foreign_key_check") == []
        self.rows()

    def require_sound_experiments(self) -> None:
        """As `require_sound`, where several experiments share the database."""
        assert self.ask_one("PRAGMA integrity_check") == "ok"
        key = "experiment_id, incident_id, narrative_type"
        assert self.ask(f"SELECT 1 FROM narrative_results GROUP BY {key} HAVING COUNT(*) > 1") == []

    def wait_for_rows(self, count: int, process: Process) -> int:
        """:returns: rows seen, at least `count` unless the process ended before"""
        seen = 0

        def enough() -> bool:
            nonlocal seen
            seen = self.count_rows()
            return seen >= count or not process.is_running

        wait_until(enough, what=f"{count} rows")
        return seen

    def lock_is_free(self) -> bool:
        """Whether the kernel would give us the run lock."""
        lock = self.database.with_name(self.database.name + ".lock")
        if not lock.exists():
            return True
        with lock.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True


def digest_of_results(rows: Mapping[Key, Row]) -> str:
    """The results without what differs from run to run: times, ids of runs and calls, numbers of attempts."""
    digest = hashlib.sha256()
    for key in sorted(rows):
        row = {name: value for name, value in rows[key].items() if name not in ACCIDENTAL_COLUMNS}
        digest.update(json.dumps([key, row, _lasting_part(rows[key]["raw_response"])], sort_keys=True).encode())
    return digest.hexdigest()


def _lasting_part(raw_response: str | None) -> object:
    """An answer without the number and the time of its call."""
    try:
        body = json.loads(raw_response or "")
    except ValueError:
        return raw_response
    return {name: value for name, value in body.items() if name not in ("id", "created")}


_EVENTS = (
    "The decedent was found at home by a relative",
    "The decedent was shot by an ex-boyfriend after an argument",
    "The victim collapsed at work and could not be revived",
    "The victim had a protective order against the husband who stabbed her",
    "The decedent was struck by a vehicle while crossing",
)


def _narrative(number: int) -> str:
    event = _EVENTS[number % len(_EVENTS)]
    return (
        f"{event}. Officers arrived at {number % 24:02}:{number % 60:02} and took statements; case {number} ends here"
    )


# --- the endpoint ----------------------------------------------------------------------------------------------------

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Endpoint:
    """A simulated endpoint in a process of its own."""

    def __init__(self, process: Process, url: str) -> None:
        self._process = process
        self.url = url
        self._base = url.removesuffix("/v1/chat/completions")

    def stats(self) -> Mapping[str, Any]:
        with _OPENER.open(f"{self._base}/simulation/stats", timeout=10) as answer:
            return dict(json.load(answer))

    def calls(self) -> int:
        """Chat completions that were asked for, probes not counted."""
        return int(self.stats()["calls"])

    def answered(self) -> int:
        return int(self.stats()["calls_by_status"].get("200", 0))

    def change(self, **behaviour: object) -> None:
        body = json.dumps(behaviour).encode()
        with _OPENER.open(f"{self._base}/simulation/behaviour", data=body, timeout=10) as answer:
            answer.read()

    def go_down(self) -> None:
        self._process.send(signal.SIGUSR1)

    def come_up(self) -> None:
        self._process.send(signal.SIGUSR2)

    def settled_calls(self) -> int:
        """Calls so far, once nobody is connected any more and so none can be added."""

        def is_idle() -> bool:
            stats = self.stats()
            return stats["open_connections"] == 0 and stats["in_flight"] == 0

        wait_until(is_idle, what="every connection of a dead process is gone", at_most_s=10)
        return self.calls()


@contextmanager
def running_endpoint(directory: Path, *flags: str) -> Iterator[Endpoint]:
    """`narrun simulate`, until the context is left."""
    directory.mkdir(parents=True, exist_ok=True)
    command = [*NARRUN, "simulate", *flags]
    with Process(command, cwd=directory, environment=clean_environment(), stdout=subprocess.PIPE) as process:
        url = process.stdout.readline().decode().strip()
        assert url.startswith("http://127.0.0.1:"), f"the endpoint did not start:\n{process.read_err()}"
        yield Endpoint(process, url)


def recorded_requests(record: Path) -> list[Mapping[str, Any]]:
    """The request bodies that an endpoint started with `--record` has seen."""
    return [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()] if record.exists() else []
