"""Starts the program many times a second: each start is a fork of one process that has imported everything already.

What is started is a process of its own, with its own streams, directory and environment; only the half second of
importing is saved. It can be told where to kill itself (`crash_points.py`).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from harness import PATIENCE_S, Finished, Workplace, clean_environment

SERVER = Path(__file__).with_name("crash_points.py")


class WarmProgram:
    """One warm process; one start at a time."""

    def __init__(self, server: subprocess.Popen[bytes]) -> None:
        self._server = server

    def start(self, workplace: Workplace, *arguments: str | Path, **order: Any) -> WarmProcess:
        """:param order: `at`, `occurrence`, `saved` of `crash_points.py`"""
        stem = workplace.directory / f"{time.monotonic_ns()}"
        files = {"out": f"{stem}-out.txt", "err": f"{stem}-err.txt"}
        whole = (
            files
            | order
            | {
                "arguments": [str(one) for one in arguments],
                "cwd": str(workplace.directory),
                "environment": clean_environment(),
            }
        )
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(whole).encode() + b"\n")
        self._server.stdin.flush()
        return WarmProcess(self, int(self._answer()["pid"]), Path(files["out"]), Path(files["err"]))

    def run(self, workplace: Workplace, *arguments: str | Path, **order: Any) -> Finished:
        return self.start(workplace, *arguments, **order).wait()

    def wait_for_code(self) -> int:
        return int(self._answer()["code"])

    def _answer(self) -> dict[str, Any]:
        assert self._server.stdout is not None
        line = self._server.stdout.readline()
        assert line, "the warm process is gone"
        answer: dict[str, Any] = json.loads(line)
        return answer


class WarmProcess:
    """A fork that runs the program."""

    def __init__(self, program: WarmProgram, pid: int, out: Path, err: Path) -> None:
        self._program = program
        self.pid = pid
        self._out, self._err = out, err

    def kill(self) -> Finished:
        """SIGKILL, and wait until the process is gone; it may have ended before."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        return self.wait()

    def wait(self) -> Finished:
        signal.alarm(int(PATIENCE_S))  # a hang becomes a failure
        try:
            code = self._program.wait_for_code()
        finally:
            signal.alarm(0)
        return Finished(code=code, out=_read(self._out), err=_read(self._err))


def _read(path: Path) -> str:
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    path.unlink(missing_ok=True)
    return text


@contextmanager
def warm_program() -> Iterator[WarmProgram]:
    command = [sys.executable, str(SERVER), "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=clean_environment()) as server:
        try:
            yield WarmProgram(server)
        finally:
            server.kill()
