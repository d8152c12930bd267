"""Starts the program many times a second, to show it one wrong input after the other, and says what each start cost.

Each start is a fork of one process that has imported everything: a process of its own, with its own streams, directory,
environment and exit code; only the half second of importing is saved.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness import Finished, Workplace, clean_environment

_SERVER = """
import json, os, signal, sys, time
import aiosqlite, anyio, anyio._backends._asyncio, openpyxl, pydantic.type_adapter, yaml
import narrun_async.app.databases, narrun_async.app.running, narrun_async.reporting.ingest_lines
import narrun_async.sources.csv_table, narrun_async.sources.workbook
from narrun_async.cli.program import main

for line in sys.stdin:
    order = json.loads(line)
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        signal.alarm(100)  # a hang becomes a failure
        os.chdir(order["cwd"])
        os.environ.clear()
        os.environ.update(order["environment"])
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(order[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        sys.argv = ["narrun", *order["arguments"]]
        break
    _, status, usage = os.wait4(pid, 0)
    took_s = time.monotonic() - began
    answer = {
        "code": os.waitstatus_to_exitcode(status),
        "took_s": took_s,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "rss_mb": usage.ru_maxrss / 1024,
    }
    print(json.dumps(answer), flush=True)
else:
    sys.exit(0)
main()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit(Finished):
    """A start that has ended, and what it cost."""

    took_s: float
    #: of the processor
    cpu_s: float
    #: the most memory it held, the interpreter and its libraries included
    rss_mb: float


class Doorway:
    """One warm process; one start at a time."""

    def __init__(self, server: subprocess.Popen[str]) -> None:
        self._server = server

    def run(self, workplace: Workplace, *arguments: str | Path, environment: Mapping[str, str] | None = None) -> Visit:
        stem = workplace.directory / f"visit-{time.monotonic_ns()}"
        out, err = stem.with_suffix(".out"), stem.with_suffix(".err")
        order = {
            "arguments": [str(one) for one in arguments],
            "cwd": str(workplace.directory),
            "environment": clean_environment(**(environment or {})),
            "out": str(out),
            "err": str(err),
        }
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        answer = json.loads(self._server.stdout.readline())
        visit = Visit(out=out.read_text(encoding="utf-8"), err=err.read_text(encoding="utf-8"), **answer)
        out.unlink()
        err.unlink()
        return visit


@contextmanager
def open_doorway() -> Iterator[Doorway]:
    command = [sys.executable, "-c", _SERVER]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=clean_environment()
    ) as server:
        try:
            yield Doorway(server)
        finally:
            server.kill()
